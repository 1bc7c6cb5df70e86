"""A journal that an older layout kept is read and goes on: no row of it changes.

`journal_of_layout_3.sqlite.xz` was written by the version that kept it, with the records by hand
of `tests.unit.storage.journal.test_sharing`: six instants of two symbols, four in two batches.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path

import pytest

from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.tables import COLUMNS, NOTES
from tests.unit.storage.journal.test_sharing import moved
from tests.unit.storage.lake.lakes import assert_holds_all
from tests.unit.storage.records import RUN, SYMBOLS, note, outcome

KEPT = Path(__file__).parent / "journal_of_layout_3.sqlite.xz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(lzma.decompress(KEPT.read_bytes()))
    return path


def filled(path: Path, seconds: Sequence[int]) -> Journal:
    """Return a journal to which these seconds were handed."""
    journal = Journal(path, run=RUN)
    for second in seconds:
        journal.append([moved(second, symbol=symbol) for symbol in SYMBOLS])
        journal.settle([outcome(second, symbol=symbol) for symbol in SYMBOLS])
        for table in NOTES:
            journal.note(table, [note(table, second)])
    return journal


def test_every_row_is_what_a_journal_of_today_would_hold(old: Path, tmp_path: Path) -> None:
    today = filled(tmp_path / "today.sqlite", range(6))
    reader = JournalReader(old)

    for table in COLUMNS:
        found, expected = (arrow_table(table, j.select(table)) for j in (reader, today))
        assert found.equals(expected), table
    counts = today.counts() | {"journal_bytes": 0, "unbatched": 12, "unbatched_rest": 12}
    assert reader.counts() | {"journal_bytes": 0} == counts
    assert repr(reader.last_predictions()) == repr(today.last_predictions())
    assert [batch.span("packages") for batch in reader.batches()] == [(0, 4), (4, 8)]
    for journal in (reader, today):
        journal.close()


def test_it_goes_on(old: Path, tmp_path: Path) -> None:
    journal = filled(old, range(4, 9))  # what is there changes nothing

    assert journal.counts()["decisions"] == 18
    while journal.name_batch(max_decisions=100):
        pass
    assert journal.counts()["inferences"] == 54
    lake = Lake(str(tmp_path / "lake"))
    lake.take(journal, writer=journal.name())
    assert_holds_all(lake, journal)
    journal.close()
