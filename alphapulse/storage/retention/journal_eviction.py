"""Remove decisions and rows from a journal that the lake has taken, in pieces an append waits for.

What the lake has not taken stays, and so does the newest row of every series: its number would be
given away again, and the lake would take the row of that number for one it has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

import pyarrow as pa

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal import packing
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.removing import output_ids, remove_decisions, unnamed
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.inventory import taken_numbers
from alphapulse.storage.retention.shown_rows import Spans, is_shown, spans_of, union
from alphapulse.storage.tables import LAKE_ONLY

PIECE = 100  # decisions a transaction: an append beside it waits for some milliseconds
ROWS = 2_000  # rows a transaction
SHARED = 500  # pieces that decisions shared, a transaction
PACKAGES = 5_000  # packages looked at together
PAGES = 128  # free pages given back a transaction
_NAMED = "(SELECT number FROM names WHERE name = ?)"
_REMEMBER = """
INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE
  SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))"""
BUSY_S = 30.0  # how long a piece waits for the writer of the journal


class JournalEviction:
    """Holds a journal open for removing, beside its writer if it has one.

    ```python
    with JournalEviction(journal, lake) as leaving:
        leaving.remove_decisions("ETH/USDT", times)
    ```
    """

    def __init__(self, journal: JournalReader, lake: Lake) -> None:
        """Begin with what `lake` has taken of `journal` by now."""
        self._path = journal.path
        self._taken = taken_numbers(lake, journal)
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        with self._failing():
            # its default, synchronous=FULL: what was removed stays so, also after a power failure
            self._db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):  # the next round gives back what this one does not
                self._shrink(self._db)
            self._db.close()
            self._db = None

    def remove_decisions(self, symbol: str, times: Sequence[int], *, lake_only: bool) -> int:
        """Remove decisions of a symbol with all that belongs to them; return how many there were.

        With `lake_only` the lake keeps them, and the journal remembers up to when it lacks some.
        Raises StoreError if the journal cannot be written; whole pieces may be gone by then.
        """
        gone = 0
        for begin in range(0, len(times), PIECE):
            piece = times[begin : begin + PIECE]
            with self._transaction() as db:
                gone += self._remove(db, symbol, piece)
                if lake_only:
                    db.execute(_REMEMBER, (LAKE_ONLY, max(piece)))
        return gone

    def _remove(self, db: sqlite3.Connection, symbol: str, times: Sequence[int]) -> int:
        at = f"symbol = ? AND event_ns IN ({', '.join(map(str, times))})"
        numbers = [
            number
            for (number,) in db.execute(
                f"SELECT number FROM decisions WHERE {at} AND number <= ? "
                "AND number < (SELECT max(number) FROM decisions) "
                "AND number NOT IN (SELECT decision FROM last)",
                (symbol, self._taken["decision"]),
            )
        ]
        ids = ", ".join(f"x'{id_.hex()}'" for id_ in output_ids(db, numbers))
        self._remove_taken(db, "settled", "outcome", f"inference_id IN ({ids})", ())
        of_examples = f"{at} AND inference_id IN ({ids})"
        self._remove_taken(db, "noted_examples", "examples", of_examples, (symbol,))
        remove_decisions(db, numbers)
        return len(numbers)

    def remaining(self, first_ns: int, last_ns: int) -> Spans:
        """Return what the journal's packages from an instant on show up to another one."""
        db, after = self._connection(), 0
        shown: Spans = {}
        while True:
            with self._failing():
                found = db.execute(
                    "SELECT number, streams FROM decided WHERE number > ? AND event_ns >= ? "
                    "ORDER BY number LIMIT ?",
                    (after, first_ns, PACKAGES),
                ).fetchall()
            if not found:
                return shown
            after = found[-1][0]
            streams = [packing.joined(pieces).decode() for _, pieces in found]
            shown = union(shown, spans_of(pa.table({"streams": streams}), until_ns=last_ns))

    def remove_rows(self, symbol: str, stream: str, times: Sequence[int]) -> None:
        """Remove rows of a stream by their instants.

        Raises StoreError if the journal cannot be written; whole pieces may be gone by then.
        """
        for begin in range(0, len(times), ROWS):
            at = f"ts_ns IN ({', '.join(map(str, times[begin : begin + ROWS]))})"
            with self._transaction() as db:
                where = f"symbol = {_NAMED} AND stream = {_NAMED} AND {at}"
                self._remove_taken(db, "closed_rows", "row", where, (symbol, stream))

    def unshown_rows(
        self, symbol: str, stream: str, *, span: tuple[int, int], shown: Spans
    ) -> list[int]:
        """Return the instants of the rows of a stream within a span that nothing shows."""
        with self._failing():
            found = self._connection().execute(
                "SELECT ts_ns FROM closed WHERE symbol = ? AND stream = ? "
                "AND ts_ns BETWEEN ? AND ?",
                (symbol, stream, *span),
            )
            times = pa.array([ts_ns for (ts_ns,) in found], pa.int64()).to_numpy()
        unshown: list[int] = times[~is_shown(times, shown.get((symbol, stream)))].tolist()
        return unshown

    def _remove_taken(
        self, db: sqlite3.Connection, table: str, series: str, where: str, values: tuple[str, ...]
    ) -> None:
        db.execute(
            f"DELETE FROM {table} WHERE {where} AND number <= ? "
            f"AND number < (SELECT max(number) FROM {table})",
            (*values, self._taken[series]),
        )

    def _shrink(self, db: sqlite3.Connection) -> None:
        """Give free pages back, some at a time; a journal of an older layout uses them again."""
        numbers = unnamed(db)  # takes its time in a large journal, which no append waits for
        for begin in range(0, len(numbers), SHARED):
            which = ", ".join(map(str, numbers[begin : begin + SHARED]))
            with self._transaction():
                db.execute(f"DELETE FROM pieces WHERE number IN ({which})")
        free = -1
        while (left := db.execute("PRAGMA freelist_count").fetchone()[0]) not in (0, free):
            free = left
            db.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"journal {self._path}: expected `with JournalEviction(...)`, was not")
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        with self._failing():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"journal {self._path}: {error}; free space on its disk, then prune again: "
                "what was begun is finished then"
            ) from error
