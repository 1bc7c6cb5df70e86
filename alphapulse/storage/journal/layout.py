"""Bring a journal's own tables to the layout of this version, and refuse what is no journal."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from alphapulse.domain.errors import StoreError
from alphapulse.storage.tables import (
    ADDED,
    BATCHED,
    JOURNAL_LAYOUT,
    LAKE_ONLY,
    PLACES,
    SCHEMA_VERSION,
    TABLES_SQL,
    VIEWS,
    VIEWS_SQL,
)

PAGE_SIZE = 8192  # bytes: four decisions a page, where 4096 hold one or two
_MARK = f"INSERT OR REPLACE INTO meta VALUES ('layout', '{JOURNAL_LAYOUT}');\n"
# Which rows a batch holds was kept by column once, for outcomes in a table of their own.
_EDGES = {
    "batches": """
INSERT OR IGNORE INTO edges SELECT number, 'decision', to_decision FROM batches;
INSERT OR IGNORE INTO edges SELECT number, 'row', to_row FROM batches;
DROP TABLE batches;
""",
    "outcome_batches": """
INSERT OR IGNORE INTO edges SELECT number, 'outcome', to_outcome FROM outcome_batches;
DROP TABLE outcome_batches;
""",
}


# Tables that were kept otherwise: outputs and forecasts by the order they came in, rows with the
# names of their stream.
_ANEW = ("outputs", "forecasts", "closed_rows")
_COPY_SQL = f"""
INSERT INTO made SELECT DISTINCT NULL, version, hidden_layout FROM old_outputs WHERE made IS NULL;
INSERT INTO outputs SELECT
  decision * {PLACES["outputs"]}
    + row_number() OVER (PARTITION BY decision ORDER BY o.rowid) - 1, id, model, action,
  p_buy, p_sell, p_hold, confidence, utility_r, hidden, weights,
  coalesce(made, (SELECT max(number) FROM made m
    WHERE m.version = o.version AND m.hidden_layout = o.hidden_layout))
  FROM old_outputs o;
INSERT INTO forecasts SELECT
  f.decision * {PLACES["forecasts"]}
    + row_number() OVER (PARTITION BY f.decision ORDER BY f.rowid) - 1, o.place, timeframe,
  level, kind, p_high, p_low, pivot_ns, bars_ahead, price, move, p_done, f.confidence
  FROM old_forecasts f JOIN (
    SELECT decision, model, row_number() OVER (PARTITION BY decision ORDER BY rowid) - 1 AS place
    FROM old_outputs) o ON o.decision = f.decision AND o.model = f.model;
INSERT INTO streams SELECT DISTINCT NULL, symbol, stream FROM old_closed_rows;
INSERT INTO closed_rows SELECT
  c.number, of.number, ts_ns, event_ns, flags, cells, cells_layout
  FROM old_closed_rows c JOIN streams of ON of.symbol = c.symbol AND of.stream = c.stream;
INSERT INTO meta SELECT '{BATCHED}', coalesce(max(rowid), 0) - (SELECT count(*) FROM old_outputs
  WHERE decision > (SELECT coalesce(max(reached), 0) FROM edges WHERE series = 'decision'))
  FROM old_outputs;
"""


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
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
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
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        added = [_added(db, table) for table in ADDED]
        edges = [sql for table, sql in _EDGES.items() if table in tables]
        views = [f"DROP VIEW IF EXISTS {view};\n" for view in VIEWS]  # of what is renamed
        renamed = [f"ALTER TABLE {table} RENAME TO old_{table};\n" for table in _ANEW]
        dropped = [f"DROP TABLE old_{table};\n" for table in _ANEW]
        before, after = (*views, *added, *renamed), (*edges, _COPY_SQL, *dropped)
        for script in (*before, TABLES_SQL, *after, VIEWS_SQL, _MARK, "COMMIT;"):
            for statement in script.split(";\n"):  # `executescript` would commit before it began
                db.execute(statement)


def _added(db: sqlite3.Connection, table: str) -> str:
    known = {column[1] for column in db.execute(f"PRAGMA table_info({table})")}
    missing = {name: kind for name, kind in ADDED[table].items() if name not in known}
    return "".join(f"ALTER TABLE {table} ADD COLUMN {n} {kind};\n" for n, kind in missing.items())
