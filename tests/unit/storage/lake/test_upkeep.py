"""Upkeep joins files and clears what nothing names; no row changes, and nothing waits for it."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import ROW_GROUP, arrow_schema
from alphapulse.storage.lake.delta import NO_HOOKS, PARTITIONS, Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.lake.upkeep import CHECKPOINT_EVERY, MAX_SMALL_FILES, Upkeep
from alphapulse.storage.tables import COLUMNS
from tests.unit.storage.lake.lakes import assert_holds_all, contents, files_by_day, journal_of

ROOT = Path(__file__).parents[4]
KEEPER = """
import sys
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.upkeep import Upkeep
upkeep = Upkeep(Lake(sys.argv[1]), keep_replaced_h=0)
while upkeep.step(everything=True):
    pass
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = journal_of(tmp_path / "journal.sqlite", seconds=20, batches=5)
    yield journal
    journal.close()


def keep_up(upkeep: Upkeep, *, everything: bool = True) -> int:
    steps = 0
    while upkeep.step(everything=everything):
        steps += 1
        assert steps < 100, "upkeep finds no end"
    return steps


def versions(lake: Lake) -> list[int]:
    return [DeltaTable(f"{lake.uri}/{table}").version() for table in COLUMNS]


def test_joining_changes_no_row_and_forgets_no_batch(lake: Lake, journal: Journal) -> None:
    assert max(files_by_day(lake, "inferences").values()) > 1

    keep_up(Upkeep(Lake(lake.uri)))

    for table in COLUMNS:
        assert set(files_by_day(lake, table).values()) == {1}, table
    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert_holds_all(lake, journal)


def test_a_lake_in_order_is_left_alone(lake: Lake) -> None:
    keep_up(Upkeep(Lake(lake.uri)))
    before = versions(lake)

    steps = keep_up(Upkeep(Lake(lake.uri)))

    assert steps == 0
    assert versions(lake) == before


def test_an_empty_address_needs_no_upkeep(tmp_path: Path) -> None:
    assert not Upkeep(Lake(str(tmp_path / "lake"))).step()
    assert not (tmp_path / "lake").exists()


def rows_at(seconds: list[int], table: str) -> pa.Table:
    """Return rows of a table at instants of one day; what else they hold is zeros."""
    zeros = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.binary(): b""}
    columns = {
        field.name: pa.array([zeros[field.type]] * len(seconds), field.type)
        for field in arrow_schema(table)
    }
    columns["event_ns"] = pa.array([second * 10**9 for second in seconds], pa.int64())
    columns["symbol"] = pa.array(["ETH/USDT"] * len(seconds))
    return pa.table(columns)


def append(lake: Lake, table: str, rows: pa.Table, *, day: str) -> None:
    with_day = rows.append_column("day", pa.array([day] * len(rows)))
    how = {"partition_by": PARTITIONS, "post_commithook_properties": NO_HOOKS}
    write_deltalake(f"{lake.uri}/{table}", with_day, mode="append", **how)


