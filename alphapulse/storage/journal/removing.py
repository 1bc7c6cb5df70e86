"""Remove decisions from a journal, and what then is named by none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from alphapulse.storage.journal.schema import PIECES, PLACES

_NAMED = " UNION ".join(
    f"SELECT {name} FROM decisions WHERE {name} IS NOT NULL"
    for names in PIECES.values()
    for name in names
)
_UNNAMED = (
    f"WITH named AS ({_NAMED}) SELECT number FROM pieces WHERE number NOT IN named "
    "AND number NOT IN (SELECT anchor FROM pieces WHERE anchor IS NOT NULL AND number IN named)"
)


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


def sweep(db: sqlite3.Connection) -> None:
    """Remove the pieces that no decision names and none named leans on, in one transaction.

    While the newest decision of every symbol stays, so does all that a writer knows.
    """
    db.execute(f"DELETE FROM pieces WHERE number IN ({_UNNAMED})")


def unnamed(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of the pieces a sweep would remove; a writer beside it need not wait.

    None of them is ever named again, whatever it appends meanwhile: it names new pieces and those
    it knows, and these stay with the newest decision of every symbol.
    """
    return [number for (number,) in db.execute(_UNNAMED)]
