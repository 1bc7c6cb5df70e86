"""Faults planted in the history inside every writer, to see that the harness notices them.

Each is a connection that changes what the journal's statements do, or a call that changes what
deltalake's do. A journal with synchronous=OFF is not among them: what a killed process has
written is the system's to keep, so only a power failure would show it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from alphapulse.storage.lake import delta

Connection = type[sqlite3.Connection]


class LateCommits(sqlite3.Connection):
    """Acknowledges nine of ten transactions before they are committed."""

    _num_commits = 0

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Leave transactions open, and join the open one."""
        if self.in_transaction and sql.startswith(("BEGIN", "PRAGMA synchronous")):
            sql, values = "SELECT 1", ()
        if sql == "COMMIT":
            self._num_commits += 1
            if self._num_commits % 10:
                sql = "SELECT 1"
        return super().execute(sql, *values)


class Replacing(sqlite3.Connection):
    """Lets a decision that comes again take the place of the stored one, and says it is not new."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Replace where the journal leaves alone."""
        found = super().execute(sql, *values)
        if sql.startswith("SELECT 1 FROM decisions") and found.fetchone():
            super().execute(
                "UPDATE decisions SET number = (SELECT max(number) + 1 FROM decisions) "
                "WHERE event_ns = ? AND symbol = ?",
                *values,
            )
            return super().execute("SELECT 1")
        return found


class InTwoPieces(sqlite3.Connection):
    """Commits a decision before what its models said."""

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """End the transaction half way."""
        if sql.startswith("INSERT INTO outputs"):
            super().execute("COMMIT")
            super().execute("BEGIN IMMEDIATE")
        return super().executemany(sql, *values)


class Forgetful(sqlite3.Connection):
    """Keeps the name of a batch to itself until the next one is named."""

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Write names to a table of this connection alone, which hides the journal's."""
        if sql.startswith("INSERT INTO edges"):
            super().execute("CREATE TEMP TABLE IF NOT EXISTS edges AS SELECT * FROM main.edges")
            super().execute("INSERT OR IGNORE INTO main.edges SELECT * FROM temp.edges")
        return super().executemany(sql, *values)


def _batch_without_its_number() -> Connection:
    """Commit a batch first, and that it is there afterwards."""
    write = delta.write_deltalake

    def write_twice(table: Any, rows: Any, *, commit_properties: Any, **named: Any) -> None:
        write(table, rows, **named)
        write(table, rows.schema.empty_table(), commit_properties=commit_properties, **named)

    delta.write_deltalake = write_twice
    return sqlite3.Connection


# By name, what makes the connections of a writer, and what the harness must see of it, any of them:
# a batch under a forgotten name comes twice, or its rows are missed, whichever is seen first.
PLANTS: Mapping[str, tuple[Callable[[], Connection], tuple[str, ...]]] = {
    "late-commits": (lambda: LateCommits, ("lost",)),
    "replacing": (lambda: Replacing, ("lost",)),
    "in-two-pieces": (lambda: InTwoPieces, ("half",)),
    "forgotten-names": (lambda: Forgetful, ("lost", "doubled")),
    "batch-without-its-number": (_batch_without_its_number, ("doubled",)),
}
