"""Live is replay: every decision of the recorded window gets the same input both ways."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Feed
from alphapulse.data.feed import MarketFeed
from alphapulse.data.live import CANDLES, Live
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import DecisionPoint
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import (
    BarSeries,
    BookDelta,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider
from tests.exchange.clock import PlayedClock
from tests.exchange.columns import SECOND
from tests.exchange.faults import Fault, WrongType
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened
from tests.flows.lived import DEPTH, INSTRUMENTS, streams

SETTINGS = Feed()
STEP_NS = SECOND // 10  # played at once: less than the watermark, so that nothing comes late by it


@dataclass(frozen=True, slots=True)
class Seen:
    """What one decision instant shows, by symbol, as hashes.

    Attributes:
        input: the ModelInput, or what is missing of it.
        book: touch and buckets of the book.
        book_rows: the one-second rows of the book.
        bars: the rows of every timeframe, the forming one included.
        ids: newest trade and newest book update inside.
    """

    input: dict[str, str]
    book: dict[str, str]
    book_rows: dict[str, str]
    bars: dict[tuple[str, Timeframe], str]
    ids: dict[str, tuple[int, int]]


def digest(*arrays: Any) -> str:
    """Return a hash over the bytes of arrays; NaN equals NaN."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:12]


def look(feed: MarketFeed, point: DecisionPoint) -> Seen:
    """Return what is seen at the instant the feed has just reached."""
    window = feed.cache.window(point.event_ns)
    return Seen(
        input={
            symbol: one.content_hash if isinstance(one, ModelInput) else repr(one.missing)
            for symbol, one in point.inputs.items()
        },
        book={symbol: repr(feed.cache.book(symbol)) for symbol in point.inputs},
        book_rows={s: digest(book.second_ns_T, book.rows_TC) for s, book in window.books.items()},
        bars={
            key: digest(row.open_ns_T, row.rows_TC, row.flags_T, row.forming_C, row.forming_flags)
            if row.forming_C is not None
            else digest(row.open_ns_T, row.rows_TC, row.flags_T)
            for key, row in window.streams.items()
        },
        ids={s: (point.last_trade_id[s], point.last_book_id[s]) for s in point.inputs},
    )


class Followed(DataProvider):
    """Another source with a history as long as Live's, and the newest numbers that it gave out.

    The exchange begins when the books of both symbols are known. The recording has one trade before
    (BTC/USDT 3735683259, 66 ms earlier), which who connects to it cannot have: `from_ns` leaves it
    out of the tape. The book messages before stay: they and the snapshot are the exchange's book.
    """

    def __init__(self, source: DataProvider, *, from_ns: int = 0) -> None:
        self._source = source
        self._from_ns = from_ns
        self.trade_ids = Counter[str]()
        self.book_ids = Counter[str]()

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return as many bars as Live asks for."""
        return await self._source.history(instrument, timeframe, SETTINGS.live_history_bars)

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield what the source says."""
        async for event in self._source.events():
            if isinstance(event, Trade):
                if event.ts_ns < self._from_ns:
                    continue
                self.trade_ids[event.symbol] = event.trade_id
            elif isinstance(event, BookDelta):
                self.book_ids[event.symbol] = max(self.book_ids[event.symbol], event.last_id)
            yield event

    def has_read(self, exchange: Exchange, begun: dict[str, tuple[int, int]]) -> bool:
        """Return whether all was given out that the exchange sent since it had begun."""
        return all(
            (now[0] in (self.trade_ids[symbol], begun[symbol][0]))
            and (now[1] in (self.book_ids[symbol], begun[symbol][1]))
            for symbol, now in newest_ids(exchange).items()
        )


def newest_ids(exchange: Exchange) -> dict[str, tuple[int, int]]:
    """Return numbers of the newest trade and book change played, by symbol."""
    names = {i.symbol: i.venue_symbol for i in INSTRUMENTS}
    return {s: (exchange.last_trade_id(name), exchange.last_id(name)) for s, name in names.items()}


async def seen_of(source: DataProvider, into: dict[int, Seen]) -> MarketFeed:
    """Lead `source` through a feed and keep what every decision instant shows."""
    feed = MarketFeed(source, INSTRUMENTS, SETTINGS)
    await feed.open()
    while (point := await feed.advance()) is not None:
        into[point.event_ns] = look(feed, point)
    return feed


def replayed(recordings: Path, from_ns: int, until_ns: int) -> dict[int, Seen]:
    """Return what every instant shows on tape."""
    seen: dict[int, Seen] = {}
    tape = Tape(recordings, INSTRUMENTS, until_ns=until_ns)
    asyncio.run(seen_of(Followed(tape, from_ns=from_ns), seen))
    return seen


def lived(recording: Recording, faults: Sequence[Fault] = ()) -> dict[int, Seen]:
    """Return what every instant shows live; the play waits until all it sent has been read."""
    exchange, seen = Exchange(recording, faults=faults), dict[int, Seen]()

    async def run() -> None:
        async with opened(exchange):
            clock = PlayedClock(exchange)
            live = Live("binance", INSTRUMENTS, SETTINGS, url=exchange.url, clocks=clock.clocks)
            source = Followed(live)
            reader = asyncio.create_task(seen_of(source, seen))
            kinds = ["trade", "depth@100ms", *(f"kline_{timeframe}" for timeframe in CANDLES)]
            try:
                async with asyncio.timeout(30):
                    await exchange.wait_for(*streams(*kinds))
                    while exchange.requests[DEPTH] < len(INSTRUMENTS):
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.1)
                begun = newest_ids(exchange)
                for step in range(recording.first_ns // STEP_NS, recording.last_ns // STEP_NS + 1):
                    await exchange.play(step * STEP_NS)
                    async with asyncio.timeout(10):
                        while not reader.done() and not source.has_read(exchange, begun):
                            await asyncio.sleep(0)
                    if reader.done():
                        reader.result()
            finally:
                reader.cancel()
                with suppress(asyncio.CancelledError):
                    await reader

    asyncio.run(run())
    return seen


def differences(live: dict[int, Seen], tape: dict[int, Seen]) -> list[str]:
    """Return where both differ: instant, part, and for which symbol."""
    found = []
    for event_ns in sorted(live.keys() & tape.keys()):
        for field in fields(Seen):
            one, other = (getattr(seen[event_ns], field.name) for seen in (live, tape))
            keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
            found += [f"{event_ns} {field.name} {key}" for key in keys]
    return found


@pytest.mark.slow
def test_every_decision_sees_the_same_live_and_replayed(recordings: Path) -> None:
    recording = Recording(recordings)  # 10 min 50 s
    until_ns = recording.last_ns + 1

    live, tape = lived(recording), replayed(recordings, recording.first_ns, until_ns)

    num_instants = (until_ns - recording.first_ns) // SECOND
    assert len(live.keys() & tape.keys()) >= num_instants - 3
    assert differences(live, tape) == []


@pytest.mark.slow
def test_one_wrong_size_in_one_change_is_seen(recordings: Path) -> None:
    whole = Recording(recordings)
    until_ns = whole.first_ns + 12 * SECOND
    wrong = [["2683.61000000", "0.12345678"]]
    fault = WrongType(target="ethusdt@depth@100ms", first=40, field="b", value=wrong)

    recording = Recording(recordings, until_ns=until_ns)
    live = lived(recording, [fault])

    assert differences(live, replayed(recordings, recording.first_ns, until_ns))
