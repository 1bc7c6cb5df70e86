"""What decisions share is kept once, and every one of them still reads as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, InputPackage
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.removing import sweep, unnamed
from alphapulse.storage.journal.sharing import NUM_ON_ANCHOR
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.tables import COLUMNS
from tests.unit.storage.records import RUN, SYMBOLS, record


def moved(second: int, *, symbol: str = SYMBOLS[0]) -> DecisionRecord:
    """Return a record whose forming rows no other second has."""
    made = record(second, symbol=symbol)
    streams = tuple(
        s if s.forming_C is None else replace(s, forming_C=s.forming_C + second)
        for s in made.package.streams
    )
    return replace(made, package=replace(made.package, streams=streams))


def packages(journal: Journal) -> list[InputPackage]:
    names = COLUMNS["packages"]
    return [package_of(dict(zip(names, row, strict=True))) for row in journal.select("packages")]


def assert_same(found: InputPackage, given: InputPackage) -> None:
    assert repr(found.streams) == repr(given.streams)
    for one, other in zip(found.streams, given.streams, strict=True):
        if other.forming_C is not None:
            assert one.forming_C is not None
            assert one.forming_C.tobytes() == other.forming_C.tobytes()
    assert found.substitutions == given.substitutions
    assert found.scale_S2.tobytes() == given.scale_S2.tobytes()


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite", run=RUN)


def test_pieces_that_lean_on_another_read_as_they_were(journal: Journal) -> None:
    given = [moved(second) for second in range(3 * NUM_ON_ANCHOR)]
    for one in given:
        journal.append([one])

    found = packages(journal)

    for one, other in zip(found, given, strict=True):
        assert_same(one, other.package)


def test_what_stays_alike_is_kept_once(journal: Journal) -> None:
    journal.append([moved(second) for second in range(20)])

    assert count(journal.path, "alike") == 1
    assert count(journal.path, "made") == 3


@pytest.mark.parametrize("num_before", [0, 1])
def test_a_transaction_that_failed_leaves_nothing_to_lean_on(
    journal: Journal, num_before: int
) -> None:
    def fail(db: sqlite3.Connection) -> int:
        raise KeyError("the caller's")

    before = [moved(0)][:num_before]
    after = [moved(second) for second in (2, 1, 3)]
    journal.append(before)
    with pytest.raises(KeyError):
        journal.write([journal.appending([moved(1), moved(2)]), fail])
    journal.append(after)

    given = before + after
    for one, other in zip(packages(journal), given, strict=True):
        assert_same(one, other.package)


def test_a_writer_that_starts_anew_goes_on_without_what_was_known(journal: Journal) -> None:
    given = [moved(second) for second in range(6)]
    journal.append(given[:3])
    journal.close()
    again = Journal(journal.path, run=RUN)
    again.append(given[3:])

    for one, other in zip(packages(again), given, strict=True):
        assert_same(one, other.package)


def test_a_piece_whose_anchor_is_gone_is_refused(journal: Journal) -> None:
    journal.append([moved(0), moved(1)])
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("DELETE FROM pieces WHERE number IN (SELECT anchor FROM pieces)")

    with pytest.raises(StoreError, match="damaged"):
        packages(journal)


def test_a_decision_that_is_there_adds_no_piece(journal: Journal) -> None:
    journal.append([moved(0), moved(1)])
    num_before = count(journal.path, "pieces")

    assert journal.append([moved(0)]) == 0
    assert count(journal.path, "pieces") == num_before


def test_a_sweep_keeps_what_is_leant_on_and_the_writer_goes_on(journal: Journal) -> None:
    given = [moved(second) for second in range(2 * NUM_ON_ANCHOR)]
    journal.append(given)
    num_before = count(journal.path, "pieces")
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("DELETE FROM decisions WHERE number < ?", (len(given),))
        sweep(db)
    journal.append([moved(99)])

    assert count(journal.path, "pieces") < num_before / 4
    for one, other in zip(packages(journal), [given[-1], moved(99)], strict=True):
        assert_same(one, other.package)


def test_what_a_sweep_would_remove_is_found_beside_a_writer(journal: Journal) -> None:
    journal.append([moved(second) for second in range(2 * NUM_ON_ANCHOR)])
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("DELETE FROM decisions WHERE number < ?", (NUM_ON_ANCHOR + 4,))
    with (
        closing(sqlite3.connect(journal.path)) as writer,
        closing(sqlite3.connect(journal.path, timeout=0.0)) as reader,
    ):
        writer.execute("BEGIN IMMEDIATE")
        found = unnamed(reader)
        writer.execute("ROLLBACK")

    with closing(sqlite3.connect(journal.path)) as db, db:
        before = {number for (number,) in db.execute("SELECT number FROM pieces")}
        sweep(db)
        after = {number for (number,) in db.execute("SELECT number FROM pieces")}
    assert set(found) == before - after != set()


def test_what_is_found_unnamed_is_named_by_nothing_later(journal: Journal) -> None:
    journal.append([moved(second) for second in range(3 * NUM_ON_ANCHOR)])
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("DELETE FROM decisions WHERE number < ?", (3 * NUM_ON_ANCHOR,))
        found = unnamed(db)
    later = [moved(100 + second) for second in range(2 * NUM_ON_ANCHOR)]
    journal.append(later)
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute(f"DELETE FROM pieces WHERE number IN ({', '.join(map(str, found))})")

    for one, other in zip(packages(journal)[1:], later, strict=True):
        assert_same(one, other.package)
