"""One run's journal: a SQLite file with one writer and any number of readers.

A decision is one transaction, or part of one: it is there whole or not at all, and what `append` returned survives
a kill -9 (write-ahead log, synchronous=NORMAL). Decisions and rows are numbered upwards and never leave, so that a
batch for the lake is a range of numbers.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, Prediction
from alphapulse.storage.encoding import EncodedRecord, encode, prediction_of
from alphapulse.storage.tables import COLUMNS, JOURNAL_SQL, NUM_VALUES, SCHEMA_VERSION

_REMEDIES = {
    "SQLITE_FULL": "free space on the disk, then append again",
    "SQLITE_BUSY": "another process holds the journal: end it, then append again",
    "SQLITE_READONLY": "make the file and its folder writable by this user, then append again",
    "SQLITE_CANTOPEN": "check that the folder exists and this user may use it",
    "SQLITE_NOTADB": "the file is damaged: restore it from a backup, or move it away and start a fresh run",
    "SQLITE_CORRUPT": "the file is damaged: restore it from a backup, or move it away and start a fresh run",
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A range of the journal that goes to the lake in one piece: numbers after `from_`, up to and with `to_`."""

    number: int
    from_decision: int
    to_decision: int
    from_row: int
    to_row: int


class JournalReader:
    """Reads a journal, in any process, also while it is written.

    Attributes:
        path: the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def select(
        self,
        table: str,
        where: str = "TRUE",
        values: Sequence[Any] = (),
        *,
        after: int = 0,
        to: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one of the four tables, numbers in (after, to], in the order they were stored."""
        names = ", ".join(COLUMNS[table])
        sql = f"SELECT {names} FROM {table} WHERE number > ? AND number <= ? AND ({where}) ORDER BY position"
        with self._database() as db:
            return db.execute(sql, (after, 2**62 if to is None else to, *values)).fetchall()

    def last_decision(self, symbol: str) -> int | None:
        """Return the newest decision instant of `symbol` [ns UTC], None before the first."""
        with self._database() as db:
            newest: int | None = db.execute(
                "SELECT max(event_ns) FROM last WHERE symbol = ?", (symbol,)
            ).fetchone()[0]
        return newest

    def last_predictions(self, symbol: str) -> tuple[Prediction, ...]:
        """Return the newest Prediction of every model for `symbol`, in the order they were made."""
        at = "(number, model) IN (SELECT decision, model FROM last WHERE symbol = ?)"
        names, forecast_names = COLUMNS["inferences"], COLUMNS["predictions"]
        forecasts = [
            dict(zip(forecast_names, r, strict=True))
            for r in self.select("predictions", at, (symbol,))
        ]
        rows = [dict(zip(names, r, strict=True)) for r in self.select("inferences", at, (symbol,))]
        return tuple(
            prediction_of(row, [f for f in forecasts if f["inference_id"] == row["id"]])
            for row in rows
        )

    def batches(self, *, after: int = 0) -> list[Batch]:
        """Return the named batches above number `after`, oldest first."""
        with self._database() as db:
            named = db.execute(
                "SELECT number, to_decision, to_row FROM batches ORDER BY number"
            ).fetchall()
        edges = [(0, 0, 0), *named]
        pairs = zip(edges, named, strict=False)
        return [Batch(n, d0, d1, r0, r1) for (_, d0, r0), (n, d1, r1) in pairs if n > after]

    def reached(self, batch: int) -> tuple[int, int]:
        """Return the newest decision and the newest row inside the batches up to number `batch`."""
        sql = (
            "SELECT to_decision, to_row FROM batches WHERE number <= ? ORDER BY number DESC LIMIT 1"
        )
        with self._database() as db:
            decision, row = db.execute(sql, (batch,)).fetchone() or (0, 0)
        return decision, row

    def counts(self) -> dict[str, int]:
        """Return how many decisions, inferences, rows and bytes are stored, and how many inferences in no batch."""
        count = "SELECT coalesce(max({}), 0) FROM {}"
        with self._database() as db:
            found = {
                "decisions": db.execute(count.format("number", "decisions")).fetchone()[0],
                "inferences": db.execute(count.format("rowid", "outputs")).fetchone()[0],
                "rows": db.execute(count.format("number", "closed_rows")).fetchone()[0],
            }
            batched = db.execute(count.format("to_decision", "batches")).fetchone()
            found["unbatched"] = db.execute(
                "SELECT count(*) FROM outputs WHERE decision > ?", batched
            ).fetchone()[0]
            pages = db.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
        return found | {"journal_bytes": pages[0]}

    def name(self) -> str:
        """Return the name the journal writes to the lake under: its run, and a mark no other journal has."""
        return f"{self.meta('run')}-{self.meta('journal')}"

    def meta(self, key: str) -> str | None:
        """Return a remark about the whole journal, None if it was never made."""
        with self._database() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._lock:
            self._drop()

    def _open(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                    _check_schema(self._connection, self.path)
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                self._drop()  # whatever was begun is undone, and the next call starts on a fresh connection
                if isinstance(error, StoreError):
                    raise
                name = getattr(error, "sqlite_errorname", "")
                remedy = next(
                    (r for code, r in _REMEDIES.items() if name.startswith(code)), "check the disk"
                )
                raise StoreError(
                    f"journal {self.path}: {error} ({name or type(error).__name__}); {remedy}"
                ) from error


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
        """Make `records` durable in one transaction and return how many were new; those already there stay as they are.

        Raises StoreError if nothing of them was stored.
        """
        for record in records:
            if record.run != self.run:
                raise StoreError(
                    f"journal {self.path}: expected records of run {self.run}, was {record.run}"
                )
        encoded = [encode(record) for record in records]
        with self._transaction() as db:
            return sum(_insert(db, record) for record in encoded)

    def name_batch(self, *, max_decisions: int) -> Batch | None:
        """Name the oldest decisions that are in no batch as the next one, None if there are none.

        The name survives a power failure, so that the lake never knows of a batch the journal has forgotten.
        """
        with self._transaction(synchronous="FULL") as db:
            batch = _next_batch(db, max_decisions)
            if (batch.to_decision, batch.to_row) == (batch.from_decision, batch.from_row):
                return None
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?)",
                (batch.number, batch.to_decision, batch.to_row),
            )
        return batch

    def remark(self, key: str, value: str) -> None:
        """Keep a remark about the whole journal, durably; it replaces the one of the same key."""
        with self._transaction(synchronous="FULL") as db:
            db.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, check_same_thread=False, isolation_level=None
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._create(db)
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
        db.executescript(f"BEGIN IMMEDIATE;{JOURNAL_SQL}{inserts}COMMIT;")

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


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None or row[0] != str(SCHEMA_VERSION):
        raise StoreError(
            f"journal {path}: expected schema version {SCHEMA_VERSION}, was {row and row[0]}; "
            "use the AlphaPulse version that wrote it, or start a fresh run"
        )


def _next_batch(db: sqlite3.Connection, max_decisions: int) -> Batch:
    newest = db.execute(
        "SELECT number, to_decision, to_row FROM batches ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, decision, row = newest or (0, 0, 0)
    to_decision = db.execute("SELECT coalesce(max(number), 0) FROM decisions").fetchone()[0]
    to_row = db.execute("SELECT coalesce(max(number), 0) FROM closed_rows").fetchone()[0]
    return Batch(number + 1, decision, min(to_decision, decision + max_decisions), row, to_row)


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
        "INSERT INTO last VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET event_ns = excluded.event_ns, "
        "decision = excluded.decision WHERE excluded.event_ns > last.event_ns",
        ((record.symbol, model, record.event_ns, number) for model in record.models),
    )
    return 1


def _into(table: str) -> str:
    return f"INSERT INTO {table} VALUES (?{', ?' * NUM_VALUES[table]})"
