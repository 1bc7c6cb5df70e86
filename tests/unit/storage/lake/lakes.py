"""Journals to move and lakes to look into, for the tests of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alphapulse.storage.asking.packages import with_forming
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.tables import COLUMNS, KEYS, NOTES
from tests.unit.storage.records import RUN, SYMBOLS, note, outcome, record


def journal_of(path: Path, *, seconds: int, batches: int) -> Journal:
    """Return a journal of `seconds` decisions of both symbols in `batches` named batches."""
    journal = Journal(path, run=RUN)
    for batch in range(batches):
        span = range(batch * seconds // batches, (batch + 1) * seconds // batches)
        journal.append([record(second, symbol=symbol) for second in span for symbol in SYMBOLS])
        journal.settle([outcome(second, symbol=symbol) for second in span for symbol in SYMBOLS])
        for table in NOTES:
            journal.note(table, [note(table, second) for second in span])
        journal.name_batch(max_decisions=10_000)
    return journal


def contents(lake: Lake, table: str) -> pa.Table:
    """Return every row of a table, in the order of its key."""
    stored, _ = lake.read(table, writers=[])
    assert stored is not None
    keys = [(key, "ascending") for key in KEYS[table]]
    return stored.to_table(columns=list(COLUMNS[table])).sort_by(keys)


def assert_holds_all(lake: Lake, journal: Journal) -> None:
    """Assert that each table has the journal's rows: bit for bit, each once, nothing else.

    What packages show of the forming rows is in `rows`, once an instant and symbol.
    """
    given = {
        table: arrow_table(table, rows) for table in COLUMNS if (rows := journal.select(table))
    }
    found = {table: contents(lake, table) for table in given}
    assert [t for t in COLUMNS if lake.read(t, writers=[])[0] is not None] == list(given)
    is_forming = pc.equal(found["rows"]["stream"], STREAM)
    forming = found["rows"].filter(is_forming)
    found["rows"] = found["rows"].filter(pc.invert(is_forming))
    found["packages"] = with_forming(found["packages"], lambda _: forming)
    for table, rows in given.items():
        keys = [(key, "ascending") for key in KEYS[table]]
        assert found[table].equals(rows.sort_by(keys)), table
    once = forming.group_by(["symbol", "ts_ns"]).aggregate([]).num_rows
    shown = {(p["event_ns"], s) for p in found["packages"].to_pylist() for s in symbols_of(p)}
    assert forming.num_rows == once == len(shown)


def symbols_of(package: Mapping[str, Any]) -> set[str]:
    """Return the symbols whose forming rows a package shows."""
    return {ref[0] for ref in json.loads(package["streams"]) if ref[7]}


def files_by_day(lake: Lake, table: str) -> Mapping[tuple[str, str], int]:
    """Return how many files each symbol and day of a table has."""
    with lake.opened(table) as delta:
        assert delta is not None
        parts = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    days = [(part["partition.symbol"], part["partition.day"]) for part in parts]
    return {day: days.count(day) for day in sorted(set(days))}
