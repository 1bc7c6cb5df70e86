"""The lake holds each batch of a journal once, whatever happened on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage
from alphapulse.storage.asking.packages import with_forming
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import arrow_schema, arrow_table
from alphapulse.storage.lake.delta import CHUNK, Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.tables import COLUMNS, NOTES
from tests.unit.storage.lake.lakes import assert_holds_all, contents
from tests.unit.storage.records import RUN, SYMBOLS, note, outcome, record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite", run=RUN)
    journal.append([record(second, symbol=symbol) for second in range(10) for symbol in SYMBOLS])
    journal.settle([outcome(second, symbol=symbol) for second in range(10) for symbol in SYMBOLS])
    for table in NOTES:
        journal.note(table, [note(table, second) for second in range(10)])
    yield journal
    journal.close()


def test_columns_are_strings_int64_float64_and_binary_only() -> None:
    kinds = {kind for table in COLUMNS for kind in arrow_schema(table).types}

    assert kinds == {pa.string(), pa.int64(), pa.float64(), pa.binary()}


def test_batches_arrive_bit_for_bit_and_once(tmp_path: Path, journal: Journal) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.name_batch(max_decisions=7)
    journal.name_batch(max_decisions=100)

    commits = lake.take(journal, writer=journal.name())

    assert commits == 4 * 2 + 1 + len(NOTES)  # the first batch holds all answers and notes
    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert_holds_all(lake, journal)


def test_a_batch_is_on_the_disk_with_its_commit(tmp_path: Path, journal: Journal) -> None:
    synced: list[Path] = []
    lake = Lake(str(tmp_path / "lake"), sync=synced.append)
    journal.name_batch(max_decisions=7)
    lake.take(journal, writer=journal.name())
    journal.name_batch(max_decisions=100)
    synced.clear()

    lake.take(journal, writer=journal.name())

    for table in ("inferences", "packages", "rows"):
        folder = tmp_path / "lake" / table
        newest = max((folder / "_delta_log").glob("*.json"))
        new = [line for line in newest.read_text().splitlines() if line.startswith('{"add"')]
        files = [folder / unquote(json.loads(line)["add"]["path"]) for line in new]
        assert files
        assert {newest, newest.parent, folder, *files, *(f.parent for f in files)} <= {*synced}


UNSAYABLE = (float("inf"), float("-inf"))  # deltalake's log has no word for them


@pytest.mark.parametrize("table", COLUMNS)
def test_others_who_ask_for_a_value_of_any_column_find_it(
    tmp_path: Path, journal: Journal, table: str
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.name_batch(max_decisions=100)
    lake.take(journal, writer=journal.name())
    stored = DeltaTable(f"{lake.uri}/{table}").to_pyarrow_dataset()

    for row in stored.to_table().to_pylist()[::7]:
        for name, value in row.items():
            if value is not None and value not in UNSAYABLE:
                assert stored.count_rows(filter=pc.field(name) == value) > 0, name


def test_a_lake_from_before_a_column_was_kept_takes_it_up(tmp_path: Path, journal: Journal) -> None:
    lake, uri = Lake(str(tmp_path / "lake")), tmp_path / "lake" / "packages"
    old = arrow_table("packages", journal.select("packages")).drop_columns("own")
    old = old.set_column(0, "run", pa.array(["an older run"] * len(old)))
    day = pa.array(["2024-08-06"] * len(old))
    write_deltalake(uri, old.append_column("day", day), partition_by=["symbol", "day"])
    assert {package.own for package in packages(lake, "an older run")} == {()}
    journal.name_batch(max_decisions=100)

    lake.take(journal, writer=journal.name())

    by_run = {run: packages(lake, run) for run in ("an older run", RUN)}
    assert [len(found) for found in by_run.values()] == [20, 20]
    assert {package.own for package in by_run["an older run"]} == {()}
    assert {package.own for package in by_run[RUN]} == {("midpoint20",)}


def packages(lake: Lake, run: str) -> list[InputPackage]:
    found = contents(lake, "packages")
    if run == RUN:
        rows = contents(lake, "rows")
        forming = rows.filter(pc.equal(rows["stream"], STREAM))
        found = with_forming(found, lambda _: forming)
    return [package_of(row) for row in found.to_pylist() if row["run"] == run]


def test_outcomes_that_come_alone_are_a_batch_of_one_table(
    tmp_path: Path, journal: Journal
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.name_batch(max_decisions=100)
    lake.take(journal, writer=journal.name())
    journal.settle([outcome(second, "1m") for second in range(10)])
    journal.name_batch(max_decisions=100)

    commits = lake.take(journal, writer=journal.name())

    assert commits == 1
    assert Lake(lake.uri).take(journal, writer=journal.name()) == 0
    assert contents(lake, "outcomes").num_rows == 30
    assert_holds_all(lake, journal)


def test_a_batch_larger_than_what_is_read_at_once_arrives_whole(
    tmp_path: Path, journal: Journal
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.settle([outcome(second) for second in range(10, 2 * CHUNK + 1)])
    journal.name_batch(max_decisions=100)

    lake.take(journal, writer=journal.name())

    assert contents(lake, "outcomes").num_rows == 10 + 2 * CHUNK + 1
    assert_holds_all(lake, journal)


def test_tables_are_partitioned_by_symbol_and_utc_day(tmp_path: Path, journal: Journal) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.name_batch(max_decisions=100)

    lake.take(journal, writer=journal.name())

    parts = DeltaTable(f"{lake.uri}/inferences").partitions()
    assert sorted((p["symbol"], p["day"]) for p in parts) == [
        (symbol, day) for symbol in sorted(SYMBOLS) for day in ("2024-08-06", "2024-08-07")
    ]


def test_a_batch_one_table_missed_is_made_up_for(tmp_path: Path, journal: Journal) -> None:
    lake = Lake(str(tmp_path / "lake"))
    blocked = tmp_path / "lake" / "packages"
    blocked.parent.mkdir()
    blocked.write_text("in the way")
    journal.name_batch(max_decisions=100)

    with pytest.raises(StoreError, match="the journal keeps every batch until then"):
        lake.take(journal, writer=journal.name())
    blocked.unlink()
    lake.take(journal, writer=journal.name())

    assert_holds_all(lake, journal)


def test_a_lake_that_was_lost_is_filled_again(tmp_path: Path, journal: Journal) -> None:
    lake = Lake(str(tmp_path / "lake"))
    journal.name_batch(max_decisions=100)
    lake.take(journal, writer=journal.name())
    shutil.rmtree(tmp_path / "lake")

    Lake(lake.uri).take(journal, writer=journal.name())

    assert_holds_all(Lake(lake.uri), journal)
