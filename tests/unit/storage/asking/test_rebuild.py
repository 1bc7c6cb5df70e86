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
    Thresholds,
    inference_id,
    trace_id,
)
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import SECOND_NS
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


_read: dict[Path, tuple[DecisionPoint, ...]] = {}


async def points_of(recordings: Path) -> tuple[DecisionPoint, ...]:
    """Return the first instants of the recording; it is read once, nobody changes them."""
    if recordings not in _read:
        settings = Settings()
        instruments = settings.market.instruments
        feed = MarketFeed(Tape(recordings, instruments), instruments, settings.feed)
        await feed.open()
        points = []
        for _ in range(NUM_POINTS):
            point = await feed.advance()
            assert point is not None
            made = records_of(point, run="any")
            feed.put_outputs(output for record in made for output in record.decision.predictions)
            points.append(point)
        _read[recordings] = tuple(points)
    return _read[recordings]


async def one_record(recordings: Path, run: str) -> list[DecisionRecord]:
    """Return the record of the primary symbol at the recording's first instant."""
    return records_of((await points_of(recordings))[0], run=run)[:1]


async def replayed(
    recordings: Path, history: InferenceHistory, run: Run, *, has_late_row: bool = False
) -> dict[str, ModelInput]:
    """Append the first decisions of the recording, half of them flushed; return inputs by id.

    A late row is the oldest second that the first input has a slot for; the newest decision brings
    it, whose own slots begin later.
    """
    inputs: dict[str, ModelInput] = {}
    first_ns = 0
    for number, point in enumerate(await points_of(recordings)):
        made = records_of(point, run=run.id)
        first_ns = point.event_ns if number == 0 else first_ns
        if has_late_row and number == NUM_POINTS - 1:
            row = next(row for row in point.rows if row.stream == "1s")
            late = dataclasses.replace(row, ts_ns=first_ns - 300 * SECOND_NS)
            made[0] = dataclasses.replace(made[0], rows=(*made[0].rows, late))
        await history.append(made)
        for symbol, input in point.inputs.items():
            assert isinstance(input, ModelInput)
            identity = {"symbol": symbol, "event_ns": point.event_ns, "model": "rl"}
            inputs[inference_id(run=run.id, **identity)] = input  # type: ignore[arg-type]
        if number == NUM_POINTS // 2:
            await history.flush()
    return inputs


def assert_rebuilt(history: InferenceHistory, inputs: dict[str, ModelInput]) -> None:
    together = asyncio.run(history.inputs(list(inputs)))
    assert list(together) == list(inputs)
    for id_, input in inputs.items():
        rebuilt = asyncio.run(history.rebuild(id_))
        assert together[id_].content_hash == rebuilt.content_hash
        assert together[id_].price == rebuilt.price == input.price
        assert rebuilt.content_hash == input.content_hash
        for name in input.spec.shapes():
            for one in (rebuilt, together[id_]):
                assert getattr(one, name).tobytes() == getattr(input, name).tobytes(), name


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


def test_a_row_that_came_after_a_decision_is_in_no_input_before_it(
    recordings: Path, tmp_path: Path
) -> None:
    home, settings = Home(tmp_path), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)

    inputs = asyncio.run(replayed(recordings, history, run, has_late_row=True))

    assert_rebuilt(history, inputs)
    history.close()


def test_an_id_that_is_not_there_is_told(tmp_path: Path) -> None:
    history = InferenceHistory(Home(tmp_path), settings=Settings().storage)

    assert asyncio.run(history.inputs([])) == {}
    with pytest.raises(StoreError, match=r"inference 00+: not in .*list ids with"):
        asyncio.run(history.inputs(["00" * 16]))


def test_an_input_whose_rows_were_lost_is_not_rebuilt(recordings: Path, tmp_path: Path) -> None:
    home, settings = Home(tmp_path), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)

    async def append_without_rows() -> str:
        (first,) = await one_record(recordings, run.id)
        await history.append([dataclasses.replace(first, rows=())])
        symbol, event_ns = first.decision.symbol, first.decision.event_ns
        return inference_id(run=run.id, symbol=symbol, event_ns=event_ns, model="cnn")

    lost = asyncio.run(append_without_rows())

    with pytest.raises(StoreError, match="stored rows, was 0"):
        asyncio.run(history.rebuild(lost))
    history.close()
