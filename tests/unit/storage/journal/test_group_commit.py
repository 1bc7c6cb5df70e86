"""What waits together is committed together, and nobody fails for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.group_commit import GroupCommit
from alphapulse.storage.journal.writer import Journal
from tests.unit.storage.records import RUN, record


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as worker:
        yield worker


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite", run=RUN)
    yield journal
    journal.close()


def busy(worker: ThreadPoolExecutor) -> threading.Event:
    """Keep the worker from working until the event is set."""
    go_on = threading.Event()
    worker.submit(go_on.wait)
    return go_on


def written(
    group: GroupCommit, journal: Journal, worker: ThreadPoolExecutor, runs: list[str]
) -> list[int | BaseException]:
    """Append one decision a run while the worker is busy, and return what each caller is told."""

    async def write() -> list[int | BaseException]:
        go_on = busy(worker)
        calls = [
            asyncio.ensure_future(group.write(partial(journal.appending, [record(n, run=run)])))
            for n, run in enumerate(runs)
        ]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(write())


def test_what_waits_together_is_one_commit(journal: Journal, worker: ThreadPoolExecutor) -> None:
    group = GroupCommit(journal, worker)

    new = written(group, journal, worker, [RUN] * 20)

    assert (new, group.num_commits) == ([1] * 20, 1)
    assert journal.counts()["decisions"] == 20


def test_work_that_cannot_be_done_fails_alone(journal: Journal, worker: ThreadPoolExecutor) -> None:
    group = GroupCommit(journal, worker)

    first, other, last = written(group, journal, worker, [RUN, "another run", RUN])

    assert (first, last) == (1, 1)
    assert isinstance(other, StoreError)
    assert journal.counts()["decisions"] == 2


def test_work_the_table_refuses_takes_nobody_along(
    journal: Journal, worker: ThreadPoolExecutor
) -> None:
    group = GroupCommit(journal, worker)
    bad = {"order_id": None, "inference_id": "ab", "symbol": "s", "event_ns": 1, "purpose": "entry"}

    async def write() -> list[int | BaseException]:
        go_on = busy(worker)
        works = [
            partial(journal.appending, [record(0)]),
            partial(journal.noting, "orders", [bad]),
            partial(journal.appending, [record(1)]),
        ]
        calls = [asyncio.ensure_future(group.write(work)) for work in works]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    first, other, last = asyncio.run(write())

    assert (first, last) == (1, 1)
    assert isinstance(other, StoreError)
    assert journal.counts()["decisions"] == 2


def test_a_caller_that_gives_up_takes_nobody_along(
    journal: Journal, worker: ThreadPoolExecutor
) -> None:
    group = GroupCommit(journal, worker)

    async def write() -> int:
        go_on = busy(worker)
        works = [partial(journal.appending, [record(n)]) for n in range(2)]
        impatient, patient = (asyncio.ensure_future(group.write(work)) for work in works)
        await asyncio.sleep(0)
        impatient.cancel()
        go_on.set()
        return await patient

    assert asyncio.run(write()) == 1
    assert journal.counts()["decisions"] == 2
