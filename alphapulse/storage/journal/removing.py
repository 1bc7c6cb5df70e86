"""Remove decisions from a journal; what only they shared is left to `sharing.sweep`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from alphapulse.storage.journal.schema import PLACES


def output_ids(db: sqlite3.Connection, decisions: Iterable[int]) -> list[bytes]:
    """Return the ids of what models said in decisions, as a journal keeps them."""
    sql = "SELECT id FROM outputs WHERE number BETWEEN ? AND ?"
    return [id_ for number in decisions for (id_,) in db.execute(sql, _span("outputs", number))]


def remove_decisions(db: sqlite3.Connection, decisions: Sequence[int]) -> None:
    """Remove decisions by their numbers, with their outputs and forecasts."""
    for table in PLACES:
        spans = [_span(table, number) for number in decisions]
        db.executemany(f"DELETE FROM {table} WHERE number BETWEEN ? AND ?", spans)
    db.executemany("DELETE FROM decisions WHERE number = ?", [(n,) for n in decisions])


def _span(table: str, decision: int) -> tuple[int, int]:
    num = PLACES[table]
    return decision * num, decision * num + num - 1
