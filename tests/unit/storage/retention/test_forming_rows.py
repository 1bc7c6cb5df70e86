"""Forming rows stay in the lake while an input shows them, and go with the last one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from alphapulse.config import Storage
from alphapulse.domain.inference import DecisionRecord, StreamRef
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.retention.pruning import Pruning
from tests.unit.storage.records import SYMBOLS, instant, record
from tests.unit.storage.retention.past import (
    MODELS,
    example,
    in_lake,
    order,
    seconds,
    start,
)

NUM = 8
ORDERED = (2, 3)  # of the first symbol alone
ROOM = 10**12


def showing(second: int, symbol: str, run: str) -> DecisionRecord:
    """Return a decision whose input shows the forming rows of both symbols."""
    made = record(second, symbol=symbol, run=run)
    refs = (
        StreamRef(one, "1m", 0, -1, 0, instant(second), 7, np.full(4, place + second * 1.5))
        for place, one in enumerate(SYMBOLS)
    )
    return replace(made, package=replace(made.package, streams=tuple(refs)))


def forming(lake: Path) -> dict[str, list[int]]:
    rows = in_lake(lake, "rows")
    return seconds(rows.filter(pc.equal(rows["stream"], STREAM)))


def packages(lake: Path) -> dict[tuple[int, str], bytes]:
    reader = HistoryReader(runs=lake / "none", lake_uri=str(lake))
    found = reader.fetch("packages", {})
    reader.close()
    return {(row["event_ns"], row["symbol"]): row["forming"] for row in found}


def test_they_go_with_the_last_input_that_shows_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())

    async def fill() -> None:
        for second in range(NUM):
            await history.append([showing(second, symbol, run.id) for symbol in SYMBOLS])
            labels = [
                example(second, model, symbol=symbol, run=run.id, loss=0.5)
                for symbol in SYMBOLS
                for model in MODELS
            ]
            await history.note("examples", labels)
        links = [order(second, symbol=SYMBOLS[0], run=run.id) for second in ORDERED]
        await history.note("orders", links)
        await history.flush()
        await history.mark_ended(instant(NUM))

    asyncio.run(fill())
    history.close()
    lake, archive = tmp_path / "lake", tmp_path / "archive"
    before = packages(lake)

    Pruning(
        home,
        lake=Lake(str(lake)),
        settings=Storage(max_decisions=4, audit_share=0.0),
        disk=lambda _: (ROOM, ROOM),
    ).prune()

    left, gone = packages(lake), packages(archive)
    assert seconds(in_lake(lake, "packages")) == {
        SYMBOLS[0]: [2, 3, NUM - 1],
        SYMBOLS[1]: [NUM - 1],
    }
    # at second 2 and 3 the first symbol's input shows the second's forming rows
    assert forming(lake) == {symbol: [2, 3, NUM - 1] for symbol in SYMBOLS}
    assert forming(archive) == {symbol: list(range(NUM - 1)) for symbol in SYMBOLS}
    assert left | gone == before
