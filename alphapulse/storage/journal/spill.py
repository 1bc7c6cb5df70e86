"""Keep records on a local disk while the history does not take them, and give them back once.

The file is a journal of its own: a record is in it whole or not at all and survives a kill -9. It
is there only while records wait in it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alphapulse.config import Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import (
    Action,
    Decision,
    DecisionRecord,
    StoredRow,
    Thresholds,
)
from alphapulse.logs import describe, get_logger
from alphapulse.storage.home import Run
from alphapulse.storage.journal.arrays import array_of
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.reader import closing_on_error
from alphapulse.storage.journal.removing import remove_decisions, sweep
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.tables import COLUMNS

MIB = 1 << 20
Key = tuple[str, str, int]  # run, symbol, decision instant [ns UTC]: what names a record
_KEPT = (
    *("symbol", "event_ns", "action", "confidence", "utility_r", "reason", "entry_threshold"),
    *("exit_threshold", "trace_id", "config_hash", "last_trade_id", "last_book_id"),
    *("received_ns", "decided_at_ns"),
)  # columns of `decisions` that no view shows as they are
_T = TypeVar("_T")
log = get_logger("storage")


class Spill:
    """The records of a run that wait for its history, in the order they came.

    ```python
    spill = Spill.of(run, settings.storage)
    await spill.put(records)                 # durable when it returns
    for key in await spill.keys():           # after a restart too
        await history.append(await spill.get([key]))
        await spill.drop([key])
    ```

    Attributes:
        path: the file.
        max_bytes: size beyond which it takes no more.
    """

    def __init__(self, path: Path, *, run: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._file = _SpillFile(path, run=run)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="spill")

    @classmethod
    def of(cls, run: Run, settings: Storage) -> Spill:
        """Return the spill of `run`: in its folder, or in `storage.spill_dir` where that is set."""
        folder = settings.spill_dir
        path = Path(folder) / f"{run.id}.spill.sqlite" if folder else run.path / "spill.sqlite"
        return cls(path, run=run.id, max_bytes=settings.spill_mb * MIB)

    async def put(self, records: Sequence[DecisionRecord]) -> None:
        """Make records durable, each once; raises StoreError if none of them were taken."""
        await self._on(partial(self._put, records))

    async def keys(self) -> list[Key]:
        """Return what waits, oldest first; raises StoreError if the file cannot be read."""
        return await self._on(self._keys)

    async def get(self, keys: Sequence[Key]) -> list[DecisionRecord]:
        """Return the records of `keys`, bit for bit; those that are damaged are left out.

        Raises StoreError if the file cannot be read at all.
        """
        return await self._on(partial(self._get, keys))

    async def drop(self, keys: Sequence[Key]) -> None:
        """Forget records; raises StoreError if they are still there."""
        await self._on(partial(self._drop, keys))

    def close(self) -> None:
        """Wait for what is under way, then let go of the file."""
        self._worker.shutdown(wait=True)
        self._file.close()

    def _put(self, records: Sequence[DecisionRecord]) -> None:
        self._prepare()
        if self.path.exists() and self._file.num_bytes() >= self.max_bytes:
            raise StoreError(
                f"spill {self.path}: expected room, was full at {self.max_bytes // MIB} MiB; "
                "bring the store back, or raise storage.spill_mb"
            )
        self._file.append(records)

    def _prepare(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"spill {self.path}: {error}; make the folder writable, or set storage.spill_dir"
            ) from error

    def _keys(self) -> list[Key]:
        if not self.path.exists():
            return []
        return self._file.keys()

    def _get(self, keys: Sequence[Key]) -> list[DecisionRecord]:
        found = []
        for _, symbol, event_ns in keys:
            try:
                found += self._file.records(symbol, event_ns)
            except (StoreError, ValueError) as error:
                if not _is_damage(error):
                    raise
                log.error(
                    "spilled record is damaged",
                    **describe(error),
                    symbol=symbol,
                    event_ns=event_ns,
                    remedy="check the disk; the other records of the file are recovered",
                )
        return found

    def _drop(self, keys: Sequence[Key]) -> None:
        if not self.path.exists():
            return
        if not self._file.forget(keys):
            return
        self._file.close()  # which puts all into the one file
        for suffix in ("-wal", "-shm", ""):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    async def _on(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


class _SpillFile(Journal):
    """A journal whose decisions can be read back as records and forgotten."""

    def num_bytes(self) -> int:
        """Return how much of the file is in use."""
        with self._database() as db:
            pages, free, size = (
                db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def keys(self) -> list[Key]:
        """Return what names each decision, in the order they came.

        An index alone is read for it: a damaged decision is still named.
        """
        rows = self.fetch("SELECT number, symbol, event_ns FROM decisions ORDER BY event_ns", {})
        return [(self.run, symbol, event_ns) for _, symbol, event_ns in sorted(rows)]

    def records(self, symbol: str, event_ns: int) -> list[DecisionRecord]:
        """Return a decision as it was handed over, in a list; none if it is not there.

        Raises StoreError or ValueError if it is damaged.
        """
        sql = f"SELECT number, {', '.join(_KEPT)} FROM decided WHERE symbol = :s AND event_ns = :e"
        return [
            self._record(number, dict(zip(_KEPT, kept, strict=True)))
            for number, *kept in self.fetch(sql, {"s": symbol, "e": event_ns})
        ]

    def _record(self, number: int, kept: Mapping[str, Any]) -> DecisionRecord:
        (package,) = self.select("packages", after=number - 1, to=number)
        return DecisionRecord(
            run=self.run,
            trace_id=kept["trace_id"],
            config_hash=kept["config_hash"],
            last_trade_id=kept["last_trade_id"],
            last_book_id=kept["last_book_id"],
            received_ns=kept["received_ns"],
            decided_at_ns=kept["decided_at_ns"],
            package=package_of(dict(zip(COLUMNS["packages"], package, strict=True))),
            rows=tuple(self._rows_of(number, kept["event_ns"])),
            decision=Decision(
                symbol=kept["symbol"],
                event_ns=kept["event_ns"],
                action=Action(kept["action"]),
                confidence=_float(kept["confidence"]),
                utility_r=_float(kept["utility_r"]),
                reason=kept["reason"],
                thresholds=Thresholds(entry=kept["entry_threshold"], exit=kept["exit_threshold"]),
                predictions=self._predictions("number = ?", (number,)),
            ),
        )

    def _rows_of(self, number: int, event_ns: int) -> Iterator[StoredRow]:
        """Yield the closed rows first shown at an instant, for the first decision of it here."""
        first = "SELECT min(number) FROM decisions WHERE event_ns = :at"
        if self.fetch(first, {"at": event_ns}) != [(number,)]:
            return
        for row in self.select("rows", "event_ns = ?", (event_ns,)):
            kept = dict(zip(COLUMNS["rows"], row, strict=True))
            yield StoredRow(
                symbol=kept["symbol"],
                stream=kept["stream"],
                ts_ns=kept["ts_ns"],
                flags=kept["flags"],
                values_C=array_of(kept["cells"], kept["cells_layout"]),
            )

    def forget(self, keys: Sequence[Key]) -> bool:
        """Remove decisions with all that came with them and return whether none is left."""
        this = "SELECT number FROM decisions WHERE symbol = ? AND event_ns = ?"
        with self._transaction() as db:
            for _, *decision in keys:
                remove_decisions(db, [number for (number,) in db.execute(this, decision)])
                db.execute(
                    "DELETE FROM closed_rows WHERE event_ns = ?1 "
                    "AND NOT EXISTS (SELECT 1 FROM decisions WHERE event_ns = ?1)",
                    decision[1:],
                )
            sweep(db)
            is_empty: bool = not db.execute("SELECT EXISTS (SELECT 1 FROM decisions)").fetchone()[0]
        self._sharing.forget()  # what was swept cannot be leant on
        return is_empty

    def _open(self) -> sqlite3.Connection:
        db = super()._open()
        with closing_on_error(db):
            db.execute("CREATE INDEX IF NOT EXISTS rows_by_instant ON closed_rows (event_ns)")
        return db


def _is_damage(error: Exception) -> bool:
    """Return whether what was read is not what was written; else it may be read later."""
    if isinstance(error.__cause__, sqlite3.Error):
        name = getattr(error.__cause__, "sqlite_errorname", "")
        return not name or name.startswith("SQLITE_CORRUPT")  # no name: a text that is none
    return not isinstance(error.__cause__, OSError)


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
