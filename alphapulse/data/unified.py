"""Watch any venue through ccxt's unified streams, which hold less than the venue's messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.health import Health
from alphapulse.data.history import NS_PER_MS, bars_of, fetch_history
from alphapulse.data.outlet import Outlet
from alphapulse.data.patience import Backoff, Clocks, within
from alphapulse.domain.errors import AlphaPulseError, Unavailable
from alphapulse.domain.market import (
    Bar,
    BookDelta,
    FeedGap,
    Floats,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.domain.quality import Reason
from alphapulse.logs import describe, get_logger

BOOK_LEVELS = 1_000  # a side
# what ccxt raises on wrong data, and what our reading of its rows does
WRONG = (TypeError, ValueError, KeyError, IndexError, AttributeError)

log = get_logger("data")

Receive = Callable[[], Awaitable[list[MarketEvent]]]


class UnifiedFeed:
    """All streams of all symbols from ccxt's `watch_*` into one outlet.

    Trades come one by one, the book as snapshots of 1000 levels a side, and the venue's candles
    when the next one has begun. What was lost is told, never filled: a FeedGap stands before the
    first event after a network error, and before a trade whose number does not follow.
    """

    def __init__(
        self,
        venue: Any,
        instruments: Sequence[Instrument],
        settings: Feed,
        *,
        errors: tuple[type[Exception], type[Exception]],
        outlet: Outlet,
        health: Health,
        clocks: Clocks,
        next_open_ns: Mapping[tuple[str, Timeframe], int],
    ) -> None:
        """Prepare; nothing connects before `run`. Arguments as in BinanceFeed."""
        self._venue, self._settings, self._clocks = venue, settings, clocks
        self._instruments, self._network_error = tuple(instruments), errors[0]
        self._outlet, self._health = outlet, health
        self._next_open_ns = dict(next_open_ns)
        self._last_trade: dict[str, Trade] = {}

    async def run(self, timeframes: Sequence[Timeframe]) -> None:
        """Watch for ever; raises Unavailable or ccxt's error if the venue refuses us."""
        async with asyncio.TaskGroup() as tasks:
            for instrument in self._instruments:
                symbol = instrument.symbol
                streams = {"trade": partial(self._trades, symbol),
                           "book": partial(self._book, symbol)}  # fmt: skip
                for stream, receive in streams.items():
                    tasks.create_task(self._feed(symbol, stream, receive))
                for timeframe in timeframes:
                    candles = partial(self._candles, instrument, timeframe)
                    tasks.create_task(self._feed(symbol, "candle", candles))
            tasks.create_task(self._require_start())

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Do nothing: each message of the unified stream is the whole book."""

    async def _feed(self, symbol: str, stream: str, receive: Receive) -> None:
        """Hand on what one stream gives; wrong data is refused, a silent book opened anew."""
        health, backoff = self._health.of(symbol), Backoff(self._clocks, self._settings.reconnect_s)
        newest: MarketEvent | None = None
        lost = ""  # why the feed was down, until an event says that it is up again
        while True:
            try:
                events = await self._received(stream, receive)
            except self._network_error as error:
                log.warning("stream down", symbol=symbol, stream=stream, **describe(error))
                health.counters["reconnects"] += 1
                lost = lost or type(error).__name__
                await backoff.pause(self._venue)
                continue
            except (*WRONG, AlphaPulseError) as error:
                self._health.refuse(Reason.UNREADABLE, f"{symbol} {stream}: {error}")
                await backoff.pause(self._venue)
                continue
            if events is None:
                health.counters["silences"] += 1
                health.is_fallback = True
                await self._reopen(symbol)
                continue
            health.heard(stream)
            backoff.reset()
            if stream == "book":
                health.is_fallback = False
            if lost and events:
                events = [*_gap(newest, events, reason=lost), *events]
                lost = ""
            for event in events:
                health.counters["gaps"] += isinstance(event, FeedGap)
                self._outlet.put(event)
                newest = event

    async def _received(self, stream: str, receive: Receive) -> list[MarketEvent] | None:
        """Return the next events; None if the book was silent for too long."""
        while self._outlet.is_full:  # ccxt keeps the newest 1000 trades meanwhile
            await self._clocks.sleep(0.05)
        if stream != "book":
            return await receive()
        return await within(self._clocks, self._settings.silent_s, receive)

    async def _reopen(self, symbol: str) -> None:
        """Close the connections that carry the symbol as if they had failed."""
        error = self._network_error(f"{symbol} book: silent for {self._settings.silent_s:g} s")
        for client in list(getattr(self._venue, "clients", {}).values()):
            if any(symbol in str(name) for name in client.subscriptions):
                client.on_error(error)
        await self._clocks.sleep(self._settings.reconnect_s)

    async def _trades(self, symbol: str) -> list[MarketEvent]:
        rows = await self._venue.watch_trades(symbol)
        received_ns = self._clocks.wall_ns()
        events: list[MarketEvent] = []
        for row in rows:
            try:
                trade = _trade(symbol, received_ns, row)
            except WRONG as error:  # InvalidEvent is a ValueError
                self._health.refuse(Reason.UNREADABLE, f"{symbol}: {type(error).__name__}: {error}")
                continue
            last = self._last_trade.get(symbol)
            if last is not None and trade.trade_id <= last.trade_id:
                self._health.refuse(Reason.DUPLICATE, f"{symbol} trade {trade.trade_id} came again")
                continue
            if last is not None and trade.trade_id > last.trade_id + 1:
                lost = f"trades {last.trade_id + 1} to {trade.trade_id - 1} did not arrive"
                gap = FeedGap(symbol, trade.ts_ns, last.ts_ns, lost, is_book_lost=False)
                events.append(gap)
            self._last_trade[symbol] = trade
            events.append(trade)
        return events

    async def _book(self, symbol: str) -> list[MarketEvent]:
        book = await self._venue.watch_order_book(symbol)
        if book["timestamp"] is None:  # REST's, after each subscription: it has no exchange time
            return []
        return [_snapshot(symbol, self._clocks.wall_ns(), book)]

    async def _candles(self, instrument: Instrument, timeframe: Timeframe) -> list[MarketEvent]:
        """Return the candles closed since the last: the stream says when, REST says what."""
        key = (instrument.symbol, timeframe)
        rows = await self._venue.watch_ohlcv(instrument.symbol, timeframe.value)
        forming_ns = int(rows[-1][0]) * NS_PER_MS
        next_ns = self._next_open_ns.setdefault(key, int(rows[0][0]) * NS_PER_MS)
        count = (forming_ns - next_ns) // timeframe.ns
        if count <= 0:
            return []
        series = await fetch_history(self._venue, instrument, timeframe, count, until_ns=forming_ns)
        bars: list[MarketEvent] = list(bars_of(series))
        if bars:
            self._next_open_ns[key] = int(series.open_ns_T[-1]) + timeframe.ns
        return bars

    async def _require_start(self) -> None:
        start_s = self._settings.start_s
        await self._clocks.sleep(start_s)
        for instrument in self._instruments:
            if not self._health.of(instrument.symbol).has_heard("book"):
                raise Unavailable(
                    f"{self._venue.id} {instrument.symbol} book: expected a message within "
                    f"{start_s:g} s, was none; check market.symbols and the network, or name "
                    "another venue first in market.exchanges"
                )


def _gap(
    newest: MarketEvent | None, events: Sequence[MarketEvent], *, reason: str
) -> list[MarketEvent]:
    """Return the gap between the last event before an error and the first after it, if both are."""
    if newest is None or isinstance(newest, Bar) or not events or isinstance(events[0], FeedGap):
        return []
    return [FeedGap(newest.symbol, events[0].ts_ns, newest.ts_ns, reason)]


def _trade(symbol: str, received_ns: int, row: Mapping[str, Any]) -> Trade:
    return Trade(
        symbol=symbol,
        ts_ns=int(row["timestamp"]) * NS_PER_MS,
        received_ns=received_ns,
        trade_id=int(row["id"]),
        price=float(row["price"]),
        size=float(row["amount"]),
        is_buy={"buy": True, "sell": False}[row["side"]],
    )


def _snapshot(symbol: str, received_ns: int, book: Mapping[str, Any]) -> BookDelta:
    update_id = int(book["nonce"])
    return BookDelta(
        symbol=symbol,
        ts_ns=int(book["timestamp"]) * NS_PER_MS,
        received_ns=received_ns,
        first_id=update_id,
        last_id=update_id,
        is_snapshot=True,
        bids_L2=_levels(book["bids"]),
        asks_L2=_levels(book["asks"]),
    )


def _levels(side: Sequence[Sequence[float]]) -> Floats:
    return np.array([level[:2] for level in side[:BOOK_LEVELS]], np.float64).reshape(-1, 2)
