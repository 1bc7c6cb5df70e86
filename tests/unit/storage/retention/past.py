"""A home with a past made by hand: decisions of two symbols, the older ones answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from alphapulse.config import Settings, Storage
from alphapulse.domain.inference import DecisionRecord, StreamRef, inference_id
from alphapulse.domain.market import SECOND_NS
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.tables import COLUMNS, KEYS
from tests.unit.storage.records import START_NS, SYMBOLS, instant, outcome, record

MODELS = ("rl", "cnn", "moe")
SHOWN = 3  # rows of each stream an input shows
OWNED = ("packages", "inferences", "predictions", "outcomes", "examples")


def start(home: Home) -> Run:
    """Open the next run of a home."""
    return home.open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=True,
    )


def sliding(second: int, *, symbol: str, run: str) -> DecisionRecord:
    """Return a decision whose input shows the newest rows of its own symbol alone."""
    made = record(second, symbol=symbol, run=run)
    event_ns = instant(second)
    first_ns = max(event_ns - (SHOWN - 1) * SECOND_NS, START_NS)
    count = (event_ns - first_ns) // SECOND_NS + 1
    streams = (
        StreamRef(symbol, "1s", first_ns - SECOND_NS, event_ns - SECOND_NS, count),
        StreamRef(symbol, "book", first_ns, event_ns, count),
    )
    return replace(made, package=replace(made.package, streams=streams))


def example(second: int, model: str, *, symbol: str, run: str, loss: float) -> dict[str, Any]:
    """Return the label of an inference."""
    event_ns = instant(second)
    return {
        "inference_id": inference_id(run=run, symbol=symbol, event_ns=event_ns, model=model),
        "symbol": symbol,
        "model": model,
        "event_ns": event_ns,
        "known_ns": event_ns + SECOND_NS,
        "version": 1,
        "state": "resolved",
        "hit": 1.0,
        "loss": loss,
        "stratum": f"{symbol}|{model}",
    }


def order(second: int, *, symbol: str, run: str) -> dict[str, Any]:
    """Return the link of an order to the cnn's inference at an instant."""
    event_ns = instant(second)
    return {
        "order_id": f"order-{second}",
        "inference_id": inference_id(run=run, symbol=symbol, event_ns=event_ns, model="cnn"),
        "symbol": symbol,
        "event_ns": event_ns,
        "purpose": "entry",
    }


def fill(
    history: InferenceHistory, run: Run, *, seconds: int, answered: int, ordered: Sequence[int] = ()
) -> None:
    """Append decisions of both symbols a second, label the first `answered`, and flush.

    The loss of a decision falls with time: within a day the newest are of the least value.
    """

    async def go() -> None:
        for second in range(seconds):
            await history.append([sliding(second, symbol=s, run=run.id) for s in SYMBOLS])
        for second in range(answered):
            await history.settle([outcome(second, symbol=s, run=run.id) for s in SYMBOLS])
            labels = [
                example(second, model, symbol=symbol, run=run.id, loss=1 / (second + 1))
                for symbol in SYMBOLS
                for model in MODELS
            ]
            await history.note("examples", labels)
        if answered < seconds:  # the next one has its first answers: it stays pending
            await history.settle([outcome(answered, symbol=s, run=run.id) for s in SYMBOLS])
            first = [example(answered, "cnn", symbol=s, run=run.id, loss=0.0) for s in SYMBOLS]
            await history.note("examples", first)
        if ordered:
            links = [order(second, symbol=SYMBOLS[0], run=run.id) for second in ordered]
            await history.note("orders", links)
        await history.flush()

    asyncio.run(go())


def made(path: Path, *, seconds: int = 12, answered: int = 8, ordered: Sequence[int] = ()) -> Run:
    """Make a home with one run, whose source has ended, and return the run."""
    home = Home(path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())
    fill(history, run, seconds=seconds, answered=answered, ordered=ordered)
    asyncio.run(history.mark_ended(instant(seconds)))
    history.close()
    return run


def stored(path: Path, table: str) -> pa.Table:
    """Return what the lake of a home holds of a table, and its journals after that."""
    lake, found = Lake(str(path / "lake")), [in_lake(path / "lake", table)]
    for file in sorted(path.glob("runs/*/journal.sqlite")):
        journal = JournalReader(file)
        (batch,) = lake.read(table, writers=[journal.name()])[1]
        recent = journal.select(table, after=journal.reached(batch, table))
        found.append(arrow_table(table, recent))
        journal.close()
    return pa.concat_tables(found).sort_by([(key, "ascending") for key in KEYS[table]])


def in_lake(uri: Path, table: str) -> pa.Table:
    """Return every row a lake holds of a table, in the order of its key."""
    found, _ = Lake(str(uri)).read(table, writers=[])
    if found is None:
        return arrow_table(table, [])
    keys = [(key, "ascending") for key in KEYS[table]]
    return found.to_table(columns=list(COLUMNS[table])).sort_by(keys)


def bits(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table, floats as their bits."""
    columns = [
        pa.chunked_array([c.view(pa.int64()) for c in column.chunks], pa.int64())
        if pa.types.is_float64(column.type)
        else column
        for column in table.columns
    ]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return sorted(rows, key=repr)


def seconds(table: pa.Table) -> dict[str, list[int]]:
    """Return the seconds of the decisions in a table, by symbol."""
    found: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
    for symbol, event_ns in zip(
        table["symbol"].to_pylist(), table["event_ns"].to_pylist(), strict=True
    ):
        found[symbol].add((event_ns - instant(0)) // 10**9)
    return {symbol: sorted(times) for symbol, times in found.items()}


def everything(path: Path) -> dict[str, Counter[Any]]:
    """Return every row of a home and its archive, with how often it is there."""
    return {
        table: Counter(bits(stored(path, table)) + bits(in_lake(path / "archive", table)))
        for table in OWNED
    }
