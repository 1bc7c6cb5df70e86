"""A home that an older version wrote is read, goes on, and keeps every bit of what it held.

`home_of_schema_1.tar.xz` was written by the version before schema 2 with the records by hand of
`tests.unit.storage.records`: six instants of two symbols, the first five in two batches.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from alphapulse.config import Storage
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.tables import COLUMNS, NOTES
from tests.unit.storage.records import SYMBOLS, note, outcome, record

KEPT = Path(__file__).parent / "home_of_schema_1.tar.xz"
TABLES = ("inferences", "predictions", "packages", "rows", "outcomes")
NUM = {"inferences": 36, "predictions": 48, "packages": 12, "rows": 24, "outcomes": 6}
NEW = {
    "inferences": ("timeframes", "completeness", "validation"),
    "packages": ("scale", "scale_layout"),
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    with tarfile.open(KEPT) as kept:
        kept.extractall(tmp_path, filter="data")
    return Home(tmp_path)


@pytest.fixture
def reader(home: Home) -> Iterator[HistoryReader]:
    reader = HistoryReader(runs=home.runs_path, lake_uri=str(home.path / "lake"))
    yield reader
    reader.close()


def rows_of(reader: HistoryReader, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reader.fetch(table, {})
    return found


def test_every_row_is_read_and_what_was_not_kept_is_null(reader: HistoryReader) -> None:
    found = {table: rows_of(reader, table) for table in COLUMNS}

    assert {table: len(rows) for table, rows in found.items()} == NUM | dict.fromkeys(NOTES, 0)
    for table, names in NEW.items():
        assert {row[name] for row in found[table] for name in names} == {None}
    assert {row["schema_version"] for table in TABLES for row in found[table]} == {1}


def test_it_goes_on_and_keeps_every_bit(home: Home, reader: HistoryReader) -> None:
    before = {table: rows_of(reader, table) for table in TABLES}
    run = home.run(1)
    history = InferenceHistory(home, run=run, settings=Storage())

    async def go_on() -> None:
        await history.append([record(6, symbol=symbol, run=run.id) for symbol in SYMBOLS])
        await history.settle([outcome(6, run=run.id)])
        await history.note("examples", [note("examples", 0, run=run.id)])
        await history.flush()

    asyncio.run(go_on())
    history.close()

    lake = Lake(str(home.path / "lake"))
    for table in TABLES:
        after = rows_of(reader, table)
        assert [row for row in after if row in before[table]] == before[table], table
        assert len(after) == NUM[table] * 7 // 6, table
        stored, _ = lake.read(table, writers=[])
        assert stored is not None
        own = None if table != "rows" else pc.field("stream") != STREAM  # not part of packages
        assert stored.count_rows(filter=own) == len(after), table
        if table == "rows":  # of the two instants that came after the last batch of then
            assert stored.count_rows(filter=pc.field("stream") == STREAM) == 4
    assert len(rows_of(reader, "examples")) == 1
    newest = [row for row in rows_of(reader, "inferences") if row not in before["inferences"]]
    assert {row["timeframes"] for row in newest} == {'["1s","1m"]'}


def test_its_batches_are_known_by_who_only_reads(home: Home) -> None:
    journal = JournalReader(home.run(1).journal_path)

    spans = [batch.span("packages") for batch in journal.batches()]

    assert spans == [(0, 6), (6, 10)]
    assert journal.reached(2, "outcomes") == 5
    journal.close()
