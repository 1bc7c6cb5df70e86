"""What the history acknowledged survives a kill -9 at any moment: all, none twice, none in part."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.inference import inference_id
from alphapulse.storage.conditions import Asked
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.history_reader import HistoryReader
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal_reader import JournalReader
from alphapulse.storage.lake import Lake
from tests.unit.storage.records import SYMBOLS, instant

ROOT = Path(__file__).parents[2]
MODELS = ("cnn", "rl", "moe")

# Appends one decision after the other, some a second time, and prints each acknowledged second.
JOURNAL_WRITER = """
import sys
from pathlib import Path
from alphapulse.storage.journal import Journal
from tests.unit.storage.records import record
path, run, first = Path(sys.argv[1]) / "journal.sqlite", sys.argv[2], int(sys.argv[3])
journal = Journal(path, run=run)
for second in range(max(0, first - 3), 10**9, 2):
    journal.append([record(second, run=run), record(second + 1, run=run)])
    print("stored", second, second + 1, flush=True)
"""
# The same through the history, with a batch on its way to the lake all the time.
HISTORY_WRITER = """
import asyncio, sys
from pathlib import Path
from alphapulse.config import Storage
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from tests.unit.storage.records import outcome, record
folder, first = Path(sys.argv[1]), int(sys.argv[3])
run = Run.read(folder)
history = InferenceHistory(Home(folder.parents[1]), run=run, settings=Storage())
async def flush():
    while True:
        await history.flush()
        print("flushed", flush=True)
async def main():
    flushing = asyncio.create_task(flush())
    for second in range(max(0, first - 3), 10**9):
        await history.append([record(second, run=run.id)])
        await history.settle([outcome(second, run=run.id)])
        print("stored", second, flush=True)
        await asyncio.sleep(0.002)
asyncio.run(main())
"""


@dataclass(frozen=True)
class Moment:
    """When to kill: `after_s` after the writer said `word` `count` times."""

    word: str
    count: int
    after_s: float


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Home(tmp_path).open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )


def write_until_killed(script: str, run: Run, *, first: int, moment: Moment) -> list[int]:
    """Return the seconds the writer acknowledged until it was killed at `moment`."""
    command = [sys.executable, "-c", script, str(run.path), run.id, str(first)]
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while sum(moment.word in line for line in said) < moment.count:
            said.append(writer.stdout.readline())
            assert said[-1], "the writer ended by itself"
        time.sleep(moment.after_s)
        writer.kill()
        said += writer.stdout.readlines()
    whole = [line.removeprefix("stored ") for line in said if line.endswith("\n")]
    return [int(second) for line in whole for second in line.split() if second.isdecimal()]


def ids_of(seconds: set[int], run: Run) -> set[str]:
    return {
        inference_id(run=run.id, symbol=SYMBOLS[0], event_ns=instant(second), model=model)
        for second in seconds
        for model in MODELS
    }


def assert_whole_and_once(reader: HistoryReader, acknowledged: set[int], run: Run) -> None:
    found = {
        table: reader.find(Asked(table, {}, lake_first=True)).to_pylist()
        for table in ("inferences", "predictions", "packages", "rows")
    }
    ids = [row["id"] for row in found["inferences"]]
    events = {row["event_ns"] for row in found["packages"]}
    assert ids_of(acknowledged, run) <= set(ids)
    assert len(ids) == len(set(ids)) == len(MODELS) * len(events)
    assert len(found["packages"]) == len(events)
    assert len(found["predictions"]) == 4 * len(events)
    assert len(found["rows"]) == 2 * len(events)


def test_acknowledged_records_survive_kills_of_the_writer(run: Run) -> None:
    moments = random.Random(20240806)
    acknowledged: set[int] = set()
    reader = HistoryReader(runs=run.path.parent, lake_uri=str(run.path / "no lake"))

    for _ in range(15):
        first = max(acknowledged, default=-1) + 1
        moment = Moment("stored", moments.randint(1, 20), moments.uniform(0, 0.02))
        acknowledged |= set(write_until_killed(JOURNAL_WRITER, run, first=first, moment=moment))

    assert len(acknowledged) > 100
    assert_whole_and_once(reader, acknowledged, run)
    reader.close()


def test_batches_reach_the_lake_exactly_once_through_kills_of_the_writer(run: Run) -> None:
    moments = random.Random(20240807)
    acknowledged: set[int] = set()
    lake_uri = str(run.path.parents[1] / "lake")

    for _ in range(10):
        first = max(acknowledged, default=-1) + 1
        moment = Moment("flushed", moments.randint(0, 2), moments.uniform(0.02, 0.3))
        acknowledged |= set(write_until_killed(HISTORY_WRITER, run, first=first, moment=moment))
        reader = HistoryReader(runs=run.path.parent, lake_uri=lake_uri)
        assert_whole_and_once(reader, acknowledged, run)
        answered = [row["event_ns"] for row in reader.find(Asked("outcomes", {})).to_pylist()]
        assert {instant(second) for second in acknowledged} <= set(answered)
        assert len(answered) == len(set(answered))
        reader.close()

    journal = JournalReader(run.journal_path)
    assert len(journal.batches()) >= 5
    assert_lake_alone_is_whole_and_once(run, lake_uri, journal)
    journal.close()


def assert_lake_alone_is_whole_and_once(run: Run, lake_uri: str, journal: JournalReader) -> None:
    """Flush what is left, then count in the Delta tables themselves: nothing hides a double."""
    history = InferenceHistory(Home(run.path.parents[1]), run=run, settings=Storage())
    asyncio.run(history.flush())
    history.close()
    counts = journal.counts()
    tables = ("predictions", "packages", "rows", "outcomes")
    sizes = {table: len(journal.select(table)) for table in tables}
    for table, size in (sizes | {"inferences": counts["inferences"]}).items():
        stored, _ = Lake(lake_uri).read(table, writers=[])
        assert stored is not None
        assert stored.count_rows() == size, table
