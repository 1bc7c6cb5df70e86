"""Verification finds every input that is not what the models were fed, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from alphapulse.config import Settings
from alphapulse.storage.asking.conditions import Span
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.verifying import Verified, verify
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal import packing
from tests.unit.storage.asking.test_rebuild import NUM_POINTS, replayed

NUM_INPUTS = 2 * NUM_POINTS
NEWEST_SECONDS = "SELECT number FROM closed WHERE stream = '1s' AND symbol = 'ETH/USDT'"


@dataclass(frozen=True)
class Stored:
    """A run of real inputs, half of them in the lake too.

    Attributes:
        instants: of the decisions [ns UTC], oldest first.
    """

    home: Home
    run: Run
    instants: list[int]

    def verify(self, **where: object) -> Verified:
        return verify(HistoryReader(runs=self.home.runs_path, lake_uri=self.lake), where)

    @property
    def lake(self) -> str:
        return str(self.home.path / "lake")


@pytest.fixture(scope="module")
def kept(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    home, settings = Home(tmp_path_factory.mktemp("kept")), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)
    inputs = asyncio.run(replayed(recordings, history, run))
    history.close()
    return Stored(home, run, sorted({input.event_ns for input in inputs.values()}))


@pytest.fixture
def stored(kept: Stored, tmp_path: Path) -> Stored:
    """Return a copy of a run, to be damaged."""
    home = Home(Path(shutil.copytree(kept.home.path, tmp_path / "home")))
    return Stored(home, home.run(1), kept.instants)


def alter(stored: Stored, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(stored.run.journal_path, isolation_level=None)) as db:
        for sql, values in statements:
            assert db.execute(sql, values).rowcount == 1


def newest_seconds(stored: Stored) -> list[tuple[int, int, bytes]]:
    """Return number, first instant and cells of ETH's newest seconds, newest first."""
    sql = f"""SELECT number, event_ns, cells FROM closed
      WHERE number IN ({NEWEST_SECONDS}) ORDER BY ts_ns DESC"""
    with closing(sqlite3.connect(stored.run.journal_path)) as db:
        return db.execute(sql).fetchall()


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_whole_history_is_verified_in_journal_and_lake(stored: Stored) -> None:
    told: list[tuple[int, int]] = []
    reader = HistoryReader(runs=stored.home.runs_path, lake_uri=stored.lake)

    found = verify(reader, {}, tell=lambda done, total: told.append((done, total)))

    assert (found.checked, found.damaged, found.missing) == (NUM_INPUTS, [], [])
    assert found.is_whole
    assert told == [(NUM_INPUTS, 2 * NUM_INPUTS), (2 * NUM_INPUTS, 2 * NUM_INPUTS)]


def test_range_and_symbol_restrict_what_is_verified(stored: Stored) -> None:
    late = Span(stored.instants[2])

    assert stored.verify(event_ns=late).checked == NUM_INPUTS - 4
    assert stored.verify(event_ns=late, symbol="ETH/USDT").checked == NUM_INPUTS // 2 - 2
    assert stored.verify(run="another").checked == 0


def flipped_cell(stored: Stored, newest: list[tuple[int, int, bytes]]) -> int:
    number, first_ns, cells = newest[1]
    content = packing.packed(flip(packing.joined(cells), 5))
    alter(stored, ("UPDATE closed_rows SET cells = ? WHERE number = ?", (content, number)))
    return first_ns


def flipped_byte_of_the_file(stored: Stored, newest: list[tuple[int, int, bytes]]) -> int:
    number, first_ns, cells = newest[1]
    content = flip(cells, len(cells) // 2)
    alter(stored, ("UPDATE closed_rows SET cells = ? WHERE number = ?", (content, number)))
    return first_ns


def missing_row(stored: Stored, newest: list[tuple[int, int, bytes]]) -> int:
    number, first_ns, _ = newest[1]
    alter(stored, ("DELETE FROM closed_rows WHERE number = ?", (number,)))
    return first_ns


def swapped_rows(stored: Stored, newest: list[tuple[int, int, bytes]]) -> int:
    (number, _, cells), (other, first_ns, others) = newest[:2]
    change = "UPDATE closed_rows SET cells = ? WHERE number = ?"
    alter(stored, (change, (others, number)), (change, (cells, other)))
    return first_ns


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (flipped_cell, "expected hash"),
        (flipped_byte_of_the_file, ""),
        (missing_row, "stored rows, was"),
        (swapped_rows, "expected hash"),
    ],
)
def test_planted_damage_of_a_row_is_found_in_every_input_that_shows_it(
    stored: Stored, plant: Callable[[Stored, list[tuple[int, int, bytes]]], int], said: str
) -> None:
    newest = newest_seconds(stored)
    first_ns = plant(stored, newest)

    found = stored.verify()

    shows = [ns for ns in stored.instants if ns >= first_ns]
    assert 0 < len(shows) < NUM_POINTS
    in_journal = [fault for fault in found.damaged if fault.place == "journal"]
    assert sorted(fault.event_ns for fault in in_journal) == sorted([*shows, *shows])
    assert all(len(fault.ids) == 3 for fault in found.damaged)
    assert all(said in fault.reason for fault in in_journal)
    assert found.checked == NUM_INPUTS - 2 * len(shows)
    assert found.missing == []
    assert not found.is_whole


def test_input_under_another_hash_is_damaged(stored: Stored) -> None:
    change = "UPDATE decisions SET input_hash = ? WHERE event_ns = ? AND symbol = 'ETH/USDT'"
    alter(stored, (change, ("0" * 64, stored.instants[-1])))

    found = stored.verify()

    faults = {(fault.symbol, fault.event_ns) for fault in found.damaged}
    assert faults == {("ETH/USDT", stored.instants[-1])}
    assert "was " in found.damaged[0].reason


def test_inference_of_another_decision_is_damaged(stored: Stored) -> None:
    change = """UPDATE outputs SET id = ? WHERE number = (SELECT number FROM said
      WHERE model = 'moe' AND decision = (
        SELECT number FROM decisions WHERE event_ns = ? AND symbol = 'ETH/USDT'))"""
    alter(stored, (change, (b"\0" * 16, stored.instants[-1])))

    (fault, *_) = stored.verify().damaged

    assert "inference of moe: expected id" in fault.reason


@pytest.mark.parametrize(
    ("table", "lacking"), [("packages", "its input"), ("inferences", "an inference of it")]
)
def test_what_the_lake_lost_is_missing(stored: Stored, table: str, lacking: str) -> None:
    first_ns = stored.instants[0]
    DeltaTable(f"{stored.lake}/{table}").delete(f"event_ns = {first_ns} AND symbol = 'BTC/USDT'")

    found = stored.verify()

    (fault,) = found.missing
    assert (fault.place, fault.event_ns, fault.symbol) == ("lake", first_ns, "BTC/USDT")
    assert fault.reason == f"expected {lacking}, was none stored"
    assert len(fault.ids) == (3 if table == "packages" else 0)
    assert (found.checked, found.damaged) == (NUM_INPUTS - 1, [])


def test_flipped_byte_of_a_file_of_the_lake_is_found(stored: Stored) -> None:
    files = sorted(Path(stored.lake, "rows").rglob("*ETH*/**/*.parquet"))
    for file in files:
        content = file.read_bytes()
        file.write_bytes(flip(content, len(content) // 2))

    found = stored.verify()

    in_lake = {fault.event_ns for fault in found.damaged if fault.place == "lake"}
    assert in_lake
    assert not [fault for fault in found.damaged if fault.place == "journal"]
    assert found.checked < NUM_INPUTS
