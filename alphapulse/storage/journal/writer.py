"""One run's journal: a SQLite file with one writer and any number of readers.

A decision is one transaction, or part of one: it is there whole or not at all, and what `append`
returned survives a kill -9 (write-ahead log, synchronous=NORMAL); so it is with outcomes.
Decisions, rows and outcomes are numbered upwards and never leave, so that a batch for the lake is
a range of numbers of each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.domain.learning import Outcome
from alphapulse.storage.journal.encoding import EncodedRecord, encode, encode_note, encode_outcome
from alphapulse.storage.journal.layout import make
from alphapulse.storage.journal.reader import (
    Batch,
    JournalReader,
    closing_on_error,
    newest_number,
    num_outputs,
)
from alphapulse.storage.journal.schema import (
    DECISION,
    FORECAST,
    INTO_LAST_SQL,
    NUM_VALUES,
    OUTPUT,
    PIECES,
    PLACES,
    ROW,
)
from alphapulse.storage.journal.sharing import Sharing
from alphapulse.storage.tables import BATCHED, NUMBERED

Write = Callable[[sqlite3.Connection], int]  # part of a transaction; returns how much was new


def _insert_sql(table: str, names: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES (?{', ?' * (len(names) - 1)})"


_NUMBERS = ("alike", "shown", *(name for at in PIECES.values() for name in at))
_ADD_BATCHED = (
    "INSERT INTO meta VALUES (?, ?) "
    "ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + excluded.value"
)
_IS_THERE = "SELECT 1 FROM decisions WHERE event_ns = ? AND symbol = ?"
_INTO_DECISIONS = _insert_sql("decisions", (*DECISION, *_NUMBERS))
_INTO_OUTPUTS = _insert_sql("outputs", ("number", *OUTPUT, "made"))
_INTO_FORECASTS = _insert_sql("forecasts", ("number", *FORECAST))
_INTO_ROWS = f"{_insert_sql('closed_rows', ROW)} ON CONFLICT DO NOTHING"
MAX_OTHERS = 50_000  # rows, outcomes or notes a batch: some 130 MB of memory while it is written
CHECKPOINT_PAGES = 2048  # 8 MiB, some 10 ms on the disk: most pages change often before that


class Journal(JournalReader):
    """The one writer of a run's journal; made where there is none yet.

    Attributes:
        path: the SQLite file; its folder must exist.
        run: id of the run every record must carry.
    """

    def __init__(
        self,
        path: Path,
        *,
        run: str,
        busy_timeout_s: float = 5.0,
        lake_only: Callable[[], int] = lambda: -1,
    ) -> None:
        """Write the file at `path`, opened by the first call.

        Where a new one is made, `lake_only` says up to when the lake holds the run already, from a
        journal that was lost [ns UTC]; -1 for nothing.
        """
        super().__init__(path)
        self.run = run
        self._lake_only = lake_only
        self._busy_timeout_s = busy_timeout_s
        self._sharing = Sharing()

    def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make `records` durable in one transaction and return how many were new.

        Raises StoreError if nothing of them was stored.
        """
        return self.write([self.appending(records)])[0]

    def write(self, works: Sequence[Write]) -> list[int]:
        """Do all of `works` in one transaction and return what each of them returns.

        Raises StoreError if nothing of them was stored.
        """
        with self._transaction() as db:
            return [work(db) for work in works]

    def appending(self, records: Sequence[DecisionRecord]) -> Write:
        """Return the work of an append; raises StoreError if it cannot be done."""
        self._require_own(records)
        encoded = [encode(record) for record in records]
        return lambda db: sum(_insert(db, record, self._sharing) for record in encoded)

    def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make `outcomes` durable in one transaction and return how many were new.

        Raises StoreError if nothing of them was stored.
        """
        return self.write([self.settling(outcomes)])[0]

    def settling(self, outcomes: Sequence[Outcome]) -> Write:
        """Return the work of a settle; raises StoreError if it cannot be done."""
        self._require_own(outcomes)
        return _inserting("settled", [encode_outcome(outcome) for outcome in outcomes])

    def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make rows of one of the `NOTES` durable in one transaction and return how many were new.

        Raises StoreError if nothing of them was stored.
        """
        return self.write([self.noting(table, rows)])[0]

    def noting(self, table: str, rows: Sequence[Mapping[str, Any]]) -> Write:
        """Return the work of a note; raises StoreError if it cannot be done."""
        return _inserting(f"noted_{table}", [encode_note(table, row) for row in rows])

    def name_batch(self, *, max_decisions: int, max_others: int = MAX_OTHERS) -> Batch | None:
        """Name what is in no batch as the next one, oldest first; None if all is in one.

        `max_others` bounds every other series. Decisions wait until all closed rows are in a batch,
        so that the lake has the rows of a decision no later than the decision.

        The name survives a power failure: the lake never knows a batch the journal has forgotten.
        """
        with self._transaction(synchronous="FULL") as db:
            batch = _next_batch(db, max_decisions, max_others)
            if batch.is_empty:
                return None
            db.executemany(
                "INSERT INTO edges VALUES (?, ?, ?)",
                ((batch.number, series, newest) for series, newest in batch.to.items()),
            )
            after, to = batch.span("inferences")
            db.execute(INTO_LAST_SQL, (after, to))
            db.execute(_ADD_BATCHED, (BATCHED, str(num_outputs(db, after=after, to=to))))
        return batch

    def remark(self, key: str, value: str) -> None:
        """Keep a remark about the whole journal, durably; it replaces the one of the same key."""
        with self._transaction(synchronous="FULL") as db:
            db.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def _require_own(self, given: Sequence[DecisionRecord] | Sequence[Outcome]) -> None:
        for one in given:
            if one.run != self.run:
                what = "outcomes" if isinstance(one, Outcome) else "records"
                raise StoreError(
                    f"journal {self.path}: expected {what} of run {self.run}, was {one.run}"
                )

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            make(self.path, run=self.run, lake_only_ns=self._lake_only())
        # A reader has the index of the log open first. Without it SQLite 3.40 removes a log it did
        # not read, rows and all, if it can neither cut the index nor open it again to write.
        with closing(super()._open()):
            db = sqlite3.connect(
                self.path,
                timeout=self._busy_timeout_s,
                check_same_thread=False,
                isolation_level=None,
            )
            with closing_on_error(db):
                db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
                db.execute("SELECT count(*) FROM meta").fetchone()  # opens the index itself
        return db

    @contextmanager
    def _transaction(self, *, synchronous: str = "NORMAL") -> Iterator[sqlite3.Connection]:
        with self._database() as db:
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                self._sharing.forget()
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise


