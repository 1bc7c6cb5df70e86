"""Inputs of recorded decisions come back bit for bit from what the history keeps of them."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import (
    Action,
    Decision,
    DecisionPoint,
    DecisionRecord,
    ModelInput,
    Thresholds,
    inference_id,
    trace_id,
)
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from tests.unit.storage.records import prediction

NUM_POINTS = 6


def records_of(point: DecisionPoint, *, run: str) -> list[DecisionRecord]:
    """Return the records of both symbols; outputs are made by hand, inputs are the recording's."""
    made = []
    for symbol, package in point.packages.items():
        outputs = tuple(
            prediction(model, symbol=symbol, event_ns=point.event_ns, hidden=hidden)
            for model, hidden in (("cnn", 48), ("rl", 32), ("moe", 16))
        )
        made.append(
            DecisionRecord(
                run=run,
                trace_id=trace_id(run=run, symbol=symbol, event_ns=point.event_ns),
                config_hash=Settings().hash,
                last_trade_id=point.last_trade_id.get(symbol, 0),
                last_book_id=point.last_book_id.get(symbol, 0),
                received_ns=point.received_ns,
                decided_at_ns=point.received_ns,
                package=package,
                rows=() if made else point.rows,
                decision=Decision(
                    symbol,
                    point.event_ns,
                    Action.HOLD,
                    0.5,
                    0.0,
                    "below_entry",
                    Thresholds(),
                    outputs,
                ),
            )
        )
    return made


async def replayed(recordings: Path, history: InferenceHistory, run: Run) -> dict[str, ModelInput]:
    """Append the first decisions of the recording, half of them flushed; return inputs by id."""
    settings = Settings()
    instruments = settings.market.instruments
    feed = MarketFeed(Tape(recordings, instruments), instruments, settings.feed)
    await feed.open()
    inputs: dict[str, ModelInput] = {}
    for number in range(NUM_POINTS):
        point = await feed.advance()
        assert point is not None
        made = records_of(point, run=run.id)
        await history.append(made)
        feed.put_outputs(output for record in made for output in record.decision.predictions)
        for symbol, input in point.inputs.items():
            assert isinstance(input, ModelInput)
            identity = {"symbol": symbol, "event_ns": point.event_ns, "model": "rl"}
            inputs[inference_id(run=run.id, **identity)] = input  # type: ignore[arg-type]
        if number == NUM_POINTS // 2:
            await history.flush()
    return inputs


def assert_rebuilt(history: InferenceHistory, inputs: dict[str, ModelInput]) -> None:
    for id_, input in inputs.items():
        rebuilt = asyncio.run(history.rebuild(id_))
        assert rebuilt.content_hash == input.content_hash
        for name in input.spec.shapes():
            assert getattr(rebuilt, name).tobytes() == getattr(input, name).tobytes(), name


def test_recorded_inputs_are_rebuilt_from_journal_and_from_lake(
    recordings: Path, tmp_path: Path
) -> None:
    home, settings = Home(tmp_path), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)

    inputs = asyncio.run(replayed(recordings, history, run))

    assert len(inputs) == 2 * NUM_POINTS
    assert_rebuilt(history, inputs)
    asyncio.run(history.flush())
    history.close()
    run.journal_path.unlink()
    lake = InferenceHistory(home, settings=settings.storage)
    assert len(asyncio.run(lake.query(Query()))) == 3 * len(inputs)
    assert_rebuilt(lake, dict(list(inputs.items())[-2:]))


def test_an_input_whose_rows_were_lost_is_not_rebuilt(recordings: Path, tmp_path: Path) -> None:
    home, settings = Home(tmp_path), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)

    async def append_without_rows() -> str:
        instruments = settings.market.instruments
        feed = MarketFeed(Tape(recordings, instruments), instruments, settings.feed)
        await feed.open()
        point = await feed.advance()
        assert point is not None
        (first, _) = records_of(point, run=run.id)
        await history.append([dataclasses.replace(first, rows=())])
        symbol, event_ns = first.decision.symbol, point.event_ns
        return inference_id(run=run.id, symbol=symbol, event_ns=event_ns, model="cnn")

    lost = asyncio.run(append_without_rows())

    with pytest.raises(StoreError, match="stored rows, was 0"):
        asyncio.run(history.rebuild(lost))
    history.close()
