"""Every order that was sent is linked to its inference once, as soon as the history takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.trading import Approved, Refused
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.order_links import OrderLinks
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.unit.execution.test_ledger import ENTRY, EXIT, RUN, a_step


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite", RUN, busy_timeout_s=0.05)
    ledger.step(a_step(10), [Approved(ENTRY), Refused(replace(ENTRY, symbol="BTC/USDT"), "no")])
    yield ledger
    ledger.close()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[InferenceHistory]:
    home = Home(tmp_path)
    run = home.open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )
    history = InferenceHistory(home, run=run, settings=Storage())
    yield history
    history.close()


def linked(tmp_path: Path) -> list[tuple[str, str, str]]:
    reader = HistoryReader(runs=tmp_path / "runs", lake_uri=str(tmp_path / "lake"))
    rows = reader.fetch("orders", {})
    reader.close()
    return [(row["order_id"], row["inference_id"], row["purpose"]) for row in rows]


def test_orders_are_linked_once_and_those_refused_never(
    tmp_path: Path, ledger: Ledger, history: InferenceHistory
) -> None:
    async def decide() -> None:
        links = OrderLinks(ledger, history.note)
        links.follow(10)
        ledger.step(a_step(20), [Approved(replace(EXIT, event_ns=20))])
        await links.close(20)
        await OrderLinks(ledger, history.note).close(20)  # as after a restart

    asyncio.run(decide())

    exit = replace(EXIT, event_ns=20)
    assert linked(tmp_path) == [
        (ENTRY.id, ENTRY.inference_id, "entry"),
        (exit.id, exit.inference_id, "exit"),
    ]


def test_what_the_history_did_not_take_is_sent_with_the_next_step(
    tmp_path: Path, ledger: Ledger, history: InferenceHistory
) -> None:
    down = [True]

    async def note(table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        if down.pop():
            raise StoreError("the disk is full")
        down.append(False)
        return await history.note(table, rows)

    async def decide() -> list[bool]:
        links = OrderLinks(ledger, note)
        sent = [await links.send(10)]
        down.append(False)
        return [*sent, await links.send(20)]

    assert asyncio.run(decide()) == [False, True]
    assert linked(tmp_path) == [(ENTRY.id, ENTRY.inference_id, "entry")]
