"""What people want to run: the wish for every process, durable, and who changed it when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.logs import get_logger
from alphapulse.storage.run import now

log = get_logger("storage")
PROCESSES = ("feed", "trader", "settlement", "training", "dashboard")
SCHEMA = """
CREATE TABLE IF NOT EXISTS wishes (
  name TEXT PRIMARY KEY, is_wanted INTEGER NOT NULL, since_at TEXT NOT NULL, asked_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
  number INTEGER PRIMARY KEY, at TEXT NOT NULL, asked_by TEXT NOT NULL, action TEXT NOT NULL,
  target TEXT NOT NULL, changed INTEGER NOT NULL, detail TEXT NOT NULL);
"""


class Control:
    """The wishes of a home; every process of ours reads its own before each piece of work.

    A process nobody has ever asked about is wanted. What is written is on the disk when the call
    returns; asking twice for the same changes nothing and is audited too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._writing() as db:
            db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA}")
        self._reader = sqlite3.connect(path, timeout=5.0, isolation_level=None)
        self._known: dict[str, bool] = {}  # by name, as they were read last

    def is_wanted(self, name: str) -> bool:
        """Return whether `name` is to run; as it was, with a warning, if the file cannot be read.

        Nobody stops or starts trading by a disk that does not answer.
        """
        try:
            row = self._reader.execute(
                "SELECT is_wanted FROM wishes WHERE name = ?", (name,)
            ).fetchone()
        except sqlite3.Error as error:
            log.warning("wishes not read", code="WishesNotRead", reason=f"{self._path}: {error}")
        else:
            self._known[name] = row is None or bool(row[0])
        return self._known.get(name, True)

    def wish(self, name: str, *, is_wanted: bool, asked_by: str) -> bool:
        """Keep whether `name` is to run, and return whether that changed anything.

        Raises InvalidRequest if there is no such process.
        """
        if name not in PROCESSES:
            raise InvalidRequest(
                f"process: expected one of {', '.join(PROCESSES)}, was {name!r}; see GET /processes"
            )
        with self._writing() as db:
            before = db.execute("SELECT is_wanted FROM wishes WHERE name = ?", (name,)).fetchone()
            changed = is_wanted != (before is None or bool(before[0]))
            if changed:
                db.execute(
                    "INSERT INTO wishes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "is_wanted = excluded.is_wanted, since_at = excluded.since_at, "
                    "asked_by = excluded.asked_by",
                    (name, is_wanted, now(), asked_by),
                )
            action = "start" if is_wanted else "stop"
            _audit(db, asked_by, action, target=name, changed=changed)
        return changed

    def note(self, action: str, *, target: str, detail: str, asked_by: str) -> None:
        """Keep what else a person asked for, such as a halt."""
        with self._writing() as db:
            _audit(db, asked_by, action, target=target, changed=True, detail=detail)

    def wishes(self) -> list[dict[str, Any]]:
        """Return every process with the wish for it, since when, and who asked."""
        query = "SELECT name, is_wanted, since_at, asked_by FROM wishes"
        kept = {name: rest for name, *rest in self._reader.execute(query)}
        rows = []
        for name in PROCESSES:
            is_wanted, since_at, asked_by = kept.get(name, (True, None, None))
            wanted = "running" if is_wanted else "stopped"
            rows.append({"name": name, "wanted": wanted, "since_at": since_at, "by": asked_by})
        return rows

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` things people asked for, newest first."""
        names = ("at", "by", "action", "target", "changed", "detail")
        rows = self._reader.execute(
            "SELECT at, asked_by, action, target, changed, detail FROM audit "
            "ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [dict(zip(names, row, strict=True)) | {"changed": bool(row[4])} for row in rows]

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=5.0)) as db, db:
                db.execute("PRAGMA synchronous = FULL")
                yield db
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path}: {error}; make it writable by this user and free space, then ask "
                "again: nothing was changed"
            ) from error


def _audit(
    db: sqlite3.Connection,
    asked_by: str,
    action: str,
    *,
    target: str,
    changed: bool,
    detail: str = "",
) -> None:
    db.execute(
        "INSERT INTO audit (at, asked_by, action, target, changed, detail) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (now(), asked_by, action, target, changed, detail),
    )
