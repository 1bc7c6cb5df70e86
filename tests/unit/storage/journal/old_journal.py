"""A journal from before outcomes and users' indicators were kept: its SQL, records of today."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from alphapulse.domain.inference import DecisionRecord
from alphapulse.storage.journal.writer import Journal
from tests.unit.storage.records import RUN

SQL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (
  number INTEGER PRIMARY KEY, event_ns INTEGER NOT NULL, symbol TEXT NOT NULL,
  reference TEXT NOT NULL, trace_id TEXT NOT NULL, received_ns INTEGER NOT NULL,
  decided_at_ns INTEGER NOT NULL, window_version INTEGER NOT NULL, input_hash TEXT NOT NULL,
  spec_version INTEGER NOT NULL, config_hash TEXT NOT NULL,
  action TEXT NOT NULL, confidence, utility_r, reason TEXT NOT NULL,
  entry_threshold, exit_threshold, substitutions BLOB NOT NULL,
  last_trade_id INTEGER NOT NULL, last_book_id INTEGER NOT NULL,
  streams BLOB NOT NULL, forming BLOB NOT NULL, forming_layout TEXT NOT NULL,
  peer_slots TEXT NOT NULL, peers BLOB NOT NULL, peers_layout TEXT NOT NULL,
  awake BLOB NOT NULL, awake_layout TEXT NOT NULL,
  account BLOB NOT NULL, account_layout TEXT NOT NULL,
  UNIQUE (event_ns, symbol));
CREATE TABLE outputs (
  decision INTEGER NOT NULL, id BLOB NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
  action TEXT NOT NULL, p_buy, p_sell, p_hold, confidence, utility_r,
  hidden BLOB NOT NULL, hidden_layout TEXT NOT NULL, weights TEXT NOT NULL,
  UNIQUE (decision, model));
CREATE TABLE forecasts (
  decision INTEGER NOT NULL, model TEXT NOT NULL, timeframe TEXT NOT NULL, level INTEGER NOT NULL,
  kind TEXT NOT NULL, p_high, p_low, pivot_ns INTEGER NOT NULL,
  bars_ahead, price, move, p_done, confidence,
  UNIQUE (decision, model, timeframe, level));
CREATE TABLE closed_rows (
  number INTEGER PRIMARY KEY, symbol TEXT NOT NULL, stream TEXT NOT NULL, ts_ns INTEGER NOT NULL,
  event_ns INTEGER NOT NULL, flags INTEGER NOT NULL,
  cells BLOB NOT NULL, cells_layout TEXT NOT NULL,
  UNIQUE (symbol, stream, ts_ns));
CREATE TABLE last (
  symbol TEXT NOT NULL, model TEXT NOT NULL, event_ns INTEGER NOT NULL, decision INTEGER NOT NULL,
  PRIMARY KEY (symbol, model)) WITHOUT ROWID;
CREATE TABLE batches (
  number INTEGER PRIMARY KEY, to_decision INTEGER NOT NULL, to_row INTEGER NOT NULL);

CREATE VIEW run AS SELECT
  (SELECT value FROM meta WHERE key = 'run') AS run,
  (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'schema_version') AS schema_version;
CREATE VIEW inferences AS SELECT
  d.number, o.rowid AS position, lower(hex(o.id)) AS id, run.*, trace_id, symbol, reference,
  model, version, event_ns, received_ns, decided_at_ns, window_version, input_hash, spec_version,
  config_hash, o.action, p_buy, p_sell, p_hold, o.confidence, o.utility_r,
  hidden, hidden_layout, weights, d.action AS decision_action,
  d.confidence AS decision_confidence, d.utility_r AS decision_utility_r,
  reason AS decision_reason, entry_threshold, exit_threshold, substitutions,
  last_trade_id, last_book_id
  FROM run, decisions d JOIN outputs o ON o.decision = d.number;
CREATE VIEW predictions AS SELECT
  d.number, f.rowid AS position, lower(hex(o.id)) AS inference_id, run.*, symbol, f.model,
  timeframe, level, event_ns, kind, p_high, p_low, pivot_ns,
  bars_ahead, price, move, p_done, f.confidence
  FROM run, decisions d JOIN outputs o ON o.decision = d.number
  JOIN forecasts f ON f.decision = d.number AND f.model = o.model;
CREATE VIEW packages AS SELECT
  number, number AS position, run.*, symbol, reference, event_ns, window_version, input_hash,
  spec_version, streams, forming, forming_layout, peer_slots, peers, peers_layout,
  awake, awake_layout, account, account_layout, substitutions
  FROM run, decisions;
CREATE VIEW rows AS SELECT
  number, number AS position, run.*, symbol, stream, ts_ns, event_ns, flags, cells, cells_layout
  FROM run, closed_rows;
"""
TABLES = ("decisions", "outputs", "forecasts", "closed_rows", "last")
TODAY = {
    "decisions": "decided",
    "outputs": "said",
    "forecasts": "foretold",
    "closed_rows": "closed",
}
# What today's journal keeps elsewhere.
MOVED = """
INSERT INTO meta SELECT * FROM today.meta WHERE key IN ('run', 'journal');
INSERT INTO meta VALUES ('schema_version', '1');
INSERT INTO batches SELECT batch, max(reached) FILTER (WHERE series = 'decision'),
  max(reached) FILTER (WHERE series = 'row') FROM today.edges GROUP BY batch;
"""


def make_old_journal(path: Path, records: Sequence[DecisionRecord], *, run: str = RUN) -> None:
    """Write a journal of the old schema that holds `records`, the first of them in a batch."""
    today = path.with_suffix(".today")
    journal = Journal(today, run=run)
    journal.append(records[:1])
    journal.name_batch(max_decisions=1)
    journal.append(records)
    journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(f"BEGIN;{SQL}COMMIT;")
        db.execute("ATTACH ? AS today", (str(today),))
        for table in TABLES:
            names = ", ".join(column[1] for column in db.execute(f"PRAGMA table_info({table})"))
            source = TODAY.get(table, table)
            db.execute(f"INSERT INTO {table} SELECT {names} FROM today.{source}")
        db.executescript(MOVED)
    for file in path.parent.glob(f"{today.name}*"):
        file.unlink()
