"""One run's journal: a SQLite file with one writer and any number of readers.

A decision is one transaction, or part of one: it is there whole or not at all, and what `append`
returned survives a kill -9 (write-ahead log, synchronous=NORMAL); so it is with outcomes.
Decisions, rows and outcomes are numbered upwards and never leave, so that a batch for the lake is
a range of numbers of each.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.domain.learning import Outcome
from alphapulse.storage.encoding import EncodedRecord, encode, encode_outcome
from alphapulse.storage.journal_reader import (
    Batch,
    JournalReader,
    check_schema,
    has_outcomes,
    has_own,
)
from alphapulse.storage.tables import JOURNAL_SQL, NUM_VALUES, OUTCOMES_SQL, OWN_SQL, SCHEMA_VERSION

PAGE_SIZE = 8192  # bytes: four decisions a page, where 4096 hold one or two


class Journal(JournalReader):
    """The one writer of a run's journal; made where there is none yet.

    Attributes:
        path: the SQLite file; its folder must exist.
        run: id of the run every record must carry.
    """

    def __init__(self, path: Path, *, run: str, busy_timeout_s: float = 5.0) -> None:
        super().__init__(path)
        self.run = run
        self._busy_timeout_s = busy_timeout_s

    def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make `records` durable in one transaction and return how many were new.

        Raises StoreError if nothing of them was stored.
        """
        self._require_own(records)
        encoded = [encode(record) for record in records]
        with self._transaction() as db:
            return sum(_insert(db, record) for record in encoded)

    def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make `outcomes` durable in one transaction and return how many were new.

        Raises StoreError if nothing of them was stored.
        """
        self._require_own(outcomes)
        encoded = [encode_outcome(outcome) for outcome in outcomes]
        with self._transaction() as db:
            return sum(
                db.execute(f"{_into('settled')} ON CONFLICT DO NOTHING", (None, *row)).rowcount
                for row in encoded
            )

    def name_batch(self, *, max_decisions: int) -> Batch | None:
        """Name what is in no batch as the next one, oldest decisions first; None if all is in one.

        The name survives a power failure: the lake never knows a batch the journal has forgotten.
        """
        with self._transaction(synchronous="FULL") as db:
            batch = _next_batch(db, max_decisions)
            if batch.is_empty:
                return None
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?)",
                (batch.number, batch.to_decision, batch.to_row),
            )
            db.execute(
                "INSERT INTO outcome_batches VALUES (?, ?)", (batch.number, batch.to_outcome)
            )
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
        db = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, check_same_thread=False, isolation_level=None
        )
        try:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            db.execute("PRAGMA journal_mode = WAL")
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._create(db)
            check_schema(db, self.path)
            if not has_own(db):
                db.executescript(f"BEGIN IMMEDIATE;{OWN_SQL}COMMIT;")
            if not has_outcomes(db):
                db.executescript(f"BEGIN IMMEDIATE;{OUTCOMES_SQL}COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _create(self, db: sqlite3.Connection) -> None:
        remarks = {
            "schema_version": str(SCHEMA_VERSION),
            "run": self.run,
            "journal": secrets.token_hex(4),
        }
        inserts = "".join(
            f"INSERT INTO meta VALUES ('{key}', '{value}');" for key, value in remarks.items()
        )
        db.executescript(f"BEGIN IMMEDIATE;{JOURNAL_SQL}{OUTCOMES_SQL}{inserts}COMMIT;")

    @contextmanager
    def _transaction(self, *, synchronous: str = "NORMAL") -> Iterator[sqlite3.Connection]:
        with self._database() as db:
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise


def _next_batch(db: sqlite3.Connection, max_decisions: int) -> Batch:
    newest = db.execute(
        "SELECT number, to_decision, to_row FROM batches ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, decision, row = newest or (0, 0, 0)
    count = "SELECT coalesce(max({}), 0) FROM {}"
    outcome = db.execute(count.format("to_outcome", "outcome_batches")).fetchone()[0]
    to_decision, to_row, to_outcome = (
        db.execute(count.format("number", table)).fetchone()[0]
        for table in ("decisions", "closed_rows", "settled")
    )
    to_decision = min(to_decision, decision + max_decisions)
    return Batch(number + 1, decision, to_decision, row, to_row, outcome, to_outcome)


def _insert(db: sqlite3.Connection, record: EncodedRecord) -> int:
    db.executemany(
        f"{_into('closed_rows')} ON CONFLICT DO NOTHING", ((None, *row) for row in record.rows)
    )
    cursor = db.execute(
        f"{_into('decisions')} ON CONFLICT (event_ns, symbol) DO NOTHING", (None, *record.decision)
    )
    if not cursor.rowcount:
        return 0
    number = cursor.lastrowid
    db.executemany(_into("outputs"), ((number, *output) for output in record.outputs))
    db.executemany(_into("forecasts"), ((number, *forecast) for forecast in record.forecasts))
    db.executemany(
        "INSERT INTO last VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "event_ns = excluded.event_ns, decision = excluded.decision "
        "WHERE excluded.event_ns > last.event_ns",
        ((record.symbol, model, record.event_ns, number) for model in record.models),
    )
    return 1


def _into(table: str) -> str:
    return f"INSERT INTO {table} VALUES (?{', ?' * NUM_VALUES[table]})"
