"""The Merger keeps one order, loses nothing, and tells what came too late."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.config import Market
from alphapulse.data.merge import Merger
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import Bar, BookDelta, FeedGap, MarketEvent, Timeframe, Trade

INSTRUMENTS = Market().instruments
SYMBOLS = tuple(instrument.symbol for instrument in INSTRUMENTS)
MS = 1_000_000
WATERMARK_MS = 250


@pytest.fixture(scope="module")
def recorded(recordings: Path) -> list[MarketEvent]:
    """Return 2000 recorded events around midnight, where all streams meet."""

    async def read() -> list[MarketEvent]:
        return [event async for event in Tape(recordings, INSTRUMENTS).events()]

    events = asyncio.run(read())
    midnight = next(i for i, e in enumerate(events) if isinstance(e, Bar) and e.timeframe == "1d")
    return events[midnight - 1_000 : midnight + 1_000]


def merged(events: list[MarketEvent], merger: Merger) -> list[MarketEvent]:
    released = [ordered for event in events for ordered in merger.push(event)]
    return released + merger.flush()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_delay_within_the_watermark_gives_the_recorded_order(
    recorded: list[MarketEvent], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(recorded) - 60), label="start")
    window = recorded[start : start + 60]
    delays = data.draw(
        st.lists(st.integers(0, WATERMARK_MS * MS), min_size=60, max_size=60), label="delays_ns"
    )
    arrived = [
        event
        for _, _, event in sorted(
            (event.ts_ns + delay, i, event)
            for i, (event, delay) in enumerate(zip(window, delays, strict=True))
        )
    ]
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)

    released = merged(arrived, merger)

    assert [id(event) for event in released] == [id(event) for event in window]
    assert not merger.late
    assert len(merger) == 0


def test_recorded_events_in_order_pass_unchanged(recorded: list[MarketEvent]) -> None:
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)

    assert list(map(id, merged(recorded, merger))) == list(map(id, recorded))


def test_an_event_waits_until_one_beyond_the_watermark_has_come(
    recorded: list[MarketEvent],
) -> None:
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)
    held_back: set[int] = set()

    for event in recorded:
        held_back.add(id(event))
        for ordered in merger.push(event):
            assert ordered.ts_ns < event.ts_ns - WATERMARK_MS * MS
            held_back.remove(id(ordered))

    assert len(merger) == len(held_back)


def test_an_event_older_than_what_was_released_is_quarantined_and_counted(
    recorded: list[MarketEvent],
) -> None:
    late = [
        next(event for event in recorded if isinstance(event, kind)) for kind in (BookDelta, Trade)
    ]
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)
    others = [event for event in recorded if event not in late]
    released = list(itertools.chain.from_iterable(merger.push(event) for event in others))
    newest_ns = released[-1].ts_ns

    pushed = [merger.push(event) for event in late]

    assert pushed == [[], [late[1]]]  # a trade is no trade less for being late
    assert merger.late == {"late_book": 1, "late_trade": 1}
    assert [(kept.event, kept.code, kept.behind_ns) for kept in merger.quarantine] == [
        (event, code, newest_ns - event.ts_ns)
        for event, code in zip(late, ("late_book", "late_trade"), strict=True)
    ]


def test_a_late_venue_candle_is_released_at_once(recorded: list[MarketEvent]) -> None:
    candle = next(event for event in recorded if isinstance(event, Bar))
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)
    for event in recorded:
        if event is not candle:
            merger.push(event)

    assert merger.push(candle) == [candle]
    assert (merger.late_candles, sum(merger.late.values())) == (1, 0)


def test_at_one_instant_the_order_is_gap_book_trade_bar_then_symbol_then_sequence(
    recorded: list[MarketEvent],
) -> None:
    bars = [event for event in recorded if isinstance(event, Bar)]
    ts_ns = next(bar.ts_ns for bar in bars if bar.timeframe == Timeframe.D1)
    at_midnight = [bar for bar in bars if bar.ts_ns == ts_ns]
    gap = FeedGap(SYMBOLS[1], ts_ns, ts_ns - MS, "as a test asks")
    merger = Merger(SYMBOLS, watermark_ms=WATERMARK_MS)

    released = merged([*reversed(at_midnight), gap], merger)

    assert released[0] == gap
    assert [(e.symbol, e.timeframe) for e in released if isinstance(e, Bar)] == [
        (symbol, timeframe)
        for symbol in SYMBOLS
        for timeframe in (Timeframe.M1, Timeframe.H1, Timeframe.D1)
    ]


def test_the_book_stands_before_the_trades_of_its_instant(recorded: list[MarketEvent]) -> None:
    by_instant = itertools.groupby(recorded, key=lambda event: event.ts_ns)
    kinds = [[type(event) for event in events] for _, events in by_instant]
    both = [kind for kind in kinds if BookDelta in kind and Trade in kind]

    assert both, "the recording holds instants with book and trades"
    assert all(kind.index(Trade) >= kind.count(BookDelta) for kind in both)


def test_an_event_nobody_watches_is_refused(recorded: list[MarketEvent]) -> None:
    foreign = next(event for event in recorded if event.symbol == SYMBOLS[1])
    merger = Merger(SYMBOLS[:1], watermark_ms=WATERMARK_MS)

    with pytest.raises(InvalidEvent, match="BTC/USDT: expected an event of ETH/USDT"):
        merger.push(foreign)
