"""What leaves a journal leaves in pieces, so that an append beside it never waits for long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.journal_eviction import SHARED, JournalEviction
from tests.unit.storage.journal.test_sharing import assert_same, count, moved, packages
from tests.unit.storage.records import RUN, SYMBOLS, instant

NUM = 1_200  # decisions, each with two pieces of its own: more than a transaction removes


class Traced(JournalEviction):
    """Keeps how many pieces were there after each transaction."""

    def __init__(self, journal: Journal, lake: Lake) -> None:
        super().__init__(journal, lake)
        self.left: list[int] = []

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with super()._transaction() as db:
            yield db
        self.left.append(db.execute("SELECT count(*) FROM pieces").fetchone()[0])


def test_shared_pieces_leave_some_at_a_time_and_only_those_nobody_needs(tmp_path: Path) -> None:
    journal, lake = Journal(tmp_path / "journal.sqlite", run=RUN), Lake(str(tmp_path / "lake"))
    given = [moved(second) for second in range(NUM)]
    journal.append(given)
    while journal.name_batch(max_decisions=NUM):
        lake.take(journal, writer=journal.name())
    times = [instant(second) for second in range(NUM)]

    with Traced(journal, lake) as leaving:
        leaving.remove_decisions(SYMBOLS[0], times[:-50], lake_only=True)
        before = count(journal.path, "pieces")

    removed = [one - other for one, other in pairwise(leaving.left)]
    assert max(removed) == SHARED
    assert count(journal.path, "pieces") < before / 10
    for one, other in zip(packages(journal), given[-50:], strict=True):
        assert_same(one, other.package)
    with closing(sqlite3.connect(journal.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    journal.close()
