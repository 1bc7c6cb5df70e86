"""The feed reaches every decision instant once, and nothing after an instant is in its input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import Action, DecisionPoint, Prediction
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import SECOND_NS, BarFlag, BookDelta, MarketEvent, Timeframe

INSTRUMENTS = Market().instruments
ETH, BTC = (instrument.symbol for instrument in INSTRUMENTS)


def at(time: str) -> int:
    return int(pd.Timestamp(f"{time}Z").value)


FIRST, LAST = at("2024-08-08T23:54:17"), at("2024-08-09T00:05:05")
BEFORE_MIDNIGHT, AFTER_MIDNIGHT = at("2024-08-08T23:59:57"), at("2024-08-09T00:00:02")


class Seen(NamedTuple):
    """What is compared between runs; whole points would fill the memory."""

    hashes: dict[str, str]
    version: int
    rows: tuple[tuple[str, str, int], ...]
    is_complete: bool


def seen(point: DecisionPoint) -> Seen:
    inputs = point.inputs.values()
    hashes = {i.symbol: i.content_hash for i in inputs if isinstance(i, ModelInput)}
    rows = tuple((row.symbol, row.stream, row.ts_ns) for row in point.rows)
    is_complete = len(hashes) == 2 and set(point.packages) == set(hashes)
    return Seen(hashes, point.window_version, rows, is_complete)


async def run(feed: MarketFeed, *, skip_to: int | None = None) -> dict[int, Seen]:
    await feed.open()
    if skip_to is not None:
        await feed.skip_to(skip_to)
    points = {}
    while (point := await feed.advance()) is not None:
        points[point.event_ns] = seen(point)
    return points


def feed_of(tape: Tape) -> MarketFeed:
    return MarketFeed(tape, INSTRUMENTS, Feed())


@pytest.fixture(scope="module")
def whole(recordings: Path) -> tuple[MarketFeed, dict[int, Seen]]:
    feed = feed_of(Tape(recordings, INSTRUMENTS))
    return feed, asyncio.run(run(feed))


def test_every_second_of_the_recording_is_an_instant_with_both_inputs_complete(
    whole: tuple[MarketFeed, dict[int, Seen]],
) -> None:
    points = whole[1]

    assert list(points) == list(range(FIRST, LAST + 1, SECOND_NS))
    assert len(points) == 649
    assert all(point.is_complete for point in points.values())


def test_every_row_is_handed_out_once_and_versions_rise_by_one(
    whole: tuple[MarketFeed, dict[int, Seen]],
) -> None:
    points = whole[1].values()

    rows = [row for point in points for row in point.rows]
    assert len(rows) == len(set(rows))
    assert [point.version for point in points] == list(range(1, 650))


def test_counters_tell_what_was_taken_and_what_was_refused(
    whole: tuple[MarketFeed, dict[int, Seen]],
) -> None:
    counters = whole[0].counters()

    assert counters["bars"] == {"1s": 2 * 649, "1m": 2 * 11, "1h": 2, "1d": 2}
    assert (counters["late"], counters["quarantined"]) == ({}, {})
    states = whole[0].cache.snapshot()["symbols"].values()
    wanted = {"venue_compared": 10, "venue_mismatch": 0}  # the whole minutes equal the published
    assert [state["venue_candles"] for state in states] == [wanted] * 2


class Stuttering(Tape):
    """A recording that says every fiftieth event twice."""

    async def events(self) -> AsyncIterator[MarketEvent]:
        number = 0
        async for event in super().events():
            number += 1
            yield event
            if number % 50 == 0:
                yield event


def test_event_that_comes_twice_is_counted_and_changes_no_input(
    recordings: Path, whole: tuple[MarketFeed, dict[int, Seen]]
) -> None:
    tape = Stuttering(recordings, INSTRUMENTS, until_ns=FIRST + 31 * SECOND_NS)
    feed = feed_of(tape)

    points = asyncio.run(run(feed))

    assert points == {ns: whole[1][ns] for ns in points}
    refused = feed.counters()["quarantined"]
    assert list(refused) == ["duplicate"]
    assert refused["duplicate"] >= 20
    told = asyncio.run(feed.view("snapshot"))["refused"]
    assert refused["duplicate"] - 10 <= told["duplicate"] <= refused["duplicate"]


class Crossed(Tape):
    """A recording that first says each book upside down, and hears what is asked of it."""

    def __init__(self, folder: Path, until_ns: int) -> None:
        super().__init__(folder, INSTRUMENTS, until_ns=until_ns)
        self.asked: list[tuple[str, int]] = []

    async def events(self) -> AsyncIterator[MarketEvent]:
        async for event in super().events():
            if isinstance(event, BookDelta) and event.is_snapshot:
                yield replace(event, bids_L2=event.asks_L2, asks_L2=event.bids_L2)
            yield event

    def refresh_book(self, symbol: str, last_id: int) -> None:
        self.asked.append((symbol, last_id))


def test_whole_book_that_is_refused_is_asked_for_again(
    recordings: Path, whole: tuple[MarketFeed, dict[int, Seen]]
) -> None:
    tape = Crossed(recordings, until_ns=FIRST + 5 * SECOND_NS)
    feed = feed_of(tape)

    points = asyncio.run(run(feed))

    assert feed.counters()["quarantined"] == {"crossed": 2}
    assert sorted(symbol for symbol, _ in tape.asked) == [BTC, ETH]
    assert points == {ns: whole[1][ns] for ns in points}


def test_nothing_after_an_instant_changes_its_input(
    recordings: Path, whole: tuple[MarketFeed, dict[int, Seen]]
) -> None:
    tape = Tape(recordings, INSTRUMENTS, until_ns=FIRST + 61 * SECOND_NS + 1)

    cut = asyncio.run(run(feed_of(tape)))

    assert len(cut) >= 60
    assert cut == {ns: whole[1][ns] for ns in cut}


def test_run_that_skips_goes_on_as_if_it_had_not_been_interrupted(
    recordings: Path, whole: tuple[MarketFeed, dict[int, Seen]]
) -> None:
    tape = Tape(recordings, INSTRUMENTS, until_ns=AFTER_MIDNIGHT + SECOND_NS)

    resumed = asyncio.run(run(feed_of(tape), skip_to=BEFORE_MIDNIGHT))

    assert list(resumed) == list(range(BEFORE_MIDNIGHT + SECOND_NS, AFTER_MIDNIGHT + 1, SECOND_NS))
    assert resumed == {ns: whole[1][ns] for ns in resumed}


def test_candles_alone_give_an_instant_at_every_close_without_seconds(recordings: Path) -> None:
    start = at("2024-08-08T23:58:00")
    tape = Tape(
        recordings,
        INSTRUMENTS,
        with_ticks=False,
        from_ns=start,
        until_ns=start + 4 * Timeframe.M1.ns,
    )

    async def points() -> list[DecisionPoint]:
        feed = feed_of(tape)
        await feed.open()
        found = []
        while (point := await feed.advance()) is not None:
            found.append(point)
        return found

    found = asyncio.run(points())

    assert [point.event_ns - start for point in found] == [i * Timeframe.M1.ns for i in range(1, 5)]
    for point in found:
        for symbol in (ETH, BTC):
            input = point.inputs[symbol]
            assert isinstance(input, ModelInput)
            assert not input.flags_SFT[:, 0].any()
            forming = input.flags_SFT[0, 1:, -1]
            assert (forming & BarFlag.FORMING).all()
            assert not (forming & BarFlag.PARTIAL).any()


def recorder(log: list[float]) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        log.append(seconds)

    return sleep


def test_pace_only_waits(recordings: Path, whole: tuple[MarketFeed, dict[int, Seen]]) -> None:
    slept: list[float] = []
    tape = Tape(recordings, INSTRUMENTS, until_ns=FIRST + 4 * SECOND_NS)
    feed = MarketFeed(tape, INSTRUMENTS, Feed(), sleep=recorder(slept), clock=lambda: 100.0)
    feed.pace(2.0)

    points = asyncio.run(run(feed))

    assert slept == [0.5, 1.0, 1.5]
    assert points == {ns: whole[1][ns] for ns in range(FIRST, FIRST + 4 * SECOND_NS, SECOND_NS)}


def test_outputs_are_the_peers_of_the_next_decision(recordings: Path) -> None:
    tape = Tape(recordings, INSTRUMENTS, until_ns=FIRST + 2 * SECOND_NS)

    async def two() -> tuple[DecisionPoint, DecisionPoint]:
        feed = feed_of(tape)
        await feed.open()
        first = await feed.advance()
        assert first is not None
        feed.put_outputs([prediction(first.event_ns)])
        second = await feed.advance()
        assert second is not None
        return first, second

    first, second = asyncio.run(two())

    inputs = [point.inputs[symbol] for point in (first, second) for symbol in (ETH, BTC)]
    assert [i.awake_K.sum() for i in inputs if isinstance(i, ModelInput)] == [0, 0, 1, 0]


def prediction(event_ns: int) -> Prediction:
    return Prediction(
        model="cnn",
        version="0",
        symbol=ETH,
        event_ns=event_ns,
        action=Action.HOLD,
        p_buy=0.25,
        p_sell=0.25,
        p_hold=0.5,
        confidence=0.5,
        utility_r=0.0,
        hidden_H=np.zeros(4, np.float32),
    )


def test_advance_before_open_says_so(recordings: Path) -> None:
    feed = feed_of(Tape(recordings, INSTRUMENTS, until_ns=FIRST))

    with pytest.raises(Unavailable, match="open"):
        asyncio.run(feed.advance())
