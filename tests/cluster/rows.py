"""Read what a home keeps, less what the wall clock wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pandas as pd

from alphapulse.config import load_settings
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home

WALL_CLOCK = ["decided_at_ns"]


def rows_of(home: Path, table: str = "inferences") -> pd.DataFrame:
    history = InferenceHistory(Home(home), settings=load_settings(home, environ={}).storage)
    frame = asyncio.run(history.query(Query(table=table)))
    history.close()
    return frame.drop(columns=[c for c in WALL_CLOCK if c in frame])
