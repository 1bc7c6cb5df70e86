"""Play a stretch of a recording through the exchange and the product's live source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from alphapulse.config import Feed, Market
from alphapulse.data.feed import MarketFeed
from alphapulse.data.live import CANDLES, Live
from alphapulse.domain.market import Bar, BookDelta, MarketEvent, Trade
from tests.exchange.clock import PlayedClock
from tests.exchange.columns import SECOND
from tests.exchange.faults import ClockSkew, Fault
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

INSTRUMENTS = Market().instruments
STEP_NS = SECOND // 10  # played at once: less than the watermark, so that nothing comes late by it
FEED = Feed(live_history_bars=10)
PAUSE_S = 0.005  # between two steps, for what is under way between the two sides
DEPTH = "/api/v3/depth"


def of_kind(events: Sequence[MarketEvent], kind: type, symbol: str) -> list[Any]:
    """Return the events of one kind and symbol, in order."""
    return [e for e in events if isinstance(e, kind) and getattr(e, "symbol", "") == symbol]


def streams(*kinds: str) -> list[str]:
    """Return the streams of both symbols."""
    return [f"{i.venue_symbol.lower()}@{kind}" for i in INSTRUMENTS for kind in kinds]


def has_all(taped: Sequence[MarketEvent]) -> Callable[[list[MarketEvent]], bool]:
    """Return whether the last trade, the last book change and the bars of the tape are there."""

    def num_bars(events: Sequence[MarketEvent]) -> int:
        return sum(isinstance(event, Bar) for event in events)

    def is_enough(events: list[MarketEvent]) -> bool:
        for instrument in INSTRUMENTS:
            for kind, number in ((Trade, "trade_id"), (BookDelta, "last_id")):
                seen = [getattr(e, number) for e in of_kind(events, kind, instrument.symbol)]
                last = getattr(of_kind(taped, kind, instrument.symbol)[-1], number)
                if last not in seen:
                    return False
        return num_bars(events) >= num_bars(taped)

    return is_enough


def lived(
    stretch: Recording,
    is_enough: Callable[[list[MarketEvent]], bool],
    *,
    faults: Sequence[Fault | ClockSkew] = (),
    waited: list[float] | None = None,
    settings: Feed = FEED,
) -> tuple[Live, list[MarketEvent]]:
    """Return the live source and its events while the stretch is played, until it is enough.

    The play waits for the first book of both symbols, so that every recorded change applies to it.
    The source's clock is the play's; `waited` takes the pauses the source made [s].
    """
    events: list[MarketEvent] = []

    async def read(live: Live) -> None:
        for instrument in INSTRUMENTS:
            for timeframe in CANDLES:
                await live.history(instrument, timeframe, None)
        async for event in live.events():
            events.append(event)  # noqa: PERF401 - the others look at it meanwhile

    live = asyncio.run(
        _played(stretch, read, lambda: is_enough(events), faults, waited=waited, settings=settings)
    )
    return live, events


def led(stretch: Recording, *, faults: Sequence[Fault | ClockSkew] = ()) -> tuple[Live, MarketFeed]:
    """Return the live source and the feed it led through the stretch, to its last instants."""
    feeds: list[MarketFeed] = []
    last_ns = stretch.last_ns // SECOND * SECOND
    reached = [0]

    async def read(live: Live) -> None:
        feeds.append(MarketFeed(live, INSTRUMENTS, FEED))
        await feeds[0].open()
        while (point := await feeds[0].advance()) is not None:
            reached.append(point.event_ns)

    live = asyncio.run(_played(stretch, read, lambda: reached[-1] >= last_ns - SECOND, faults))
    return live, feeds[0]


async def _played(
    stretch: Recording,
    read: Callable[[Live], Awaitable[None]],
    is_enough: Callable[[], bool],
    faults: Sequence[Fault | ClockSkew],
    *,
    waited: list[float] | None = None,
    settings: Feed = FEED,
) -> Live:
    exchange = Exchange(stretch, faults=faults)
    clock = PlayedClock(exchange, waited)
    candles = [f"kline_{timeframe}" for timeframe in CANDLES]
    async with opened(exchange):
        live = Live("binance", INSTRUMENTS, settings, url=exchange.url, clocks=clock.clocks)
        reader = asyncio.ensure_future(read(live))
        try:
            async with asyncio.timeout(30):
                await exchange.wait_for(*streams("trade", "depth@100ms", *candles))
                while exchange.requests[DEPTH] < len(INSTRUMENTS):
                    await asyncio.sleep(0.01)
                for step in range(stretch.first_ns // STEP_NS, stretch.last_ns // STEP_NS + 1):
                    await exchange.play(step * STEP_NS)
                    await asyncio.sleep(PAUSE_S)
                await exchange.play()
                while not is_enough() and not reader.done():
                    await asyncio.sleep(PAUSE_S)
                    clock.add(STEP_NS / SECOND)
                if reader.done():
                    await reader
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            await live.close()
    return live
