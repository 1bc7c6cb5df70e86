"""The way from the tables of an older journal to today's, as SQL: no row changes in its views."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from alphapulse.storage.journal.schema import (
    ALIKE,
    DECISION,
    PIECES,
    PLACES,
    SHOWN,
    TABLES_SQL,
    VIEWS,
)
from alphapulse.storage.tables import BATCHED

# Columns the first layouts lack. They kept all of a decision with it; later ones as today's.
_SHARED = ("alike", "shown", *(name for at in PIECES.values() for name in at))
_ADDED = {
    "decisions": {
        "own": "TEXT NOT NULL DEFAULT '[]'",
        **dict.fromkeys(SHOWN, "TEXT"),
        "scale": "BLOB",
        "scale_layout": "TEXT",
        **dict.fromkeys(_SHARED, "INTEGER"),
    },
    "outputs": {"made": "INTEGER"},
}
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
# Tables that were kept otherwise: decisions with room for what they share, outputs and forecasts
# in the order they came in, rows with the names of their stream.
_ANEW = ("decisions", "outputs", "forecasts", "closed_rows")
_NUM_PIECES = len(PIECES)


def from_older(db: sqlite3.Connection) -> list[str]:
    """Return the statements that bring the tables of a journal of an older layout to today's."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    newest = "SELECT coalesce(max(number), 0) FROM pieces"
    num_pieces: int = db.execute(newest).fetchone()[0] if "pieces" in tables else 0
    return [
        *(f"DROP VIEW IF EXISTS {view};\n" for view in VIEWS),  # they name what is renamed
        *(_added(db, table) for table in _ADDED),
        *(f"ALTER TABLE {table} RENAME TO old_{table};\n" for table in _ANEW),
        TABLES_SQL,
        *(sql for table, sql in _EDGES.items() if table in tables),
        _decisions_sql(num_pieces),
        _REST_SQL,
        *(f"DROP TABLE old_{table};\n" for table in _ANEW),
    ]


def _added(db: sqlite3.Connection, table: str) -> str:
    known = {column[1] for column in db.execute(f"PRAGMA table_info({table})")}
    missing = {name: kind for name, kind in _ADDED[table].items() if name not in known}
    return "".join(f"ALTER TABLE {table} ADD COLUMN {n} {kind};\n" for n, kind in missing.items())


def _decisions_sql(num_pieces: int) -> str:
    """Return how decisions are copied; their pieces are numbered above those there are."""
    inserts, pieces = "", {name: f"d.{name}" for at in PIECES.values() for name in at}
    for place, (column, at) in enumerate(PIECES.items(), num_pieces + 1):
        number = f"d.number * {_NUM_PIECES} + {place}"
        inserts += f"""
INSERT INTO pieces SELECT {number}, NULL, {column} FROM old_decisions d WHERE {at[0]} IS NULL;"""
        pieces[at[0]] = f"coalesce(d.{at[0]}, {number})"
    copied = ", ".join(f"d.{name}" for name in DECISION)
    return f"""
INSERT INTO alike SELECT DISTINCT NULL, {", ".join(ALIKE)} FROM old_decisions WHERE alike IS NULL;
INSERT INTO shown SELECT DISTINCT NULL, {", ".join(SHOWN)} FROM old_decisions
  WHERE shown IS NULL AND timeframes IS NOT NULL;{inserts}
INSERT INTO decisions SELECT d.number, {copied}, coalesce(d.alike, {_found("alike", ALIKE)}),
  coalesce(d.shown, {_found("shown", SHOWN)}), {", ".join(pieces.values())} FROM old_decisions d;
"""


def _found(table: str, names: Sequence[str]) -> str:
    alike = " AND ".join(f"one.{name} IS d.{name}" for name in names)
    return f"(SELECT max(one.number) FROM {table} one WHERE {alike})"


_REST_SQL = f"""
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
INSERT INTO names SELECT DISTINCT NULL, name FROM (
  SELECT symbol AS name FROM old_closed_rows UNION SELECT stream FROM old_closed_rows);
INSERT INTO closed_rows SELECT
  c.number, whose.number, of.number, ts_ns, event_ns, flags, cells, cells_layout
  FROM old_closed_rows c JOIN names whose ON whose.name = c.symbol
  JOIN names of ON of.name = c.stream;
INSERT INTO meta SELECT '{BATCHED}', coalesce(max(rowid), 0) - (SELECT count(*) FROM old_outputs
  WHERE decision > (SELECT coalesce(max(reached), 0) FROM edges WHERE series = 'decision'))
  FROM old_outputs;
"""
