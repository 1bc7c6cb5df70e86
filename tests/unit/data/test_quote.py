"""What an order meets: the book at its arrival, or the next open; no input sees any of it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.book import Book
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import DecisionPoint
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import SECOND_NS, BookDelta, Timeframe, Trade
from alphapulse.domain.trading import Quote
from alphapulse.models.network import volatility_SF
from alphapulse.models.vote import RISK

INSTRUMENTS = Market().instruments
ETH, BTC = (instrument.symbol for instrument in INSTRUMENTS)
LATENCY_NS = 100_000_000
NUM_INSTANTS = 25
Walked = tuple[list[DecisionPoint], list[Quote]]


def feed_of(folder: Path, **more: bool | int) -> MarketFeed:
    return MarketFeed(Tape(folder, INSTRUMENTS, **more), INSTRUMENTS, Feed())  # type: ignore[arg-type]


async def walk(feed: MarketFeed, *, quoted: bool) -> Walked:
    await feed.open()
    points: list[DecisionPoint] = []
    quotes: list[Quote] = []
    while len(points) < NUM_INSTANTS and (point := await feed.advance()) is not None:
        points.append(point)
        for symbol in (ETH, BTC) if quoted else ():
            quote = await feed.quote(symbol, point.event_ns + LATENCY_NS)
            assert quote is not None
            quotes.append(quote)
    return points, quotes


@pytest.fixture(scope="module")
def walked(recordings: Path) -> Walked:
    return asyncio.run(walk(feed_of(recordings), quoted=True))


def hashes(points: list[DecisionPoint]) -> list[str]:
    inputs = [i for point in points for i in point.inputs.values()]
    return [i.content_hash for i in inputs if isinstance(i, ModelInput)]


def test_quote_is_the_book_of_every_message_before_the_arrival_and_of_none_after(
    walked: Walked, recordings: Path
) -> None:
    async def messages() -> list[BookDelta | Trade]:
        tape = Tape(recordings, INSTRUMENTS)
        kinds = BookDelta | Trade
        return [e async for e in tape.events() if isinstance(e, kinds)]

    events = asyncio.run(messages())
    for instrument in INSTRUMENTS:
        book, price = Book(instrument), math.nan
        mine = iter([e for e in events if e.symbol == instrument.symbol])
        event = next(mine)
        for quote in (q for q in walked[1] if q.symbol == instrument.symbol):
            while event.ts_ns < quote.event_ns:
                if isinstance(event, BookDelta):
                    book.apply(event)
                else:
                    price = event.price
                event = next(mine)
            bids_L2, asks_L2 = book.levels(len(quote.bids_L2))
            assert quote.source == "book"
            assert quote.price == price
            np.testing.assert_array_equal(quote.bids_L2, bids_L2)
            np.testing.assert_array_equal(quote.asks_L2, asks_L2)


def test_quotes_asked_for_change_no_input(walked: Walked, recordings: Path) -> None:
    unasked = asyncio.run(walk(feed_of(recordings), quoted=False))

    assert hashes(unasked[0]) == hashes(walked[0])
    assert len(hashes(walked[0])) == 2 * NUM_INSTANTS


def test_quote_asked_twice_is_the_same(recordings: Path) -> None:
    async def twice() -> list[Quote | None]:
        feed = feed_of(recordings)
        await feed.open()
        point = await feed.advance()
        assert point is not None
        return [await feed.quote(ETH, point.event_ns + LATENCY_NS) for _ in range(2)]

    first, second = asyncio.run(twice())

    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.asks_L2, second.asks_L2)


def test_quote_of_a_time_that_is_past_is_refused(recordings: Path) -> None:
    async def late() -> None:
        feed = feed_of(recordings)
        await feed.open()
        point = await feed.advance()
        assert point is not None
        await feed.advance()
        await feed.quote(ETH, point.event_ns + LATENCY_NS)

    with pytest.raises(Unavailable, match="expected a time after"):
        asyncio.run(late())


def test_quote_after_the_end_of_the_source_is_none(recordings: Path) -> None:
    async def after() -> Quote | None:
        until_ns = Tape(recordings, INSTRUMENTS).first_ns + 3 * SECOND_NS
        feed = feed_of(recordings, until_ns=until_ns)
        await feed.open()
        newest = None
        while (point := await feed.advance()) is not None:
            newest = point
        assert newest is not None
        return await feed.quote(ETH, newest.event_ns + 10 * SECOND_NS)

    assert asyncio.run(after()) is None


def test_without_ticks_an_order_meets_the_next_open_and_no_bar_is_lost(recordings: Path) -> None:
    from_ns = int(pd.Timestamp("2024-08-08T12:00Z").value)
    until_ns = from_ns + 40 * Timeframe.M1.ns
    candles = {"with_ticks": False, "from_ns": from_ns, "until_ns": until_ns}
    points, quotes = asyncio.run(walk(feed_of(recordings, **candles), quoted=True))
    unasked, _ = asyncio.run(walk(feed_of(recordings, **candles), quoted=False))

    assert {quote.source for quote in quotes} == {"open"}
    for symbol in (ETH, BTC):
        venue = symbol.replace("/", "")
        frame = pd.read_parquet(recordings / f"candles-1m-{venue}.parquet")
        opens = dict(zip(frame["ts"].astype("int64"), frame["open"], strict=True))
        asked = [q for q in quotes if q.symbol == symbol]
        assert [q.price for q in asked] == [opens[p.event_ns] for p in points]
    assert hashes(points) == hashes(unasked)


def test_mark_has_the_models_own_risk_and_the_extremes_of_the_last_second(
    walked: Walked, recordings: Path
) -> None:
    for symbol in (ETH, BTC):
        frame = pd.read_parquet(recordings / f"trades-{symbol.replace('/', '')}.parquet")
        ts = frame["ts"].astype("int64")
        for point in walked[0]:
            mark, input = point.marks[symbol], point.inputs[symbol]
            assert isinstance(input, ModelInput)
            assert mark.price == input.price
            assert mark.risk == volatility_SF(input.bars_SFTC, input.flags_SFT)[0, RISK]
            second = frame["price"][(ts >= point.event_ns - SECOND_NS) & (ts < point.event_ns)]
            if len(second):
                assert (mark.low, mark.high) == (second.min(), second.max())
            else:
                assert mark.low == mark.high == mark.price
