"""A lake in an object store holds what one in a folder holds: bit for bit, once, through kills."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.errors import StoreError
from alphapulse.interfaces import Query
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.lake.upkeep import Upkeep
from alphapulse.storage.tables import COLUMNS
from tests.flows.object_store import BUCKET, KEY, SECRET, aws, object_store, refuse_all
from tests.unit.storage.lake.lakes import assert_holds_all, contents, files_by_day, journal_of
from tests.unit.storage.records import instant, record

ROOT = Path(__file__).parents[2]
# Appends decisions and moves each few to the lake until it is killed.
WRITER = """
import asyncio, sys
from pathlib import Path
from alphapulse.config import Storage
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from tests.unit.storage.records import outcome, record
folder, lake_uri, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
run = Run.read(folder)
history = InferenceHistory(Home(folder.parents[1]), run=run, settings=Storage(lake_uri=lake_uri))
async def main():
    for second in range(first, 10**9, 5):
        seconds = range(second, second + 5)
        await history.append([record(s, run=run.id) for s in seconds])
        await history.settle([outcome(s, run=run.id) for s in seconds])
        print(second + 5, flush=True)
        await history.flush()
        print("flushed", flush=True)
        while await history.keep_up():
            pass
asyncio.run(main())
"""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with object_store() as endpoint:
        for name, value in aws(endpoint).items():
            monkeypatch.setenv(name, value)
        yield endpoint


@pytest.fixture
def lake(endpoint: str) -> Lake:
    return Lake(f"s3://{BUCKET}/some/prefix")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = journal_of(tmp_path / "journal.sqlite", seconds=20, batches=5)
    yield journal
    journal.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    given = {"source": "recording", "recording": "by hand", "content_hash": "c0ffee"}
    return Home(tmp_path).open_run(**given, settings=Settings(), checkpoints={}, fresh=False)


def test_batches_arrive_bit_for_bit_and_once(lake: Lake, journal: Journal) -> None:
    lake.take(journal, writer=journal.name())

    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert_holds_all(Lake(lake.uri), journal)


def test_upkeep_joins_files_and_changes_no_row(lake: Lake, journal: Journal) -> None:
    lake.take(journal, writer=journal.name())
    before = files_by_day(lake, "inferences")
    upkeep = Upkeep(Lake(lake.uri), keep_replaced_h=0)

    while upkeep.step(everything=True):
        pass

    assert min(before.values()) > 1
    assert set(files_by_day(lake, "inferences").values()) == {1}
    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert_holds_all(Lake(lake.uri), journal)


def test_queries_answer_as_from_a_folder(endpoint: str, run: Run, tmp_path: Path) -> None:
    async def stored(settings: Storage) -> pd.DataFrame:
        home = Home(tmp_path)
        history = InferenceHistory(home, run=run, settings=settings)
        await history.append([record(second, run=run.id) for second in range(10)])
        await history.flush()
        span = {"from_ns": instant(2), "to_ns": instant(7)}
        found = await history.query(Query(symbol="ETH/USDT", model="cnn", **span))
        history.close()
        return found

    from_store = asyncio.run(stored(Storage(lake_uri=f"s3://{BUCKET}/lake")))
    from_folder = asyncio.run(stored(Storage()))

    assert len(from_store) == 5
    pd.testing.assert_frame_equal(from_store, from_folder)


def test_no_commit_replaces_another_even_if_asked_to(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers that find their version taken make the next one instead."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    paths = [tmp_path / f"{number}.sqlite" for number in range(3)]
    journals = [journal_of(path, seconds=4, batches=4) for path in paths]
    Lake(lake.uri).take(journals[0], writer="the first, so that the tables are there")

    with ThreadPoolExecutor(len(journals)) as writers:
        takes = [
            writers.submit(Lake(lake.uri).take, journal, writer=journal.name())
            for journal in journals
        ]

    for take, journal in zip(takes, journals, strict=True):
        assert take.exception() is None
        assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    for table in COLUMNS:
        found = contents(lake, table)
        if table == "rows":
            is_forming = pc.equal(found["stream"], STREAM)
            assert pc.sum(is_forming).as_py() == 4 * len(journals[0].select("packages"))
            found = found.filter(pc.invert(is_forming))
        assert found.num_rows == 4 * len(journals[0].select(table)), table
    for journal in journals:
        journal.close()


def test_a_killed_writer_loses_and_doubles_nothing(endpoint: str, run: Run) -> None:
    moments, lake_uri, first, was_midway = random.Random(20240809), f"s3://{BUCKET}/lake", 0, 0

    for _ in range(5):
        first, midway = written_until_killed(run, lake_uri, first, after_s=moments.uniform(0, 1))
        was_midway += midway

    reader = HistoryReader(runs=run.path.parent, lake_uri=lake_uri)
    for table in ("inferences", "outcomes"):
        seconds = {row["event_ns"] for row in reader.fetch(table, {})}
        assert {instant(second) for second in range(first)} <= seconds
    reader.close()
    assert was_midway > 0
    assert_lake_alone_is_whole_and_once(run, lake_uri)


def written_until_killed(
    run: Run, lake_uri: str, first: int, *, after_s: float
) -> tuple[int, bool]:
    """Return the first second not acknowledged, and whether the kill came within a flush."""
    command = [sys.executable, "-c", WRITER, str(run.path), lake_uri, str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(after_s)
        writer.kill()
        said += writer.stdout.readlines()
    assert said[0], "the writer ended by itself"
    whole = [line for line in said if line.endswith("\n")]
    return max(int(line) for line in whole if line.strip().isdecimal()), whole[-1] != "flushed\n"


def assert_lake_alone_is_whole_and_once(run: Run, lake_uri: str) -> None:
    journal = Journal(run.journal_path, run=run.id)
    journal.name_batch(max_decisions=10_000)
    lake = Lake(lake_uri)
    lake.take(journal, writer=journal.name())
    assert_holds_all(lake, journal)
    journal.close()


def test_a_wrong_endpoint_is_told_with_its_remedy(
    lake: Lake, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    assert_told(lake, journal, "does not answer; check AWS_ENDPOINT_URL")


def test_wrong_credentials_are_told_with_their_remedy(
    lake: Lake, journal: Journal, endpoint: str
) -> None:
    refuse_all(endpoint)

    assert_told(lake, journal, "refused the credentials; set AWS_ACCESS_KEY_ID")


def test_a_bucket_that_is_not_there_is_told_with_its_remedy(
    endpoint: str, journal: Journal
) -> None:
    assert_told(Lake("s3://other/lake"), journal, "no such bucket; create it")


def assert_told(lake: Lake, journal: Journal, what: str) -> None:
    started = time.monotonic()
    with pytest.raises(StoreError, match=what) as told:
        lake.take(journal, writer=journal.name())

    message = str(told.value)
    assert message.startswith(f"lake {lake.uri}/rows: ")
    assert "\n" not in message
    assert told.value.__cause__ is None
    assert not any(secret in message for secret in (KEY, SECRET))
    assert time.monotonic() - started < 30