def row_groups(lake: Lake, table: str) -> list[tuple[int, int]]:
    """Return the first and last instant of each row group of a table of one file, in order [s]."""
    with lake.opened(table) as delta:
        assert delta is not None
        (file,) = delta.file_uris()
    metadata = pq.read_metadata(file)
    column = [metadata.schema.column(i).name for i in range(metadata.num_columns)].index("event_ns")
    groups = [metadata.row_group(g).column(column) for g in range(metadata.num_row_groups)]
    spans = [(g.statistics.min // 10**9, g.statistics.max // 10**9) for g in groups]
    return sorted(spans)


def test_a_joined_day_of_answers_is_sorted(tmp_path: Path) -> None:
    """Answers come up to an hour after their decision, in any order."""
    lake, chance, num_rows = Lake(str(tmp_path)), random.Random(7), 3 * ROW_GROUP
    known = sorted(range(num_rows), key=lambda second: second + chance.uniform(0, 3600))
    append_in_batches(lake, "outcomes", known)

    keep_up(Upkeep(lake))

    spans = row_groups(lake, "outcomes")
    assert len(spans) == 3
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(spans))


def test_a_joined_day_of_decisions_keeps_neighbours_together(tmp_path: Path) -> None:
    """They come in order; which of some neighbouring batches is first in a file may differ."""
    lake, num_rows = Lake(str(tmp_path)), 3 * ROW_GROUP
    append_in_batches(lake, "predictions", list(range(num_rows)))

    keep_up(Upkeep(lake))

    spans = row_groups(lake, "predictions")
    assert len(spans) == 3
    mean = sum(last - first for first, last in spans) / len(spans)
    assert mean < 2 * ROW_GROUP  # rows in any order would span all three


def append_in_batches(lake: Lake, table: str, seconds: list[int]) -> None:
    size = len(seconds) // 12
    for first in range(0, len(seconds), size):
        rows = rows_at(seconds[first : first + size], table)
        append(lake, table, rows, day="1970-01-01")


def test_a_day_that_still_gets_rows_may_have_some_files(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for day, files in (("2024-08-05", 2), ("2024-08-06", 3), ("2024-08-07", MAX_SMALL_FILES + 1)):
        for second in range(files):
            append(lake, "alerts", rows_at([second], "alerts"), day=day)

    keep_up(Upkeep(lake), everything=False)

    files = {day: count for (_, day), count in files_by_day(lake, "alerts").items()}
    assert files == {"2024-08-05": 1, "2024-08-06": 3, "2024-08-07": 1}


def test_checkpoints_let_the_log_go_and_keep_every_batch_known(
    tmp_path: Path, journal: Journal
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.take(journal, writer=journal.name())
    reader = Lake(lake.uri)  # opened before, and behind from here on
    reader.read("alerts", writers=[])
    log, two_days_ago = tmp_path / "lake" / "alerts" / "_delta_log", time.time() - 2 * 86_400
    upkeep = Upkeep(Lake(lake.uri))

    for round_ in range(2):
        for number in range(CHECKPOINT_EVERY):  # a file a day: there is nothing to join
            day = date(2000 + round_, 1, 1) + timedelta(days=number)
            append(lake, "alerts", rows_at([number], "alerts"), day=day.isoformat())
        keep_up(upkeep, everything=False)
        if round_ == 0:
            for commit in log.glob("*.json"):
                os.utime(commit, (two_days_ago, two_days_ago))

    oldest = min(int(commit.stem) for commit in log.glob("*.json"))
    assert oldest >= CHECKPOINT_EVERY
    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert contents(reader, "alerts").num_rows == 20 + 2 * CHECKPOINT_EVERY


def test_replaced_files_stay_for_those_who_read_them(lake: Lake) -> None:
    stored, _ = lake.read("inferences", writers=[])
    assert stored is not None
    before = stored.to_table()

    keep_up(Upkeep(Lake(lake.uri)))
    assert stored.to_table().equals(before)
    keep_up(Upkeep(Lake(lake.uri), keep_replaced_h=0))

    with pytest.raises(OSError, match=r"\.parquet"):
        stored.to_table()


def test_what_a_killed_writer_left_goes_when_nobody_can_be_writing_it(lake: Lake) -> None:
    with lake.opened("rows") as delta:
        assert delta is not None
        whole = Path(delta.file_uris()[0])
    young, old = whole.with_name("part-young.parquet"), whole.with_name("part-old.parquet")
    for left in (young, old):
        shutil.copy(whole, left)
    os.utime(old, (time.time() - 7 * 3600,) * 2)

    keep_up(Upkeep(Lake(lake.uri)))

    assert young.exists()
    assert not old.exists()


def test_batches_arrive_while_files_are_joined(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal.sqlite", seconds=1, batches=1)
    lake, is_over, failures = Lake(str(tmp_path / "lake")), threading.Event(), []
    lake.take(journal, writer=journal.name())

    def join() -> None:
        upkeep = Upkeep(Lake(lake.uri))
        try:
            while not is_over.is_set():
                upkeep.step(everything=True)
        except OSError as error:
            failures.append(error)

    keeper = threading.Thread(target=join)
    keeper.start()
    more = journal_of(tmp_path / "more.sqlite", seconds=30, batches=30)
    lake.take(more, writer=more.name())
    is_over.set()
    keeper.join()

    assert failures == []
    closed = [row for row in contents(lake, "rows")["stream"].to_pylist() if row != STREAM]
    assert len(closed) == len(journal.select("rows")) + len(more.select("rows"))
    for one in (journal, more):
        assert lake.take(one, writer=one.name()) == 0
        one.close()


@pytest.mark.parametrize("what", ["symbol=*/day=*/*.parquet", "_delta_log/*.json"])
def test_a_kill_in_the_middle_of_a_join_loses_and_doubles_nothing(
    tmp_path: Path, lake: Lake, journal: Journal, what: str
) -> None:
    """It comes as soon as the joined file is seen, or the first commit of the join."""
    for table in ("inferences", "rows", "outcomes"):
        copy = Lake(str(tmp_path / f"killed at {table}"))
        shutil.copytree(lake.uri, copy.uri)

        kill_upkeep(copy, folder=Path(copy.uri) / table, what=what)

        assert_holds_all(copy, journal)
        assert copy.take(journal, writer=journal.name()) == 0
        keep_up(Upkeep(Lake(copy.uri)))
        assert set(files_by_day(copy, table).values()) == {1}
        assert_holds_all(copy, journal)


def kill_upkeep(lake: Lake, *, folder: Path, what: str) -> None:
    """Kill upkeep, in a process of its own, once a new file of that kind is in a table's folder."""
    before = set(folder.glob(what))
    command = [sys.executable, "-c", KEEPER, lake.uri]
    with subprocess.Popen(command, cwd=ROOT) as keeper:
        while set(folder.glob(what)) <= before:
            assert keeper.poll() is None, "upkeep ended by itself"
        keeper.kill()
