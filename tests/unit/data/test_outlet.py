"""What leaves a live source keeps its order, and what comes too late is told."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from alphapulse.data.outlet import QUEUE_EVENTS, Outlet
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import BookDelta, FeedGap, MarketEvent, Trade

MS = 1_000_000
ETH, BTC = "ETH/USDT", "BTC/USDT"
NO_LEVELS = np.empty((0, 2))


def trade(at_ms: int, symbol: str = ETH) -> Trade:
    return Trade(symbol, at_ms * MS, 0, at_ms, 2_000.0, 1.0, True)


def change(at_ms: int, symbol: str = ETH) -> BookDelta:
    return BookDelta(symbol, at_ms * MS, 0, at_ms, at_ms, False, NO_LEVELS, NO_LEVELS)


def left(outlet: Outlet) -> list[MarketEvent]:
    """Return everything that has left, and take it."""

    async def read() -> list[MarketEvent]:
        events: list[MarketEvent] = []
        while True:
            try:
                async with asyncio.timeout(0.01):
                    events.append(await outlet.get())
            except TimeoutError:
                return events

    return asyncio.run(read())


def times_ms(events: list[MarketEvent]) -> list[int]:
    return [event.ts_ns // MS for event in events]


def test_what_is_held_leaves_in_order_of_time_when_nobody_holds() -> None:
    outlet = Outlet(watermark_ms=250)
    outlet.put(change(0))
    outlet.hold(ETH)
    outlet.hold(BTC)

    for event in (change(400, BTC), change(500), trade(100), trade(300)):
        outlet.put(event)
    outlet.release(ETH)
    outlet.put(change(450))
    outlet.release(BTC)

    released = left(outlet)
    assert times_ms(released) == [0, 100, 300, 400, 450, 500]
    assert not any(isinstance(event, FeedGap) for event in released)


def test_a_trade_behind_the_watermark_is_told_as_early_as_the_order_allows() -> None:
    outlet = Outlet(watermark_ms=250)

    for event in (change(1_000), trade(700), trade(720), trade(990)):
        outlet.put(event)

    _, first, _, second, _, _ = left(outlet)
    assert first == FeedGap(ETH, 750 * MS, 700 * MS, first.reason, is_book_lost=False)  # type: ignore[union-attr]
    assert second == first


def test_a_change_behind_the_watermark_is_told_to_who_keeps_the_book() -> None:
    outlet, late = Outlet(watermark_ms=250), []
    outlet.on_late_book = late.append

    for event in (change(1_000), change(750), change(749)):
        outlet.put(event)

    assert times_ms(late) == [749]


def test_what_is_lost_is_told_before_each_book_change_inside_it() -> None:
    outlet = Outlet(watermark_ms=250)
    outlet.put(change(1_000))
    gap = FeedGap(ETH, 1_300 * MS, 600 * MS, "lost", is_book_lost=False)

    outlet.mark_lost(gap, gap.ts_ns)
    for event in (change(1_100), change(1_200, BTC), change(1_200), change(1_300)):
        outlet.put(event)

    told = [event for event in left(outlet) if isinstance(event, FeedGap)]
    assert times_ms(list(told)) == [750, 1_100, 1_200]
    assert {event.from_ns for event in told} == {600 * MS}


def test_at_its_bound_it_is_full() -> None:
    outlet = Outlet(watermark_ms=250)

    for at_ms in range(QUEUE_EVENTS):
        assert not outlet.is_full
        outlet.put(trade(at_ms))

    assert outlet.is_full


def test_an_error_comes_after_what_was_there_before_it() -> None:
    outlet = Outlet(watermark_ms=250)
    outlet.put(trade(1))
    outlet.fail(Unavailable("gone"))

    async def read() -> MarketEvent:
        first = await outlet.get()
        with pytest.raises(Unavailable, match="gone"):
            await outlet.get()
        return first

    assert asyncio.run(read()) == trade(1)
