"""Answer from a SQLite table made for the one question: an hour by index, or the newest outputs.

.venv-bench/bin/python -m experiments.benchmarks.peers.history_sqlite QUESTION DATABASE VALUES ...

QUESTION*20 asks twenty times a run.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable

import pandas as pd

from experiments.benchmarks.peers.peer import serve

HOUR = (
    "SELECT * FROM hour WHERE symbol = ? AND timeframe = ? AND event_ns >= ? AND event_ns < ? "
    "ORDER BY event_ns"
)


def main() -> None:
    """Ask the question at each line of stdin."""
    asked, database, *values = sys.argv[1:]
    question, _, times = asked.partition("*")
    db = sqlite3.connect(database)
    runs: dict[str, Callable[[], object]] = {
        "hour": lambda: pd.read_sql_query(HOUR, db, params=values),
        "last": lambda: db.execute("SELECT * FROM last WHERE symbol = ?", values).fetchall(),
    }
    one = runs[question]

    def run() -> None:
        for _ in range(int(times or 1)):
            one()

    serve(f"SQLite {sqlite3.sqlite_version}", run)


if __name__ == "__main__":
    main()
