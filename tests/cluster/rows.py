"""Read what a home keeps, less what the wall clock wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd

from alphapulse.config import load_settings
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.interfaces import Query
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home

WALL_CLOCK = ["decided_at_ns"]
EVERYTHING = 1_000_000


def rows_of(home: Path, table: str = "inferences") -> pd.DataFrame:
    history = InferenceHistory(Home(home), settings=load_settings(home, environ={}).storage)
    frame = asyncio.run(history.query(Query(table=table)))
    history.close()
    return frame.drop(columns=[c for c in WALL_CLOCK if c in frame])


def noted(home: Path, table: str) -> list[dict[str, Any]]:
    """Return every row of a table that is kept beside the inferences, in journal and lake."""
    lake_uri = load_settings(home, environ={}).storage.lake_uri or str(home / "lake")
    reader = HistoryReader(runs=home / "runs", lake_uri=lake_uri)
    found = reader.fetch(table, {})
    reader.close()
    return found


def ledger_of(home: Path, number: int = 1) -> LedgerReader:
    return LedgerReader(Home(home).run(number).path / "ledger.sqlite")


def traded(ledger: LedgerReader) -> dict[str, list[dict[str, Any]]]:
    """Return every row of orders, fills and steps."""
    return {
        "orders": ledger.orders(limit=EVERYTHING),
        "fills": ledger.fills(limit=EVERYTHING),
        "steps": ledger.equity(limit=EVERYTHING),
    }
