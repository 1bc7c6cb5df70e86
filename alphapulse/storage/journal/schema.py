"""A journal's own tables, and the views that give the tables of the history from them, as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alphapulse.storage.tables import COLUMNS, KEYS, NOTES

# How a journal keeps them: raised with every change of what follows, see `layout.upgrade`.
JOURNAL_LAYOUT = 4
HEX = frozenset({"id", "inference_id"})  # kept as bytes, half as long
_SQL = {str: "TEXT NOT NULL", int: "INTEGER", float: "", bytes: "BLOB"}


def note_columns(table: str) -> list[str]:
    """Return the columns a row of a note is given with: those a journal knows are left out."""
    return [name for name in COLUMNS[table] if name not in ("run", "schema_version")]


def _note_sql(table: str) -> str:
    names = note_columns(table)
    kinds = {n: "BLOB NOT NULL" if n in HEX else _SQL[COLUMNS[table][n]] for n in names}
    key = ", ".join(n for n in KEYS[table] if n != "run")
    columns = ", ".join(f"{n} {kind}" for n, kind in kinds.items())
    return (
        f"CREATE TABLE IF NOT EXISTS noted_{table} "
        f"(number INTEGER PRIMARY KEY, {columns}, UNIQUE ({key}));\n"
    )


def _note_view_sql(table: str) -> str:
    shown = [f"lower(hex({n})) AS {n}" if n in HEX else n for n in COLUMNS[table]]
    return (
        f"CREATE VIEW {table} AS SELECT number, number AS position, {', '.join(shown)} "
        f"FROM run, noted_{table};\n"
    )


# Columns that stay the same for long: each of their combinations is kept once, in a table of that
# name, and a decision or an output names its number.
ALIKE = (
    *("reference", "spec_version", "config_hash", "entry_threshold", "exit_threshold"),
    *("forming_layout", "peer_slots", "peers_layout", "awake", "awake_layout", "account_layout"),
    *("own", "scale", "scale_layout"),
)
SHOWN = ("timeframes", "completeness", "validation")
MADE = ("version", "hidden_layout")
DECISION = (  # the others
    *("event_ns", "symbol", "trace_id", "received_ns", "decided_at_ns", "window_version"),
    *("input_hash", "action", "confidence", "utility_r", "reason"),
    *("last_trade_id", "last_book_id", "peers", "account"),
)
# What a decision has several of is found by its number, without an index: the decision's number
# times this, plus the place among the decision's own, in the order they were made.
PLACES: Mapping[str, int] = {"outputs": 64, "forecasts": 1024}
OUTPUT = (
    *("id", "model", "action", "p_buy", "p_sell", "p_hold"),
    *("confidence", "utility_r", "hidden", "weights"),
)
FORECAST = (  # `output` is the place of the output it is part of
    *("output", "timeframe", "level", "kind", "p_high", "p_low"),
    *("pivot_ns", "bars_ahead", "price", "move", "p_done", "confidence"),
)
ROW = ("symbol", "stream", "ts_ns", "event_ns", "flags", "cells", "cells_layout")
# Columns kept as rows of `pieces`, and what names those, see `sharing`: an instant's decisions show
# the same forming rows.
PIECES: Mapping[str, tuple[str, ...]] = {
    "streams": ("streams_piece",),
    "forming": ("own_piece", "reference_piece"),
    "substitutions": ("substitutions_piece",),
}


HASHES = ("trace_id", "input_hash")  # as bytes where they are hexadecimal, half as long


def numbers_sql(table: str) -> str:
    """Return SQL for the numbers in `outputs` or `forecasts` of decisions in (:after, :to]."""
    num = PLACES[table]
    return f"number >= (:after + 1) * {num} AND number < (:to + 1) * {num}"


# A decision's own are found by its number, never the other way round: hence CROSS JOIN, whose order
# SQLite keeps.
def _of_sql(row: str, table: str, decision: str) -> str:
    num = PLACES[table]
    return f"{row}.number BETWEEN {decision} * {num} AND {decision} * {num} + {num - 1}"


def _hex_sql(name: str) -> str:
    return f"CASE typeof(d.{name}) WHEN 'blob' THEN lower(hex(d.{name})) ELSE d.{name} END"


def _piece_sql(column: str) -> str:
    return (
        "coalesce((SELECT CAST(coalesce(leant.content, x'') || piece.content AS BLOB) FROM pieces "
        f"piece LEFT JOIN pieces leant ON leant.number = piece.anchor WHERE piece.number = {column}"
        "), x'')"
    )


def _of(row: str, names: Iterable[str]) -> list[str]:
    return [f"{row}.{name} AS {name}" for name in names]


_DECIDED = ", ".join(
    ["d.number", *(f"{_hex_sql(n) if n in HASHES else f'd.{n}'} AS {n}" for n in DECISION)]
    + [
        f"CAST({' || '.join(_piece_sql(f'd.{a}') for a in at)} AS BLOB) AS {n}"
        for n, at in PIECES.items()
    ]
    + _of("alike", ALIKE)
    + _of("shown", SHOWN)
)
_FORETOLD = ", ".join(_of("f", (name for name in FORECAST if name != "output")))
_SAID = ", ".join(_of("o", OUTPUT) + _of("made", MADE))
# `last` is the newest decision by symbol and model of those that are in a batch; `newest` of all.
INTO_LAST_SQL = f"""INSERT INTO last
  SELECT symbol, o.model, max(event_ns), d.number FROM decisions d
  CROSS JOIN outputs o ON {_of_sql("o", "outputs", "d.number")}
  WHERE d.number > ? AND d.number <= ? GROUP BY symbol, o.model
  ON CONFLICT DO UPDATE SET event_ns = excluded.event_ns, decision = excluded.decision
  WHERE excluded.event_ns > last.event_ns"""
# What is the same for all models of a decision is kept once; the tables are views.
# A column without a type keeps -0.0, which REAL would turn into 0.0.
TABLES_SQL = f"""
CREATE TABLE IF NOT EXISTS alike (number INTEGER PRIMARY KEY, {", ".join(ALIKE)});
CREATE TABLE IF NOT EXISTS shown (number INTEGER PRIMARY KEY, {", ".join(SHOWN)});
CREATE TABLE IF NOT EXISTS made (number INTEGER PRIMARY KEY, {", ".join(MADE)});
CREATE TABLE IF NOT EXISTS pieces (
  number INTEGER PRIMARY KEY, anchor INTEGER, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decisions (
  number INTEGER PRIMARY KEY, event_ns INTEGER NOT NULL, symbol TEXT NOT NULL,
  trace_id NOT NULL, received_ns INTEGER NOT NULL, decided_at_ns INTEGER NOT NULL,
  window_version INTEGER NOT NULL, input_hash NOT NULL,
  action TEXT NOT NULL, confidence, utility_r, reason TEXT NOT NULL,
  last_trade_id INTEGER NOT NULL, last_book_id INTEGER NOT NULL,
  peers BLOB NOT NULL, account BLOB NOT NULL, alike INTEGER NOT NULL, shown INTEGER,
  streams_piece INTEGER NOT NULL, own_piece INTEGER NOT NULL, reference_piece INTEGER,
  substitutions_piece INTEGER NOT NULL, UNIQUE (event_ns, symbol));
CREATE TABLE IF NOT EXISTS outputs (
  number INTEGER PRIMARY KEY, id BLOB NOT NULL, model TEXT NOT NULL, action TEXT NOT NULL,
  p_buy, p_sell, p_hold, confidence, utility_r, hidden BLOB NOT NULL, weights TEXT NOT NULL,
  made INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS forecasts (
  number INTEGER PRIMARY KEY, output INTEGER NOT NULL, timeframe TEXT NOT NULL,
  level INTEGER NOT NULL, kind TEXT NOT NULL, p_high, p_low, pivot_ns INTEGER NOT NULL,
  bars_ahead, price, move, p_done, confidence);
CREATE TABLE IF NOT EXISTS names (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS closed_rows (
  number INTEGER PRIMARY KEY, symbol INTEGER NOT NULL, stream INTEGER NOT NULL,
  ts_ns INTEGER NOT NULL, event_ns INTEGER NOT NULL, flags INTEGER NOT NULL,
  cells BLOB NOT NULL, cells_layout NOT NULL, UNIQUE (stream, ts_ns, symbol));
CREATE TABLE IF NOT EXISTS last (
  symbol TEXT NOT NULL, model TEXT NOT NULL, event_ns INTEGER NOT NULL, decision INTEGER NOT NULL,
  PRIMARY KEY (symbol, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled (
  number INTEGER PRIMARY KEY, inference_id BLOB NOT NULL,
  symbol TEXT NOT NULL, model TEXT NOT NULL,
  event_ns INTEGER NOT NULL, known_ns INTEGER NOT NULL, timeframe TEXT NOT NULL,
  level INTEGER NOT NULL, version INTEGER NOT NULL, unit, ended_ns INTEGER NOT NULL,
  price, move, hit, kind TEXT NOT NULL, bars, p_done,
  action TEXT NOT NULL, reason TEXT NOT NULL, result, result_long, result_short,
  UNIQUE (inference_id, timeframe, level, version));
CREATE TABLE IF NOT EXISTS edges (
  batch INTEGER NOT NULL, series TEXT NOT NULL, reached INTEGER NOT NULL,
  PRIMARY KEY (batch, series)) WITHOUT ROWID;
""" + "".join(map(_note_sql, NOTES))
VIEWS = ("run", *COLUMNS, "decided", "said", "foretold", "closed", "newest")
VIEWS_SQL = (
    "".join(f"DROP VIEW IF EXISTS {view};\n" for view in VIEWS)
    + f"""
CREATE VIEW run AS SELECT
  (SELECT value FROM meta WHERE key = 'run') AS run,
  (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'schema_version') AS schema_version;
CREATE VIEW decided AS
  SELECT {_DECIDED} FROM decisions d
  CROSS JOIN alike ON alike.number = d.alike LEFT JOIN shown ON shown.number = d.shown;
CREATE VIEW said AS SELECT
  o.number, o.number / {PLACES["outputs"]} AS decision, o.number % {PLACES["outputs"]} AS place,
  {_SAID} FROM outputs o CROSS JOIN made ON made.number = o.made;
CREATE VIEW foretold AS SELECT
  f.number, f.number / {PLACES["forecasts"]} AS decision, f.number % {PLACES["forecasts"]} AS place,
  model, id, {_FORETOLD} FROM forecasts f CROSS JOIN outputs o
  ON o.number = f.number / {PLACES["forecasts"]} * {PLACES["outputs"]} + f.output;
CREATE VIEW closed AS SELECT
  c.number, whose.name AS symbol, of.name AS stream, ts_ns, event_ns, flags, cells,
  CASE typeof(cells_layout) WHEN 'integer' THEN '<f8[' || cells_layout || ']' ELSE cells_layout END
  AS cells_layout
  FROM closed_rows c JOIN names whose ON whose.number = c.symbol
  JOIN names of ON of.number = c.stream;
CREATE VIEW newest AS SELECT symbol, model, max(event_ns) AS event_ns, decision FROM (
  SELECT symbol, model, event_ns, decision FROM last UNION ALL
  SELECT symbol, o.model, event_ns, d.number FROM decisions d
  CROSS JOIN outputs o ON {_of_sql("o", "outputs", "d.number")}
  WHERE d.number > (SELECT coalesce(max(reached), 0) FROM edges WHERE series = 'decision'))
  GROUP BY symbol, model;
CREATE VIEW inferences AS SELECT
  d.number, o.number AS position, lower(hex(o.id)) AS id, run.*, trace_id, symbol, reference,
  model, version, event_ns, received_ns, decided_at_ns, window_version, input_hash, spec_version,
  config_hash, o.action, p_buy, p_sell, p_hold, o.confidence, o.utility_r,
  hidden, hidden_layout, weights, d.action AS decision_action,
  d.confidence AS decision_confidence, d.utility_r AS decision_utility_r,
  reason AS decision_reason, entry_threshold, exit_threshold, substitutions,
  last_trade_id, last_book_id, timeframes, completeness, validation
  FROM run, decided d CROSS JOIN outputs o ON {_of_sql("o", "outputs", "d.number")}
  CROSS JOIN made ON made.number = o.made;
CREATE VIEW predictions AS SELECT
  d.number, f.number AS position, lower(hex(o.id)) AS inference_id, run.*, symbol, o.model,
  timeframe, level, event_ns, kind, p_high, p_low, pivot_ns,
  bars_ahead, price, move, p_done, f.confidence
  FROM run, decisions d CROSS JOIN forecasts f ON {_of_sql("f", "forecasts", "d.number")}
  CROSS JOIN outputs o ON o.number = d.number * {PLACES["outputs"]} + f.output;
CREATE VIEW packages AS SELECT
  number, number AS position, run.*, symbol, reference, event_ns, window_version, input_hash,
  spec_version, own, streams, forming, forming_layout, peer_slots, peers, peers_layout,
  awake, awake_layout, account, account_layout, substitutions, scale, scale_layout
  FROM run, decided;
CREATE VIEW rows AS SELECT
  number, number AS position, run.*, symbol, stream, ts_ns, event_ns, flags, cells, cells_layout
  FROM run, closed;
CREATE VIEW outcomes AS SELECT
  number, number AS position, lower(hex(inference_id)) AS inference_id, run.*, symbol, model,
  event_ns, known_ns, timeframe, level, version, unit, ended_ns, price, move, hit, kind,
  bars, p_done, action, reason, result, result_long, result_short
  FROM run, settled;
"""
    + "".join(map(_note_view_sql, NOTES))
)
NUM_VALUES = {
    "settled": 21,
    **{f"noted_{table}": len(note_columns(table)) for table in NOTES},
}
