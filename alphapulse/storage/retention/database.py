"""Keep open the database that compares and counts: a round asks it hundreds of times."""

from __future__ import annotations

from functools import cache

import duckdb


def cursor() -> duckdb.DuckDBPyConnection:
    """Return a connection of its own to it; whoever asks closes it, and what it made is gone."""
    return _opened().cursor()


@cache
def _opened() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})  # beside the run: one core is enough
