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
from alphapulse.storage.journal.decoding import prediction_of, unpacked
from alphapulse.storage.journal.layout import require_layout, upgrade
from alphapulse.storage.journal.schema import numbers_sql
from alphapulse.storage.tables import BATCHED, COLUMNS, NOTES, NUMBERED, SERIES

_DAMAGED = "it is damaged: restore a backup, or move it away and start a fresh run"
_REMEDIES = {
    "SQLITE_FULL": "free space on the disk, then append again",
    "SQLITE_BUSY": "another process holds the journal: end it, then append again",
    "SQLITE_READONLY": "make the file and its folder writable by this user, then append again",
    "SQLITE_CANTOPEN": "check that the folder exists and this user may use it",
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CORRUPT": _DAMAGED,
}
NUM_OUTPUTS_SQL = f"SELECT count(*) FROM outputs WHERE {numbers_sql('outputs')}"
UPGRADE_S = 30.0  # how long an upgrade waits for another process to finish its own


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes to the lake in one piece: of each series, numbers after one up to another.

    Attributes:
        number: of the batch, from 1.
        after: by series of `tables.SERIES`, the newest number of the batches before.
        to: by series, the newest number inside.
    """

    number: int
    after: Mapping[str, int]
    to: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is in it."""
        return self.after == self.to

    def span(self, table: str) -> tuple[int, int]:
        """Return the numbers of a table's rows inside: after the first, up to the second."""
        return self.after[SERIES[table]], self.to[SERIES[table]]


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
        """Return rows of one of the tables, numbers in (after, to], in the order stored."""
        span = "number > ? AND number <= ?"
        with self._database() as db:
            what = f"SELECT {', '.join(COLUMNS[table])} FROM {table}"
            sql = f"{what} WHERE {span} AND ({where}) ORDER BY number, position"
            rows = db.execute(sql, (after, 2**62 if to is None else to, *values)).fetchall()
        return [unpacked(table, row) for row in rows]

    def fetch(self, sql: str, values: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what a SELECT on the tables behind them finds."""
        with self._database() as db:
            return db.execute(sql, values).fetchall()

    def last_decision(self, symbol: str) -> int | None:
        """Return the newest decision instant of `symbol` [ns UTC], None before the first."""
        sql = "SELECT event_ns FROM decisions WHERE symbol = ? ORDER BY event_ns DESC LIMIT 1"
        found = self.fetch(sql, (symbol,))
        return found[0][0] if found else None

    def last_predictions(self, symbol: str | None = None) -> tuple[Prediction, ...]:
        """Return the newest Prediction of every model for `symbol`, in the order they were made.

        Without a symbol they are those of all.
        """
        last = "SELECT decision, model FROM newest WHERE symbol = coalesce(?, symbol)"
        return self._predictions(f"(number, model) IN ({last})", (symbol,))

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
            edges = db.execute("SELECT batch, series, reached FROM edges").fetchall()
        reached: dict[int, dict[str, int]] = {}
        for number, series, newest in edges:
            reached.setdefault(number, {})[series] = newest
        found, before = [], dict.fromkeys(NUMBERED, 0)
        for number in sorted(reached):
            to = before | reached[number]  # one from before a series was kept holds none of it
            found.append(Batch(number, before, to))
            before = to
        return [batch for batch in found if batch.number > after]

    def reached(self, batch: int, table: str) -> int:
        """Return the newest number of a table's rows inside the batches up to number `batch`."""
        newest = (
            "SELECT reached FROM edges WHERE batch <= ? AND series = ? ORDER BY batch DESC LIMIT 1"
        )
        found = self.fetch(newest, (batch, SERIES[table]))
        return int(found[0][0]) if found else 0

    def newest(self) -> dict[str, int]:
        """Return the newest number of every series of `tables.SERIES`, 0 before its first row."""
        with self._database() as db:
            return {series: newest_number(db, series) for series in NUMBERED}

    def counts(self) -> dict[str, int]:
        """Return how much was stored, and how much is in no batch yet.

        `unbatched` counts inferences, `unbatched_rest` outcomes and what else came beside them.
        """
        with self._database() as db:
            edges = dict(db.execute("SELECT series, max(reached) FROM edges GROUP BY series"))
            stored = {series: newest_number(db, series) for series in NUMBERED}
            batched = db.execute("SELECT value FROM meta WHERE key = ?", (BATCHED,)).fetchone()
            unbatched = num_outputs(db, after=edges.get("decision", 0), to=stored["decision"])
            pages = db.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
        beside = {s: n for s, n in stored.items() if s not in ("decision", "row")}
        return {
            "decisions": stored["decision"],
            "inferences": int(batched[0] if batched else 0) + unbatched,
            "rows": stored["row"],
            "outcomes": stored["outcome"],
            **{table: stored[table] for table in NOTES},
            "unbatched": unbatched,
            "unbatched_rest": sum(n - edges.get(s, 0) for s, n in beside.items()),
            "journal_bytes": pages[0],
        }

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
        db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        with closing_on_error(db):
            if not require_layout(db, self.path):
                upgrade(self.path, timeout_s=UPGRADE_S)
        return db

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


def num_outputs(db: sqlite3.Connection, *, after: int, to: int) -> int:
    """Return how many inferences the decisions with numbers in (after, to] hold."""
    num: int = db.execute(NUM_OUTPUTS_SQL, {"after": after, "to": to}).fetchone()[0]
    return num


def newest_number(db: sqlite3.Connection, series: str) -> int:
    """Return the newest number of a series of `tables.SERIES`, 0 before the first row."""
    newest: int = db.execute(f"SELECT coalesce(max(number), 0) FROM {NUMBERED[series]}").fetchone()[
        0
    ]
    return newest


@contextmanager
def closing_on_error(db: sqlite3.Connection) -> Iterator[None]:
    """Close `db` if what is done with it first fails."""
    try:
        yield
    except BaseException:
        db.close()
        raise
