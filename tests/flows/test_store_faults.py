"""Whatever befalls the store, decisions go on and no record is forgotten in silence (R9.7)."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alphapulse import logs
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import MODELS, inference_id
from alphapulse.execution.recorder import Recorder
from alphapulse.storage.home import Run
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.spill import Spill
from alphapulse.storage.tables import COLUMNS
from tests.flows.disturbed import (
    TIMEOUT_S,
    Flow,
    Hosted,
    a_run,
    a_spill,
    corrupt,
    fill,
    kept,
    locked,
    mib,
    read_only,
    records_of,
    small_disk,
    undisturbed,
)
from tests.unit.storage.records import SYMBOLS, instant

ROOT = Path(__file__).parents[2]
AT_ONCE_S = 1.0  # far more than a record takes that waits for nothing, also on a busy machine
Logged = Callable[[str], list[dict[str, Any]]]

# A trader whose store is locked: it records, and says how much is in the spill.
SPILLER = """
import asyncio, sys
from pathlib import Path
from alphapulse.storage.home import Run
from tests.flows.disturbed import Flow, Hosted, a_spill
async def main():
    run = Run.read(Path(sys.argv[1]))
    flow = Flow(Hosted(run), a_spill(run, Path(sys.argv[2])))
    await flow.recorder.recover(timeout_s=0)
    print("recording", flush=True)
    for second in range(int(sys.argv[3]), int(sys.argv[4])):
        await flow.decide([second], pause_s=0.005)
    while flow.recorder.counters()["spilled"] < flow.recorder.num_pending:
        await asyncio.sleep(0.01)
    print("spilled", flow.recorder.num_pending, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
# The trader of the next start, which hands over what it finds.
RECOVERER = """
import asyncio, sys
from pathlib import Path
from alphapulse.storage.home import Run
from tests.flows.disturbed import Flow, Hosted, a_spill
async def main():
    run = Run.read(Path(sys.argv[1]))
    flow = Flow(Hosted(run), a_spill(run, Path(sys.argv[2])))
    print("recovering", flush=True)
    await flow.recorder.recover(timeout_s=60)
asyncio.run(main())
"""


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Return a function that gives the lines of one event logged since the test began."""
    folder = tmp_path / "logs"
    logs.configure(folder, process="test", session="test")

    def read(event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (folder / "test.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    return read


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user may reach."""
    folder = Path(tempfile.mkdtemp(prefix="alphapulse-open-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def ids_of(second: int, run: str) -> list[str]:
    """Return the ids of the inferences of both symbols at an instant."""
    return [
        inference_id(run=run, symbol=symbol, event_ns=instant(second), model=model)
        for symbol in SYMBOLS
        for model in MODELS
    ]


def assert_nothing_waited(flow: Flow) -> None:
    """Check that one decision waited for the failing store, once and within its bound."""
    assert max(flow.waits_s) < TIMEOUT_S + AT_ONCE_S
    assert sum(wait_s > TIMEOUT_S for wait_s in flow.waits_s) <= 1


def test_full_disk_stops_no_decision_and_all_is_stored_when_there_is_room(
    tmp_path: Path, logged: Logged
) -> None:
    with small_disk(kib=3072) as disk:
        run = a_run(disk)
        hosted = Hosted(run)
        flow = Flow(hosted, a_spill(run, tmp_path))

        async def scenario() -> None:
            await flow.decide(range(10))
            ballast = fill(disk)
            await flow.decide(range(10, 60))
            await flow.until(pending=100, spilled=100)
            ballast.unlink()
            await flow.decide(range(60, 70))
            await flow.until(pending=0)
            await flow.decide(range(70, 75))

        asyncio.run(scenario())
        hosted.close()
        found = kept(run)

    assert flow.durable == [True] * 10 + [False] * 60 + [True] * 5
    assert flow.recorder.counters() == {
        "flagged": 120, "pending": 0, "spilled": 0, "recovered": 120, "lost": 0,
    }  # fmt: skip
    assert_nothing_waited(flow)
    assert "free space on the disk" in logged("inference not stored")[0]["reason"]
    assert found == undisturbed(tmp_path / "quiet", range(75))


def test_locked_journal_stops_no_decision_and_all_is_stored_afterwards(
    tmp_path: Path, logged: Logged
) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    flow = Flow(hosted, a_spill(run, tmp_path))

    async def scenario() -> None:
        await flow.decide(range(5))
        with locked(run.journal_path):
            await flow.decide(range(5, 45))
            await flow.until(spilled=80)
        await flow.until(pending=0)
        await flow.decide(range(45, 50))

    asyncio.run(scenario())
    hosted.close()

    assert flow.durable == [True] * 5 + [False] * 40 + [True] * 5
    assert flow.recorder.counters()["recovered"] == flow.recorder.flagged == 80
    assert_nothing_waited(flow)
    assert logged("inference not stored")[0]["code"] == "TimeoutError"
    assert kept(run) == undisturbed(tmp_path / "quiet", range(50))


def test_read_only_journal_stops_no_decision_and_all_is_stored_afterwards(
    tmp_path: Path, open_folder: Path, logged: Logged
) -> None:
    run = a_run(open_folder)
    hosted = Hosted(run)
    flow = Flow(hosted, a_spill(run, open_folder / "spill"))
    (open_folder / "spill").mkdir()
    (open_folder / "spill").chmod(0o777)

    async def scenario() -> None:
        await flow.decide(range(5))
        with read_only(run.path):
            hosted.restart()  # what was open for writing stays so
            await flow.decide(range(5, 45))
            await flow.until(spilled=80)
        await flow.until(pending=0)

    asyncio.run(scenario())
    hosted.close()

    assert flow.durable == [True] * 5 + [False] * 40
    assert flow.recorder.counters()["recovered"] == flow.recorder.flagged == 80
    assert_nothing_waited(flow)
    assert "make the file and its folder writable" in logged("inference not stored")[0]["reason"]
    assert kept(run) == undisturbed(tmp_path / "quiet", range(45))


def test_damaged_journal_stops_no_decision_and_is_made_anew_once_it_is_moved_away(
    tmp_path: Path, logged: Logged
) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    flow = Flow(hosted, a_spill(run, tmp_path))

    async def scenario() -> None:
        await flow.decide(range(30))
        await hosted.flush()
        hosted.restart()
        corrupt(run.journal_path)
        await flow.decide(range(30, 60))
        await flow.until(spilled=60)
        hosted.restart()
        run.journal_path.rename(run.path / "damaged.sqlite")
        await flow.until(pending=0)

    asyncio.run(scenario())
    hosted.close()

    assert flow.durable == [True] * 30 + [False] * 30
    assert_nothing_waited(flow)
    assert "it is damaged: restore a backup" in logged("inference not stored")[0]["reason"]
    assert kept(run) == undisturbed(tmp_path / "quiet", range(60))


def test_damaged_journal_is_told_and_takes_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)

    asyncio.run(Flow(hosted, a_spill(run, tmp_path)).decide(range(30)))
    hosted.restart()
    corrupt(run.journal_path)

    with pytest.raises(StoreError, match=r"journal\.sqlite: .* it is damaged"):
        asyncio.run(hosted.append(records_of(30, run)))
    hosted.close()


def test_disk_that_takes_three_seconds_holds_up_one_decision_for_its_bound_alone(
    tmp_path: Path, logged: Logged
) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    flow = Flow(hosted, a_spill(run, tmp_path))

    async def scenario() -> None:
        await flow.decide(range(3))
        with locked(run.journal_path):
            until = time.monotonic() + 3
            second = 3
            while time.monotonic() < until:  # the append that is under way takes so long
                await flow.decide([second], pause_s=0.1)
                second += 1
        await flow.until(pending=0)
        await flow.decide([second])
        assert second > 10

    asyncio.run(scenario())
    hosted.close()

    num = len(flow.durable)
    assert flow.durable == [True] * 3 + [False] * (num - 4) + [True]
    assert_nothing_waited(flow)
    assert kept(run) == undisturbed(tmp_path / "quiet", range(num))


def test_slow_disk_within_the_bound_holds_up_one_decision_and_not_the_next(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    flow = Flow(hosted, a_spill(run, tmp_path))
    patient = Recorder(hosted.append, timeout_s=5, max_pending=100, spill=a_spill(run, tmp_path))
    flow.recorder = patient

    async def scenario() -> None:
        await flow.decide(range(2))
        with locked(run.journal_path) as other:
            assert other.stdin is not None
            asyncio.get_running_loop().call_later(3, other.stdin.write, "\n")
            asyncio.get_running_loop().call_later(3, other.stdin.flush)
            await flow.decide([2])
        await flow.decide([3])
        await flow.until(pending=0)
        await flow.decide([4, 5])

    asyncio.run(scenario())
    hosted.close()

    assert flow.durable == [True, True, True, False, True, True]
    assert 2.5 < flow.waits_s[2] < 5
    assert max(flow.waits_s[3:]) < AT_ONCE_S
    assert kept(run) == undisturbed(tmp_path / "quiet", range(6))


def test_what_neither_store_nor_spill_nor_memory_can_hold_is_reported_by_its_ids(
    tmp_path: Path, logged: Logged
) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    flow = Flow(
        hosted, Spill(run.path / "spill.sqlite", run=run.id, max_bytes=mib(64)), max_pending=20
    )

    async def scenario() -> None:
        await flow.decide(range(5))
        with full_disk(kib=128):
            await flow.decide(range(5, 45))
        await flow.decide(range(45, 50))
        await flow.recorder.close(timeout_s=30)  # the alerts are stored too then

    asyncio.run(scenario())
    hosted.close()
    found, expected = kept(run), undisturbed(tmp_path / "quiet", range(50))

    lost = set(told_lost(logged))
    counters = flow.recorder.counters()
    assert counters["lost"] == len(logged("record lost")) == len(lost) / len(MODELS) > 0
    assert counters["recovered"] == counters["flagged"] - counters["lost"] > 0
    assert_nothing_waited(flow)
    assert found["inferences"] == [row for row in expected["inferences"] if row[0] not in lost]
    assert lost == {row[0] for row in expected["inferences"]} - {
        row[0] for row in found["inferences"]
    }
    assert without_instant(found["rows"]) == without_instant(expected["rows"])
    assert lost == set(noted_lost(run.journal_path))


def test_kills_while_records_wait_and_while_they_are_recovered_lose_and_double_none(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "home")
    moments = random.Random(20240808)
    with locked_after_start(run) as begun:
        said = said_until_killed(SPILLER, run.path, tmp_path, begun, 200, word="spilled")
    assert said[-1] == "spilled 394\n"

    for _ in range(6):
        after_s = moments.uniform(0, 0.06)
        said_until_killed(RECOVERER, run.path, tmp_path, word="recovering", after_s=after_s)
    hosted = Hosted(run)
    last = Flow(hosted, a_spill(run, tmp_path))
    asyncio.run(last.recorder.recover(timeout_s=60))
    asyncio.run(last.decide(range(200, 203)))
    hosted.close()

    assert last.durable == [True] * 3
    assert not list(tmp_path.glob("*.spill.sqlite*"))
    assert kept(run) == undisturbed(tmp_path / "quiet", range(203))


def test_kill_at_any_moment_of_an_outage_takes_only_the_newest_records(tmp_path: Path) -> None:
    moments = random.Random(20240809)
    run = a_run(tmp_path / "home")
    with locked_after_start(run) as begun:
        for _ in range(3):
            after_s = moments.uniform(0.3, 1.5)
            said_until_killed(
                SPILLER, run.path, tmp_path, begun, 10**6, word="recording", after_s=after_s
            )
    hosted = Hosted(run)
    last = Flow(hosted, a_spill(run, tmp_path))
    asyncio.run(last.recorder.recover(timeout_s=60))
    hosted.close()
    at = [list(COLUMNS["packages"]).index(name) for name in ("event_ns", "symbol")]
    found = {tuple(row[i] for i in at) for row in kept(run)["packages"]}

    made = [(instant(second), symbol) for second in range(len(found)) for symbol in SYMBOLS]
    assert len(found) > 2 * begun
    assert found == set(made[: len(found)])


def test_spill_of_a_run_that_ended_in_trouble_is_recovered_by_the_next(tmp_path: Path) -> None:
    run = a_run(tmp_path / "home")
    hosted = Hosted(run)
    first, second = (Flow(hosted, a_spill(run, tmp_path)) for _ in range(2))

    async def scenario() -> tuple[int, int]:
        await first.decide(range(3))
        with locked(run.journal_path):
            await first.decide(range(3, 6))
            left = await first.recorder.close(timeout_s=0.1)
        return left, await second.recorder.recover(timeout_s=60)

    left = asyncio.run(scenario())
    hosted.close()

    assert left == (6, 0)
    assert first.recorder.lost == 0
    assert second.recorder.counters() == {
        "flagged": 6, "pending": 0, "spilled": 0, "recovered": 6, "lost": 0,
    }  # fmt: skip
    assert kept(run) == undisturbed(tmp_path / "quiet", range(6))


@contextmanager
def locked_after_start(run: Run) -> Iterator[int]:
    """Store a few decisions, then lock the journal; yields how many there are."""
    hosted = Hosted(run)
    for second in range(3):
        asyncio.run(hosted.append(records_of(second, run)))
    hosted.close()
    with locked(run.journal_path):
        yield 3


def said_until_killed(
    script: str, run: Path, *given: object, word: str, after_s: float = 0.0
) -> list[str]:
    """Return what a process said until it was killed, `after_s` after it said `word`."""
    command = [sys.executable, "-c", script, str(run), *map(str, given)]
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not (said and word in said[-1]):
            said.append(process.stdout.readline())
            assert said[-1], "the process ended by itself"
        time.sleep(after_s)
        process.kill()
    return said


@contextmanager
def full_disk(*, kib: int) -> Iterator[None]:
    """Let this process write no file beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = kib * 1024
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def told_lost(logged: Logged) -> list[str]:
    """Return the ids of inferences the log reports lost."""
    return [id_ for line in logged("record lost") for id_ in line["ids"]]


def noted_lost(journal: Path) -> list[str]:
    """Return the ids of inferences the table `alerts` reports lost."""
    reader = JournalReader(journal)
    names = list(COLUMNS["alerts"])
    rows = [dict(zip(names, row, strict=True)) for row in reader.select("alerts")]
    reader.close()
    messages = [row["message"] for row in rows if row["code"] == "RecordLost"]
    return [id_ for m in messages for id_ in m.split(": inferences ")[1].split(", ")]


def without_instant(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return closed rows without the decision that carried them: a lost one hands them on."""
    at = list(COLUMNS["rows"]).index("event_ns")
    return [row[:at] + row[at + 1 :] for row in rows]
