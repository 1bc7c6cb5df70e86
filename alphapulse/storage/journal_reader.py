"""Reads a run's journal, in any process, also while it is written."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import Prediction
from alphapulse.storage.encoding import prediction_of, unpacked
from alphapulse.storage.tables import COLUMNS, SCHEMA_VERSION, SERIES

_DAMAGED = "it is damaged: restore a backup, or move it away and start a fresh run"
_REMEDIES = {
    "SQLITE_FULL": "free space on the disk, then append again",
    "SQLITE_BUSY": "another process holds the journal: end it, then append again",
    "SQLITE_READONLY": "make the file and its folder writable by this user, then append again",
    "SQLITE_CANTOPEN": "check that the folder exists and this user may use it",
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CORRUPT": _DAMAGED,
}
_OUTCOME_BATCHES = "SELECT number, to_outcome FROM outcome_batches"


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes to the lake in one piece: numbers after `from_`, up to and with `to_`."""

    number: int
    from_decision: int
    to_decision: int
    from_row: int
    to_row: int
    from_outcome: int
    to_outcome: int

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is in it."""
        return all(begin == end for begin, end in map(self.span, COLUMNS))

    def span(self, table: str) -> tuple[int, int]:
        """Return the numbers of a table's rows inside: after the first, up to the second."""
        series = SERIES[table]
        return getattr(self, f"from_{series}"), getattr(self, f"to_{series}")


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
        """Return rows of one of the five tables, numbers in (after, to], in the order stored."""
        span = "number > ? AND number <= ?"
        with self._database() as db:
            names = [
                "'[]' AS own" if name == "own" and not has_own(db) else name
                for name in COLUMNS[table]
            ]
            what = f"SELECT {', '.join(names)} FROM {table}"
            sql = f"{what} WHERE {span} AND ({where}) ORDER BY position"
            if table == "outcomes" and not has_outcomes(db):
                return []
            rows = db.execute(sql, (after, 2**62 if to is None else to, *values)).fetchall()
        return [unpacked(table, row) for row in rows]

    def fetch(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return what a SELECT on the tables behind the five finds."""
        with self._database() as db:
            return db.execute(sql, values).fetchall()

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
        return self._predictions(at, (symbol,))

    def predictions_until(self, symbol: str, event_ns: int) -> tuple[Prediction, ...]:
        """Return the predictions of the newest decision at or before an instant, in their order."""
        with self._database() as db:
            (newest,) = db.execute(
                "SELECT max(event_ns) FROM decisions WHERE symbol = ? AND event_ns <= ?",
                (symbol, event_ns),
            ).fetchone()
        return self._predictions("event_ns = ? AND symbol = ?", (newest, symbol))

    def _predictions(self, where: str, values: Sequence[Any]) -> tuple[Prediction, ...]:
        names, forecast_names = COLUMNS["inferences"], COLUMNS["predictions"]
        forecasts = [
            dict(zip(forecast_names, r, strict=True))
            for r in self.select("predictions", where, values)
        ]
        rows = [dict(zip(names, r, strict=True)) for r in self.select("inferences", where, values)]
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
            to_outcome = dict(db.execute(_OUTCOME_BATCHES)) if has_outcomes(db) else {}
        found, decision, row, outcome = [], 0, 0, 0
        for number, to_decision, to_row in named:
            to = to_outcome.get(number, outcome)  # a batch from before outcomes were kept has none
            found.append(Batch(number, decision, to_decision, row, to_row, outcome, to))
            decision, row, outcome = to_decision, to_row, to
        return [batch for batch in found if batch.number > after]

    def reached(self, batch: int, table: str) -> int:
        """Return the newest number of a table's rows inside the batches up to number `batch`."""
        edges = [named.span(table)[1] for named in self.batches() if named.number <= batch]
        return edges[-1] if edges else 0

    def counts(self) -> dict[str, int]:
        """Return how much is stored, and how much is in no batch yet.

        `unbatched` counts inferences, `unbatched_outcomes` outcomes.
        """
        count = "SELECT coalesce(max({}), 0) FROM {}"
        with self._database() as db:
            found = {
                "decisions": db.execute(count.format("number", "decisions")).fetchone()[0],
                "inferences": db.execute(count.format("rowid", "outputs")).fetchone()[0],
                "rows": db.execute(count.format("number", "closed_rows")).fetchone()[0],
                "outcomes": 0,
                "unbatched_outcomes": 0,
            }
            batched = db.execute(count.format("to_decision", "batches")).fetchone()
            found["unbatched"] = db.execute(
                "SELECT count(*) FROM outputs WHERE decision > ?", batched
            ).fetchone()[0]
            if has_outcomes(db):
                settled = db.execute(count.format("number", "settled")).fetchone()[0]
                taken = db.execute(count.format("to_outcome", "outcome_batches")).fetchone()[0]
                found |= {"outcomes": settled, "unbatched_outcomes": settled - taken}
            pages = db.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
        return found | {"journal_bytes": pages[0]}

    def name(self) -> str:
        """Return the name it has in the lake: its run, and a mark no other journal has."""
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
                    check_schema(self._connection, self.path)
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                self._drop()  # undoes what was begun; the next call starts on a fresh connection
                if isinstance(error, StoreError):
                    raise
                name = getattr(error, "sqlite_errorname", "")
                remedy = next(
                    (r for code, r in _REMEDIES.items() if name.startswith(code)), "check the disk"
                )
                raise StoreError(
                    f"journal {self.path}: {error} ({name or type(error).__name__}); {remedy}"
                ) from error


def has_outcomes(db: sqlite3.Connection) -> bool:
    """Return whether the journal keeps outcomes: one made before they were may have no writer."""
    found = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'outcomes'").fetchone()
    return bool(found[0])


def has_own(db: sqlite3.Connection) -> bool:
    """Return whether the journal keeps the names of users' indicators; an older one may not yet."""
    return any(column[1] == "own" for column in db.execute("PRAGMA table_info(packages)"))


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless this version of AlphaPulse wrote the journal."""
    row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None or row[0] != str(SCHEMA_VERSION):
        raise StoreError(
            f"journal {path}: expected schema version {SCHEMA_VERSION}, was {row and row[0]}; "
            "use the AlphaPulse version that wrote it, or start a fresh run"
        )
