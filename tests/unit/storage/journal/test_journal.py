"""The journal keeps records whole, once, and bit for bit, and says what to do where it cannot."""

from __future__ import annotations

import dataclasses
import resource
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import Prediction, inference_id
from alphapulse.storage.journal.arrays import array_of
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.tables import COLUMNS, NOTES, SCHEMA_VERSION
from tests.unit.storage.journal.old_journal import make_old_journal
from tests.unit.storage.records import RUN, SYMBOLS, instant, note, outcome, record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite", run=RUN, busy_timeout_s=0.05)
    yield journal
    journal.close()


def rows_of(journal: JournalReader, table: str) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS[table], row, strict=True)) for row in journal.select(table)]


def bits(value: Any) -> Any:
    """Return `value` with every number and array as its bytes, so that equal means equal bits."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return struct.pack("<d", value)
    if dataclasses.is_dataclass(value):
        return {f.name: bits(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return tuple(bits(item) for item in value)
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return value


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file of this process grow beyond what `path` and its log have now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_views_have_the_columns_of_the_tables(journal: Journal) -> None:
    journal.append([record(0)])

    with sqlite3.connect(journal.path) as db:
        shown = {
            table: [c[1] for c in db.execute(f"PRAGMA table_info({table})")] for table in COLUMNS
        }

    assert {table: names[2:] for table, names in shown.items()} == {
        table: list(columns) for table, columns in COLUMNS.items()
    }


@pytest.mark.parametrize("second", range(6))
def test_predictions_come_back_bit_for_bit_and_in_order(journal: Journal, second: int) -> None:
    given = record(second)

    journal.append([given])

    assert bits(journal.last_predictions(SYMBOLS[0])) == bits(given.decision.predictions)


def test_the_package_comes_back_bit_for_bit(journal: Journal) -> None:
    given = record(3)

    journal.append([given])

    (row,) = rows_of(journal, "packages")
    assert bits(package_of(row)) == bits(given.package)


def test_every_other_column_comes_back(journal: Journal) -> None:
    given = record(3)
    decision = given.decision

    journal.append([given])

    cnn = next(row for row in rows_of(journal, "inferences") if row["model"] == "cnn")
    expected = {
        "id": inference_id(run=RUN, symbol=SYMBOLS[0], event_ns=instant(3), model="cnn"),
        "run": RUN,
        "schema_version": SCHEMA_VERSION,
        "trace_id": given.trace_id,
        "reference": SYMBOLS[1],
        "received_ns": given.received_ns,
        "decided_at_ns": given.decided_at_ns,
        "window_version": 3,
        "input_hash": "f" * 64,
        "spec_version": 1,
        "config_hash": given.config_hash,
        "decision_action": "buy",
        "decision_confidence": decision.confidence,
        "decision_reason": "acts",
        "entry_threshold": 0.6,
        "exit_threshold": 0.5,
        "substitutions": '["1s: 37 of 300 seconds","a \\"quoted\\" word"]',
        "last_trade_id": 2**53 + 3,
        "last_book_id": 0,
        "timeframes": '["1s","1m"]',
        "completeness": '{"1s":0.0,"1m":0.0,"1h":0.0,"book":0.0}',
        "validation": '["masked_1s","masked_1m","masked_1h","masked_book"]',
    }
    assert {name: cnn[name] for name in expected} == expected
    assert bits(cnn["decision_utility_r"]) == bits(-0.0)
    assert {row["kind"] for row in rows_of(journal, "predictions")} == {"L"}


def test_closed_rows_are_kept_once_and_bit_for_bit(journal: Journal) -> None:
    first, second = record(0), record(1)
    again = dataclasses.replace(second, rows=(*first.rows, *second.rows))

    journal.append([first, again])

    kept = rows_of(journal, "rows")
    given = [*first.rows, *second.rows]
    assert [(r["symbol"], r["stream"], r["ts_ns"], r["flags"]) for r in kept] == [
        (r.symbol, r.stream, r.ts_ns, r.flags) for r in given
    ]
    assert bits(tuple(array_of(r["cells"], r["cells_layout"]) for r in kept)) == bits(
        tuple(r.values_C for r in given)
    )


def test_a_record_already_there_changes_nothing(journal: Journal) -> None:
    journal.append([record(0)])
    before = journal.counts()

    new = journal.append([record(0), record(1), record(1)])

    assert new == 1
    assert journal.counts()["decisions"] == before["decisions"] + 1
    assert journal.counts()["inferences"] == before["inferences"] + 3


def test_last_is_the_newest_in_event_time_by_symbol(journal: Journal) -> None:
    journal.append([record(7), record(2), record(9, symbol=SYMBOLS[1])])

    assert journal.last_decision(SYMBOLS[0]) == instant(7)
    assert {p.event_ns for p in journal.last_predictions(SYMBOLS[0])} == {instant(7)}
    assert journal.last_decision(SYMBOLS[1]) == instant(9)
    assert journal.last_decision("SOL/USDT") is None
    assert journal.last_predictions("SOL/USDT") == ()


def test_one_bad_record_leaves_nothing_of_its_call(journal: Journal) -> None:
    twice: tuple[Prediction, ...] = record(1).decision.predictions[:1] * 2
    bad = dataclasses.replace(
        record(1), decision=dataclasses.replace(record(1).decision, predictions=twice)
    )

    with pytest.raises(StoreError, match="let every model answer once"):
        journal.append([record(0), bad])

    assert journal.counts() | {"journal_bytes": 0} == dict.fromkeys(journal.counts(), 0)


def test_a_record_of_mixed_instants_or_of_another_run_is_refused(journal: Journal) -> None:
    mixed = dataclasses.replace(record(0), package=record(1).package)

    with pytest.raises(StoreError, match="build the record from one decision"):
        journal.append([mixed])
    with pytest.raises(StoreError, match=f"expected records of run {RUN}, was other"):
        journal.append([record(0, run="other")])


def test_a_full_disk_is_told_and_the_next_append_works_after_it_heals(journal: Journal) -> None:
    journal.append([record(0)])

    with full_disk(journal.path), pytest.raises(StoreError, match=r"append again|check the disk"):
        journal.append([record(second) for second in range(1, 200)])

    assert journal.append([record(second) for second in range(200)]) == 199
    assert journal.counts()["decisions"] == 200


def test_a_locked_journal_is_told_and_the_next_append_works_after_it_heals(
    journal: Journal,
) -> None:
    journal.append([record(0)])
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="another process holds the journal"):
        journal.append([record(1)])

    other.execute("ROLLBACK")
    other.close()
    assert journal.append([record(1)]) == 1


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    damaged = tmp_path / "journal.sqlite"
    damaged.write_bytes(b"not a database, but long enough to be read as one" * 100)

    with pytest.raises(StoreError, match=r"SQLITE_NOTADB.*restore a backup"):
        Journal(damaged, run=RUN).counts()
    with pytest.raises(StoreError, match="check that the folder exists"):
        Journal(tmp_path / "absent" / "journal.sqlite", run=RUN).counts()


def test_a_journal_of_another_schema_is_refused(journal: Journal) -> None:
    journal.remark("schema_version", "99")
    journal.close()

    with pytest.raises(StoreError, match="version 1 to 2 and layout 1 to 4, was 99"):
        journal.append([record(0)])


def test_a_reader_sees_what_is_written_and_cannot_write(journal: Journal) -> None:
    journal.append([record(0)])
    reader = JournalReader(journal.path)
    before = reader.counts()["decisions"]

    journal.append([record(1)])

    assert (before, reader.counts()["decisions"]) == (1, 2)
    reader.close()


def test_batches_are_ranges_that_follow_each_other(journal: Journal) -> None:
    assert journal.name_batch(max_decisions=10) is None
    journal.append([record(second) for second in range(5)])

    first = journal.name_batch(max_decisions=3)
    second = journal.name_batch(max_decisions=3)

    assert first is not None
    assert second is not None
    assert (first.number, first.span("packages")) == (1, (0, 3))
    assert (second.number, second.span("packages")) == (2, (3, 5))
    assert (first.span("rows"), second.span("rows")) == ((0, 10), (10, 10))
    assert journal.name_batch(max_decisions=3) is None
    assert journal.batches(after=1) == [second]
    assert (journal.reached(1, "packages"), journal.reached(1, "rows")) == (3, 10)


def test_every_series_of_a_batch_is_bounded_and_decisions_wait_for_their_rows(
    journal: Journal,
) -> None:
    journal.append([record(second) for second in range(5)])  # with two rows each
    journal.settle([outcome(second) for second in range(9)])
    for table in NOTES:
        journal.note(table, [note(table, second) for second in range(6)])

    named = []
    while batch := journal.name_batch(max_decisions=3, max_others=4):
        named.append(batch)

    tables = ("packages", "rows", "outcomes", *NOTES)
    taken = {table: [batch.span(table) for batch in named] for table in tables}
    assert taken["packages"] == [(0, 0), (0, 0), (0, 3), (3, 5)]
    assert taken["rows"] == [(0, 4), (4, 8), (8, 10), (10, 10)]
    assert taken["outcomes"] == [(0, 4), (4, 8), (8, 9), (9, 9)]
    assert [taken[table] for table in NOTES] == [[(0, 4), (4, 6), (6, 6), (6, 6)]] * len(NOTES)


def test_outcomes_are_kept_once_and_bit_for_bit(journal: Journal) -> None:
    given = [outcome(0), outcome(0, "1m"), dataclasses.replace(outcome(0), version=2)]

    new = [journal.settle(given[:2]), journal.settle(given), journal.settle(given)]

    assert new == [2, 1, 0]
    names = [field.name for field in dataclasses.fields(given[0])]
    kept = rows_of(journal, "outcomes")
    for row, whole in zip(kept, given, strict=True):
        expected = {name: getattr(whole, name) for name in names}
        expected |= {name: None for name, value in expected.items() if value != value}
        assert bits({name: row[name] for name in names}) == bits(expected)


def test_an_outcome_of_another_run_or_inference_leaves_nothing_of_its_call(
    journal: Journal,
) -> None:
    with pytest.raises(StoreError, match=f"expected outcomes of run {RUN}, was other"):
        journal.settle([outcome(0), outcome(0, run="other")])
    with pytest.raises(StoreError, match="settle what the history says of this run"):
        journal.settle([outcome(0), dataclasses.replace(outcome(1), event_ns=instant(2))])

    assert rows_of(journal, "outcomes") == []


@pytest.mark.parametrize("table", NOTES)
def test_notes_are_kept_once_and_bit_for_bit(journal: Journal, table: str) -> None:
    given = [note(table, second) for second in (0, 1)]

    new = [journal.note(table, given[:1]), journal.note(table, given), journal.note(table, given)]

    assert new == [1, 1, 0]
    rows = rows_of(journal, table)
    ours = {"run": RUN, "schema_version": SCHEMA_VERSION}
    assert [bits(row) for row in rows] == [
        bits({name: (one | ours)[name] for name in COLUMNS[table]}) for one in given
    ]


def test_a_note_that_lacks_a_column_leaves_nothing_of_its_call(journal: Journal) -> None:
    whole, less = note("orders", 0), note("orders", 1)
    del less["purpose"]

    with pytest.raises(StoreError, match="expected the columns order_id, inference_id, symbol"):
        journal.note("orders", [whole, less])

    assert rows_of(journal, "orders") == []


def test_predictions_of_an_older_instant_come_back(journal: Journal) -> None:
    journal.append([record(1), record(3), record(2, symbol=SYMBOLS[1])])

    found = journal.predictions_until(SYMBOLS[0], instant(2))

    assert bits(found) == bits(record(1).decision.predictions)
    assert journal.predictions_until(SYMBOLS[0], instant(0) - 1) == ()


def test_a_journal_from_before_outcomes_is_read_as_one_without_any(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    make_old_journal(path, [record(0), record(1)])

    reader = JournalReader(path)

    assert bits(reader.predictions_until(SYMBOLS[0], instant(1))) == bits(
        record(1).decision.predictions
    )
    assert reader.select("outcomes") == []
    assert reader.reached(1, "outcomes") == 0
    assert (reader.counts()["decisions"], reader.counts()["outcomes"]) == (2, 0)
    assert own_of(reader) == [(), ()]
    reader.close()


def own_of(reader: JournalReader) -> list[tuple[str, ...]]:
    rows = reader.select("packages")
    return [package_of(dict(zip(COLUMNS["packages"], row, strict=True))).own for row in rows]


def test_a_writer_adds_outcomes_to_a_journal_from_before_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    make_old_journal(path, [record(0), record(1)])
    reader = JournalReader(path)
    before = reader.select("outcomes")
    journal = Journal(path, run=RUN)

    new = journal.settle([outcome(0), outcome(1)])
    batch = journal.name_batch(max_decisions=10)

    assert (before, new, len(reader.select("outcomes"))) == ([], 2, 2)
    assert batch is not None
    assert [batch.span(table) for table in ("outcomes", "packages", "rows")] == [
        (0, 2),
        (1, 2),
        (2, 4),
    ]
    assert [b.span("outcomes") for b in reader.batches()] == [(0, 0), (0, 2)]
    assert reader.counts()["unbatched_rest"] == 0
    assert journal.append([record(2)]) == 1
    assert own_of(reader) == [(), (), ("midpoint20",)]
    for either in (reader, journal):
        either.close()
