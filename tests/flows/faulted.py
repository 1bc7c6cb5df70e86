"""Lead a slice of the recording through faults, the real client and the cache, or from tape.

The tape's side is the truth of the slice, the other one what came of the faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alphapulse.config import Feed, Market
from alphapulse.data.book import Book
from alphapulse.data.feed import MarketFeed
from alphapulse.data.live import CANDLES, Live
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.market import (
    BarSeries,
    BookDelta,
    FeedGap,
    Floats,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.domain.windows import StreamWindow
from alphapulse.interfaces import DataProvider
from tests.exchange.columns import SECOND
from tests.exchange.connecting import open_at
from tests.exchange.recording import Recording
from tests.exchange.schedules import Schedule
from tests.exchange.server import Exchange, opened
from tests.exchange.stepped import SteppedClock

FAULTY_S, PLAYED_S = 20, 34  # with faults; with the time to recover
INSTRUMENTS = Market().instruments
SYMBOLS = [instrument.symbol for instrument in INSTRUMENTS]
SETTINGS = Feed(live_history_bars=700)
FRAMES = (Timeframe.S1, Timeframe.M1)

Streams = dict[tuple[str, Timeframe], StreamWindow]


@dataclass
class Truth:
    """What the tape says of a slice.

    Attributes:
        trades: by symbol, every trade by its number.
        books: every book by symbol and number, from the end of the faults on.
        windows: what the cache held, by decision instant.
    """

    recording: Recording
    trades: dict[str, dict[int, Trade]]
    books: dict[tuple[str, int], tuple[Floats, Floats]]
    windows: dict[int, Streams]


class Told(DataProvider):
    """Another source, whose gaps and trades are kept, by symbol.

    Attributes:
        gaps: as they were told.
        trade_ids: numbers as they came.
    """

    def __init__(self, source: DataProvider) -> None:
        self.source = source
        self.gaps: dict[str, list[FeedGap]] = {symbol: [] for symbol in SYMBOLS}
        self.trade_ids: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return what the source says."""
        return await self.source.history(instrument, timeframe, count)

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield what the source says."""
        async for event in self.source.events():
            if isinstance(event, FeedGap):
                self.gaps[event.symbol].append(event)
            if isinstance(event, Trade):
                self.trade_ids[event.symbol].append(event.trade_id)
            yield event


@dataclass
class Seen:
    """What came of a run through the faults.

    Attributes:
        told: what Live said, gaps and trades.
        reached_ns: the newest decision instant [ns UTC].
        error: what ended the feed, which nothing should.
    """

    feed: MarketFeed
    live: Live
    told: Told
    reached_ns: int = 0
    error: str = ""


def shown(feed: MarketFeed, event_ns: int) -> Streams:
    """Return the seconds and minutes the cache holds."""
    streams = feed.cache.window(event_ns).streams
    return {key: stream for key, stream in streams.items() if key[1] in FRAMES}


@cache
def truth(recordings: Path, from_ns: int) -> Truth:
    """Return what the tape says of the slice that begins at `from_ns`."""
    until_ns = from_ns + PLAYED_S * SECOND
    tape = Tape(recordings, INSTRUMENTS, from_ns=from_ns, until_ns=until_ns)
    before = Tape(recordings, INSTRUMENTS, until_ns=from_ns)
    trades: dict[str, dict[int, Trade]] = {symbol: {} for symbol in SYMBOLS}
    books: dict[tuple[str, int], tuple[Floats, Floats]] = {}
    windows: dict[int, Streams] = {}

    async def read() -> None:
        feed = MarketFeed(tape, INSTRUMENTS, SETTINGS)
        await feed.open()
        while (point := await feed.advance()) is not None:
            if point.event_ns >= from_ns + FAULTY_S * SECOND:
                windows[point.event_ns] = shown(feed, point.event_ns)
        whole = {instrument.symbol: Book(instrument) for instrument in INSTRUMENTS}
        for source in (before, tape):
            async for event in source.events():
                if isinstance(event, BookDelta):
                    whole[event.symbol].apply(event)
                    if event.ts_ns >= from_ns + FAULTY_S * SECOND:
                        books[event.symbol, event.last_id] = whole[event.symbol].levels(2_000)
        async for event in tape.events():
            if isinstance(event, Trade):
                trades[event.symbol][event.trade_id] = event

    asyncio.run(read())
    recording = Recording(recordings, from_ns=from_ns, until_ns=until_ns)
    return Truth(recording, trades, books, windows)


async def lived(known: Truth, from_ns: int, faults: Schedule) -> Seen:
    """Lead the played slice through the real client into the cache."""
    async with opened(Exchange(known.recording, faults=faults)) as exchange:
        clock = SteppedClock(exchange)
        live = Live(
            "binance",
            INSTRUMENTS,
            SETTINGS,
            exchange=lambda: clock.listening(open_at(exchange.url)),
            clocks=clock.clocks,
        )
        told = Told(live)
        seen = Seen(MarketFeed(told, INSTRUMENTS, SETTINGS), live, told)

        async def read() -> None:
            try:
                while (point := await seen.feed.advance()) is not None:
                    seen.reached_ns = point.event_ns
            except AlphaPulseError as error:
                seen.error = f"{type(error).__name__}: {error}"

        await seen.feed.open()
        reader = asyncio.create_task(read())
        kinds = ["trade", "depth@100ms", *(f"kline_{timeframe}" for timeframe in CANDLES)]
        names = [f"{i.venue_symbol.lower()}@{kind}" for i in INSTRUMENTS for kind in kinds]
        try:
            async with asyncio.timeout(60):
                await exchange.wait_for(*names)
                await clock.settle()
                await clock.pass_until(from_ns + PLAYED_S * SECOND)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            await live.close()
        return seen
