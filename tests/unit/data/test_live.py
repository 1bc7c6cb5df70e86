"""The live source says what the venue says, tells every gap, and closes what it opens."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccxt
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.history import read_candles
from alphapulse.data.live import Live, open_exchange, reachable
from alphapulse.domain.errors import ConfigError, Unavailable
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    MarketEvent,
    Timeframe,
    Trade,
)

ETH = Market().instruments[0]
MS = 1_000_000
QUICK = Feed(live_history_bars=10, reconnect_s=0.001, silent_s=60.0)


class FakeVenue:
    """Plays a script of recorded messages as ccxt.pro would and checks what it is asked.

    A stream waits for ever at the end of its script; an exception in the script is raised.
    """

    id = "recorded"
    has = {"fetchTime": True}  # noqa: RUF012 - as ccxt has it

    def __init__(self, series: BarSeries, now_ms: int = 0) -> None:
        self.series = series
        self.now_ms = now_ms
        self.trades: deque[Any] = deque()
        self.books: deque[Any] = deque()
        self.klines: deque[Any] = deque()
        self.asked: Counter[str] = Counter()
        self.is_closed = False

    async def _next(self, script: deque[Any]) -> Any:
        assert not self.is_closed
        if not script:
            await asyncio.Event().wait()
        message = script.popleft()
        if isinstance(message, Exception):
            raise message
        return message

    async def watch_trades(self, symbol: str) -> Any:
        assert symbol == "ETH/USDT"
        self.asked["trades"] += 1
        return await self._next(self.trades)

    async def watch_order_book(self, symbol: str) -> Any:
        assert symbol == "ETH/USDT"
        return await self._next(self.books)

    async def watch_ohlcv(self, symbol: str, timeframe: str) -> Any:
        assert symbol == "ETH/USDT"
        assert timeframe in ("1m", "1h", "1d")
        return await self._next(self.klines if timeframe == "1m" else deque())

    async def fetch_time(self) -> int:
        return self.now_ms

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[float]]:
        assert (symbol, timeframe) == ("ETH/USDT", "1m")
        self.asked["ohlcv"] += 1
        opens, rows = self.series.open_ns_T.tolist(), self.series.ohlcv_TC.tolist()
        found = [[o // MS, *row] for o, row in zip(opens, rows, strict=True) if o >= since * MS]
        return found[:limit]

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def minutes(recordings: Path) -> BarSeries:
    return read_candles(recordings / "candles-1m-ETHUSDT.parquet", ETH, Timeframe.M1)


@pytest.fixture
def raw_trades(recordings: Path) -> list[dict[str, Any]]:
    """Return recorded trades as ccxt gives them."""
    rows = pq.read_table(recordings / "trades-ETHUSDT.parquet").slice(0, 40).to_pylist()
    return [
        {
            "id": str(row["trade_id"]),
            "timestamp": row["ts"].value // MS,
            "price": row["price"],
            "amount": row["size"],
            "side": row["side"],
            "symbol": "ETH/USDT",
        }
        for row in rows
    ]


def watch(
    venue: FakeVenue, count: int, *, prepare: Callable[[Live], Any] | None = None
) -> tuple[Live, list[MarketEvent]]:
    """Return the live source and its first `count` events; fails after five seconds."""
    live = Live("recorded", [ETH], QUICK, exchange=lambda: venue)

    async def read() -> list[MarketEvent]:
        if prepare:
            await prepare(live)
        events: list[MarketEvent] = []
        stream = live.events()
        async with asyncio.timeout(5):
            async for event in stream:
                events.append(event)
                if len(events) == count:
                    break
        await stream.aclose()  # type: ignore[attr-defined]
        return events

    return live, asyncio.run(read())


def test_trades_arrive_as_the_venue_says_in_its_order(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    venue.trades.extend([raw_trades[:1], raw_trades[1:10]])
    before_ns = time.time_ns()

    _, events = watch(venue, 10)

    for event, raw in zip(events, raw_trades, strict=False):
        assert isinstance(event, Trade)
        assert (event.symbol, event.trade_id) == ("ETH/USDT", int(raw["id"]))
        assert (event.price, event.size) == (raw["price"], raw["amount"])
        assert event.is_buy == (raw["side"] == "buy")
        assert event.ts_ns == raw["timestamp"] * MS
        assert before_ns <= event.received_ns <= time.time_ns()
    assert venue.is_closed


def test_after_a_network_error_a_gap_stands_before_the_next_trade(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    down = [ccxt.NetworkError("connection closed"), ccxt.RequestTimeout("no answer")]
    venue.trades.extend([raw_trades[:2], *down, raw_trades[2:4]])

    _, events = watch(venue, 5)

    assert [type(event) for event in events] == [Trade, Trade, FeedGap, Trade, Trade]
    gap = events[2]
    assert isinstance(gap, FeedGap)
    assert (gap.from_ns, gap.ts_ns) == (events[1].ts_ns, events[3].ts_ns)
    assert gap.reason == "NetworkError"


def test_trades_that_did_not_arrive_show_as_a_gap(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    venue.trades.append([*raw_trades[:3], *raw_trades[8:10]])

    _, events = watch(venue, 6)

    gap = events[3]
    assert isinstance(gap, FeedGap)
    assert (gap.from_ns, gap.ts_ns) == (events[2].ts_ns, events[4].ts_ns)
    assert f"trades {raw_trades[3]['id']} to {raw_trades[7]['id']}" in gap.reason


def test_a_message_that_is_no_trade_is_quarantined_and_counted(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    broken = [{**raw_trades[0], "id": None}, {**raw_trades[0], "price": 0.0}]
    venue.trades.append([*broken, raw_trades[0]])

    live, events = watch(venue, 1)

    assert isinstance(events[0], Trade)
    assert [code for code, _ in live.quarantine] == ["unreadable", "unreadable"]
    assert live.health()["quarantined"] == {"unreadable": 2}


def test_the_book_comes_as_a_snapshot(minutes: BarSeries, recordings: Path) -> None:
    row = pq.read_table(recordings / "book-ETHUSDT.parquet").slice(0, 1).to_pylist()[0]
    bids = [[row[f"bid_px_{i}"], row[f"bid_sz_{i}"]] for i in range(50)]
    asks = [[row[f"ask_px_{i}"], row[f"ask_sz_{i}"]] for i in range(50)]
    venue = FakeVenue(minutes)
    venue.books.append(
        {"bids": bids, "asks": asks, "timestamp": row["ts"].value // MS, "nonce": row["update_id"]}
    )

    _, (book,) = watch(venue, 1)

    assert isinstance(book, BookDelta)
    assert book.is_snapshot
    assert (book.first_id, book.last_id) == (row["update_id"], row["update_id"])
    assert (book.bids_L2.tolist(), book.asks_L2.tolist()) == (bids, asks)


def test_wrong_data_is_refused_and_the_stream_goes_on(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    levels = {"bids": [["x", "y"]], "asks": [], "timestamp": 1, "nonce": 1}
    venue.books.extend([levels, TypeError("ccxt could not add up"), {"bids": None}])
    venue.trades.extend([TypeError("nor here"), raw_trades[:3]])

    live, events = watch(venue, 3)

    assert [type(event) for event in events] == [Trade, Trade, Trade]
    assert live.health()["quarantined"]["unreadable"] >= 1


def test_a_trade_that_came_already_is_refused(
    minutes: BarSeries, raw_trades: list[dict[str, Any]]
) -> None:
    venue = FakeVenue(minutes)
    venue.trades.extend([raw_trades[:3], raw_trades[1:4]])

    live, events = watch(venue, 4)

    assert [e.trade_id for e in events if isinstance(e, Trade)] == [
        int(raw["id"]) for raw in raw_trades[:4]
    ]
    assert live.health()["quarantined"] == {"duplicate": 2}


@pytest.mark.parametrize("exchange_id", ["binance", "coinbase", "kraken", "okx"])
def test_every_default_venue_has_the_streams_that_are_watched(exchange_id: str) -> None:
    venue = open_exchange(exchange_id)

    assert exchange_id in Market().exchanges
    for method in ("watchTrades", "watchOrderBook", "fetchOHLCV"):
        assert venue.has[method], method


def test_a_candle_comes_when_the_next_has_begun_and_none_after_history_is_left_out(
    minutes: BarSeries,
) -> None:
    opens_ms = (minutes.open_ns_T // MS).tolist()
    venue = FakeVenue(minutes, now_ms=opens_ms[100] + 1_234)
    venue.klines.extend([[[opens_ms[i], 1.0, 1.0, 1.0, 1.0, 0.0]] for i in (101, 101, 103, 104)])
    seen: list[BarSeries] = []

    async def prepare(live: Live) -> None:
        seen.append(await live.history(ETH, Timeframe.M1, None))

    _, bars = watch(venue, 4, prepare=prepare)

    assert seen[0].open_ns_T.tolist() == minutes.open_ns_T[90:100].tolist()
    assert [bar.open_ns for bar in bars if isinstance(bar, Bar)] == minutes.open_ns_T[
        100:104
    ].tolist()
    assert [bar.close for bar in bars if isinstance(bar, Bar)] == minutes.ohlcv_TC[
        100:104, 3
    ].tolist()
    assert all(isinstance(bar, Bar) and bar.is_venue for bar in bars)


def test_a_refusal_of_the_venue_ends_the_stream_with_its_sentence(minutes: BarSeries) -> None:
    venue = FakeVenue(minutes)
    venue.trades.append(ccxt.BadSymbol("no such market"))

    with pytest.raises(Unavailable, match=r"recorded ETH/USDT: .*BadSymbol: no such market"):
        watch(venue, 1)
    assert venue.is_closed


def test_history_gives_up_when_the_venue_does_not_answer(minutes: BarSeries) -> None:
    class Silent(FakeVenue):
        async def fetch_time(self) -> int:
            self.asked["time"] += 1
            raise ccxt.RequestTimeout("no answer")

    venue = Silent(minutes)
    live = Live("recorded", [ETH], QUICK, exchange=lambda: venue)

    with pytest.raises(Unavailable, match="RequestTimeout"):
        asyncio.run(live.history(ETH, Timeframe.M1, None))
    assert venue.asked["time"] == 3


def test_a_venue_that_answers_is_reachable(minutes: BarSeries) -> None:
    venue = FakeVenue(minutes)

    assert asyncio.run(reachable("recorded", timeout_s=1, exchange=lambda: venue))
    assert venue.is_closed


def test_a_venue_that_stays_silent_is_not_reachable(minutes: BarSeries) -> None:
    class Silent(FakeVenue):
        async def fetch_time(self) -> int:
            await asyncio.Event().wait()
            return 0

    venue = Silent(minutes)
    start = time.monotonic()

    assert not asyncio.run(reachable("recorded", timeout_s=0.05, exchange=lambda: venue))
    assert time.monotonic() - start < 1
    assert venue.is_closed


def test_without_a_network_the_venue_is_not_reachable_and_everything_is_closed() -> None:
    import ccxt.pro

    venue = ccxt.pro.binance({"enableRateLimit": True})
    venue.urls["api"]["public"] = "http://127.0.0.1:9/api/v3"  # the discard port: nobody answers
    start = time.monotonic()

    assert not asyncio.run(reachable("binance", timeout_s=2, exchange=lambda: venue))
    assert time.monotonic() - start < 2.5
    assert venue.session is None


def test_an_unknown_venue_is_named() -> None:
    with pytest.raises(ConfigError, match="'bynance'"):
        asyncio.run(reachable("bynance", timeout_s=1))