def _next_batch(db: sqlite3.Connection, max_decisions: int, max_others: int) -> Batch:
    edges = dict(db.execute("SELECT series, max(reached) FROM edges GROUP BY series"))
    number = db.execute("SELECT coalesce(max(batch), 0) FROM edges").fetchone()[0]
    after = dict.fromkeys(NUMBERED, 0) | edges
    newest = {series: newest_number(db, series) for series in NUMBERED}
    to = {series: min(reached, after[series] + max_others) for series, reached in newest.items()}
    has_all_rows = to["row"] == newest["row"]
    most = after["decision"] + (max_decisions if has_all_rows else 0)
    to["decision"] = min(newest["decision"], most)
    return Batch(number + 1, after, to)


def _inserting(table: str, rows: Sequence[Sequence[Any]]) -> Write:
    into = f"{_into(table)} ON CONFLICT DO NOTHING"
    return lambda db: sum(db.execute(into, (None, *row)).rowcount for row in rows)


def _insert(db: sqlite3.Connection, record: EncodedRecord, sharing: Sharing) -> int:
    named = [(sharing.name(db, a), sharing.name(db, b), *row) for a, b, *row in record.rows]
    db.executemany(_INTO_ROWS, named)
    if db.execute(_IS_THERE, (record.event_ns, record.symbol)).fetchone():
        return 0
    number = db.execute(
        _INTO_DECISIONS,
        (
            *record.decision,
            *(sharing.row(db, "alike", record.alike), sharing.row(db, "shown", record.shown)),
            *(sharing.piece(db, kind, piece, width=w) for kind, piece, w in record.pieces),
        ),
    ).lastrowid
    assert number is not None
    first = {table: number * num for table, num in PLACES.items()}
    made = [sharing.row(db, "made", values) for values in record.made]
    outputs = enumerate(zip(record.outputs, made, strict=True), first["outputs"])
    db.executemany(_INTO_OUTPUTS, [(n, *output, m) for n, (output, m) in outputs])
    forecasts = enumerate(record.forecasts, first["forecasts"])
    db.executemany(_INTO_FORECASTS, [(n, *forecast) for n, forecast in forecasts])
    return 1


def _into(table: str) -> str:
    return f"INSERT INTO {table} VALUES (?{', ?' * NUM_VALUES[table]})"
