"""Bring a journal's own tables to the layout of this version, and refuse what is no journal."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.older import from_older
from alphapulse.storage.journal.schema import JOURNAL_LAYOUT, TABLES_SQL, VIEWS_SQL
from alphapulse.storage.tables import LAKE_ONLY, SCHEMA_VERSION

_MARK = f"INSERT OR REPLACE INTO meta VALUES ('layout', '{JOURNAL_LAYOUT}');\n"


def make(path: Path, *, run: str, lake_only_ns: int) -> None:
    """Make a new journal, whole or not at all; its rows carry today's schema.

    Args:
        path: where there is none.
        run: id of the run.
        lake_only_ns: newest event time of what the lake holds of the run already, -1 for nothing.

    Raises sqlite3.Error or OSError if it cannot be written.
    """
    remarks = {"schema_version": SCHEMA_VERSION, "run": run, "journal": secrets.token_hex(4)}
    if lake_only_ns >= 0:
        remarks[LAKE_ONLY] = lake_only_ns
    inserts = "".join(
        f"INSERT INTO meta VALUES ('{key}', '{value}');" for key, value in remarks.items()
    )
    unborn = path.with_name(f".{path.name}")  # a reader that finds a journal finds its tables
    for left in path.parent.glob(f"{unborn.name}*"):
        left.unlink()
    with closing(sqlite3.connect(unborn, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that what retention frees can go
        db.executescript(f"BEGIN IMMEDIATE;{TABLES_SQL}{VIEWS_SQL}{inserts}{_MARK}COMMIT;")
        db.execute("PRAGMA journal_mode = WAL")
    unborn.rename(path)


def require_layout(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether a journal has today's layout, or else can be brought to it.

    Raises StoreError if a newer version of AlphaPulse wrote it, or none did.
    """
    found = dict(db.execute("SELECT key, value FROM meta"))
    version, layout = found.get("schema_version", ""), found.get("layout", "1")
    known = range(1, SCHEMA_VERSION + 1)
    if not (version.isdecimal() and int(version) in known and int(layout) <= JOURNAL_LAYOUT):
        raise StoreError(
            f"journal {path}: expected schema version 1 to {SCHEMA_VERSION} and layout 1 to "
            f"{JOURNAL_LAYOUT}, was {version or None} and {layout}; "
            "use the AlphaPulse version that wrote it, or start a fresh run"
        )
    return int(layout) == JOURNAL_LAYOUT


def upgrade(path: Path, *, timeout_s: float) -> None:
    """Bring an older journal to today's layout: whole or not at all, and no row changes.

    Raises sqlite3.Error if it cannot be written.
    """
    with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        if require_layout(db, path):
            return  # another process was first
        for script in (*from_older(db), VIEWS_SQL, _MARK, "COMMIT;"):
            for statement in script.split(";\n"):  # `executescript` would commit before it began
                db.execute(statement)
