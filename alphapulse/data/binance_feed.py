"""Keep Binance's streams whole: in order, once each, what was missed fetched, silence ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from alphapulse.config import Feed
from alphapulse.data import binance
from alphapulse.data.binance import Kline, Unreadable
from alphapulse.data.continuity import BookOrder, TradeOrder
from alphapulse.data.health import Health, SymbolHealth
from alphapulse.data.history import bars_of, fetch_history
from alphapulse.data.outlet import Outlet
from alphapulse.data.patience import Backoff, Clocks, within
from alphapulse.domain.errors import InvalidRecording, Unavailable
from alphapulse.domain.market import BookDelta, FeedGap, Instrument, Timeframe, Trade
from alphapulse.logs import describe, get_logger

WATCH_S = 0.5  # between two looks at the ages of the streams
POLL_S = 2.0  # between two requests where a stream is silent: 4 500 of 6 000 weight a minute
RETRY_S = 0.2  # first pause where an answer did not have what is missing: REST lags the streams
ANSWER_S = 5.0  # how long REST may take
TIME_S = 60.0  # between two questions for the venue's time

log = get_logger("data")


@dataclass(slots=True)
class Watched:
    """One symbol: its streams in order, and what is being done about them.

    Attributes:
        is_deaf: whether trades may have been missed that no number tells of.
        subscribed: set while the stream of trades is confirmed.
        next_open_ns: by timeframe, open of the next candle to hand on [ns UTC].
    """

    instrument: Instrument
    health: SymbolHealth
    trades: TradeOrder
    book: BookOrder = field(default_factory=BookOrder)
    is_deaf: bool = False
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    next_open_ns: dict[Timeframe, int] = field(default_factory=dict)
    first_ns: int | None = None  # time of the first book change
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    due_s: dict[str, float] = field(default_factory=dict)  # when something may be tried again

    @property
    def symbol(self) -> str:
        """Return ccxt's name."""
        return self.instrument.symbol


class BinanceFeed:
    """All streams of all symbols from one ccxt connection into one outlet.

    ```python
    feed = BinanceFeed(venue, instruments, settings, outlet=outlet, health=health, ...)
    await feed.run((Timeframe.M1,))  # until it is cancelled, or the venue refuses us
    ```
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
        """Prepare; nothing connects before `run`.

        Args:
            venue: ccxt.pro's binance.
            instruments: what is watched.
            settings: bounds and pauses.
            errors: ccxt's error of the connection, and of anything.
            outlet: where events leave.
            health: what is counted.
            clocks: where the time comes from.
            next_open_ns: by symbol and timeframe, open of the candle after the history's last.
        """
        self._venue, self._settings = venue, settings
        self._network_error, self._any_error = errors
        self._outlet, self._health, self._clocks = outlet, health, clocks
        self._markets: dict[str, Watched] = {}
        for instrument in instruments:
            symbol = instrument.symbol
            one = Watched(instrument, health.of(symbol), TradeOrder(symbol))
            one.next_open_ns |= {tf: ns for (s, tf), ns in next_open_ns.items() if s == symbol}
            self._markets[symbol] = one
        self._names = {i.venue_symbol: i.symbol for i in instruments}
        self._tasks = asyncio.TaskGroup()
        self._is_over = False
        outlet.on_late_book = lambda change: self._markets[change.symbol].book.lose()

    async def run(self, timeframes: Sequence[Timeframe]) -> None:
        """Watch for ever; raises Unavailable or ccxt's error if the venue refuses us."""
        binance.listen(self._venue, self._hear, self._confirmed)
        venue, symbols = self._venue, list(self._markets)
        pairs = [[symbol, timeframe.value] for symbol in symbols for timeframe in timeframes]
        candles = partial(venue.watch_ohlcv_for_symbols, pairs)
        try:
            async with self._tasks as tasks:
                tasks.create_task(self._stay("candle", symbols, candles))
                for symbol, one in self._markets.items():
                    trades = partial(venue.watch_trades, symbol)
                    book = partial(venue.watch_order_book, symbol)
                    tasks.create_task(self._stay("trade", [symbol], trades))
                    tasks.create_task(self._stay("book", [symbol], book))
                    tasks.create_task(self._watch(one))
                tasks.create_task(self._require_start())
                tasks.create_task(self._keep_time())
        finally:
            self._is_over = True

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Ask for the whole book anew: the reader's went wrong at the change `last_id`."""
        one = self._markets[symbol]
        one.book.doubt(last_id)
        if not one.book.is_known and not self._is_over:
            self._want_snapshot(one)

    async def _stay(
        self, stream: str, symbols: Sequence[str], connect: Callable[[], Awaitable[object]]
    ) -> None:
        """Keep a stream subscribed; ccxt's call lasts as long as the connection does."""
        backoff = Backoff(self._clocks, self._settings.reconnect_s)
        while True:
            begun_s = self._clocks.now_s()
            try:
                await connect()
            except self._network_error as error:
                log.warning("stream down", stream=stream, symbols=symbols, **describe(error))
            for one in map(self._markets.__getitem__, symbols):
                one.health.counters["reconnects"] += 1
                if one.health.age_s(stream) < self._clocks.now_s() - begun_s:
                    backoff.reset()
                if stream == "trade":
                    self._deafen(one)
            await backoff.pause(self._venue)

    def _confirmed(self, name: str) -> None:
        stream, _, symbol = name.partition("::")
        one = self._markets.get(symbol)
        if one is None or self._is_over:
            return
        if stream == "trade":
            one.subscribed.set()
        elif stream == "orderbook" and not one.book.is_known:
            self._want_snapshot(one)

    def _hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of any stream; it must not raise, or ccxt stops reading."""
        if self._is_over:
            return
        received_ns = self._clocks.wall_ns()
        event = binance.read(message, self._names, received_ns)
        if isinstance(event, Unreadable):
            self._health.refuse(event.code, event.message)
            return
        one = self._markets[event.symbol]
        stream = {Trade: "trade", BookDelta: "book", Kline: "candle"}[type(event)]
        one.health.heard(stream)
        if self._outlet.is_full:
            one.health.counters["dropped"] += 1
            return
        if isinstance(event, Kline):
            self._take_kline(one, event)
            return
        one.health.took(event.ts_ns, received_ns)
        self._health.skew.heard(event.ts_ns, received_ns)
        if isinstance(event, Trade):
            self._take_trade(one, event)
        else:
            self._take_change(one, event)

    # trades

    def _take_trade(self, one: Watched, trade: Trade) -> None:
        before = one.trades.num_duplicates
        for ordered in one.trades.push(trade):
            self._outlet.put(ordered)
        if one.trades.num_duplicates > before:
            self._health.refuse("duplicate", f"{one.symbol} trade {trade.trade_id} came again")
        if one.trades.missing is not None:
            self._start_mending(one)

    def _deafen(self, one: Watched) -> None:
        """Note that the stream of trades is down: from now on any may be missing."""
        one.subscribed.clear()
        if one.trades.newest is not None:
            one.is_deaf = True
            self._start_mending(one)

    def _start_mending(self, one: Watched) -> None:
        if self._runs(one, "mend"):
            return
        self._outlet.hold(one.symbol)
        one.tasks["mend"] = self._tasks.create_task(self._mend(one))

    async def _mend(self, one: Watched) -> None:
        """Fetch what is missing while everything waits; past the bound, tell it and go on."""
        bound_s, clocks, outlet = self._settings.backfill_s, self._clocks, self._outlet
        backoff, since_s = Backoff(clocks, RETRY_S), clocks.now_s()
        try:
            while one.is_deaf or one.trades.missing is not None:
                is_subscribed = one.subscribed.is_set()
                num = await self._fetch_trades(one)
                if num is not None and is_subscribed:
                    one.is_deaf = False
                if num is not None and one.trades.missing is None:
                    since_s = clocks.now_s()
                    backoff.reset()
                    outlet.mark_up(one.symbol)
                    one.health.is_down = False
                    outlet.release(one.symbol)
                    if one.is_deaf:
                        outlet.hold(one.symbol)
                        await within(clocks, POLL_S, one.subscribed.wait)
                elif self._is_past(one, since_s + bound_s):
                    self._give_up(one)
                    outlet.release(one.symbol)
                    if one.is_deaf or one.trades.missing is not None:
                        await backoff.pause(self._venue)
                elif not num:
                    left_s = since_s + bound_s - clocks.now_s()
                    await backoff.pause(self._venue, most_s=max(left_s, 0.0))
        finally:
            outlet.release(one.symbol)

    def _is_past(self, one: Watched, deadline_s: float) -> bool:
        is_full = self._outlet.is_full or one.trades.is_full
        return is_full or self._clocks.now_s() >= deadline_s

    def _give_up(self, one: Watched) -> None:
        newest = one.trades.newest
        assert newest is not None
        one.health.counters["gaps"] += 1
        if one.trades.missing is None:
            reason = "the stream of trades is down"
            gap = FeedGap(one.symbol, newest.ts_ns, newest.ts_ns, reason, is_book_lost=False)
            self._outlet.mark_down(gap)
            one.health.is_down = True
            return
        given_up = one.trades.give_up()
        if given_up.stray is not None:
            trade_id = given_up.stray.trade_id
            self._health.refuse("unreadable", f"{one.symbol}: {trade_id} is no trade's number")
        if given_up.gap is not None:
            log.warning("trades lost", symbol=one.symbol, reason=given_up.gap.reason)
            self._outlet.put(given_up.gap)
        for trade in given_up.trades:
            self._outlet.put(trade)

    async def _fetch_trades(self, one: Watched) -> int | None:
        """Fetch the trades after the newest; return how many were new, None without an answer."""
        assert one.trades.newest is not None
        first_id = one.trades.newest.trade_id + 1
        name, most = one.instrument.venue_symbol, binance.PAGE_TRADES
        rows = await self._ask("trades", symbol=name, limit=most)
        if rows and isinstance(rows, list) and self._oldest_id(rows) > first_id:
            rows = await self._ask("historicalTrades", symbol=name, limit=most, fromId=first_id)
        if not isinstance(rows, list):
            return None
        missing, num_new = one.trades.missing, 0
        last_id = missing[1] if missing is not None and not one.is_deaf else None
        for row in rows:
            trade = binance.read_trade(row, one.symbol, self._clocks.wall_ns())
            if isinstance(trade, Unreadable):
                self._health.refuse(trade.code, trade.message)
            elif first_id <= trade.trade_id and (last_id is None or trade.trade_id <= last_id):
                before = one.trades.num_duplicates
                for ordered in one.trades.push(trade):
                    self._outlet.put(ordered)
                num_new += one.trades.num_duplicates == before
        one.health.counters["backfilled"] += num_new
        return num_new

    @staticmethod
    def _oldest_id(rows: Sequence[Any]) -> int:
        first = rows[0]
        trade_id = first.get("id") if isinstance(first, dict) else None
        return trade_id if isinstance(trade_id, int) else 0

    # the book

    def _take_change(self, one: Watched, change: BookDelta) -> None:
        if one.first_ns is None:
            one.first_ns = change.ts_ns
        one.health.is_fallback = False
        num_gaps, num_duplicates = one.book.num_gaps, one.book.num_duplicates
        for event in one.book.push(change):
            self._outlet.put(event)
        one.health.counters["book_gaps"] += one.book.num_gaps - num_gaps
        if one.book.num_duplicates > num_duplicates:
            self._health.refuse("duplicate", f"{one.symbol} book {change.last_id} came again")
        if not one.book.is_known:
            self._want_snapshot(one)

    def _want_snapshot(self, one: Watched) -> None:
        if not self._runs(one, "snapshot"):
            one.tasks["snapshot"] = self._tasks.create_task(self._renew(one))

    async def _renew(self, one: Watched) -> None:
        backoff = Backoff(self._clocks, self._settings.reconnect_s)
        while not one.book.is_known:
            snapshot = await self._fetch_book(one, binance.LEVELS)
            if snapshot is not None and one.book.take(snapshot):
                one.health.counters["snapshots"] += 1
                return
            await backoff.pause(self._venue)

    async def _fetch_book(self, one: Watched, levels: int) -> BookDelta | None:
        answer = await self._ask("depth", symbol=one.instrument.venue_symbol, limit=levels)
        if not isinstance(answer, dict):
            return None
        found = binance.read_snapshot(answer, one.symbol, 0, self._clocks.wall_ns())
        if isinstance(found, Unreadable):
            self._health.refuse(found.code, found.message)
            return None
        return found

    # candles

    def _take_kline(self, one: Watched, kline: Kline) -> None:
        """Hand a closed candle on; where some before it are missing, REST has them all."""
        timeframe, open_ns = kline.timeframe, kline.open_ns
        next_ns = one.next_open_ns.setdefault(timeframe, open_ns)
        if open_ns == next_ns and kline.bar is not None:
            one.next_open_ns[timeframe] = open_ns + timeframe.ns
            self._outlet.put(kline.bar)
        elif open_ns > next_ns and not self._runs(one, timeframe):
            until_ns = open_ns + (timeframe.ns if kline.bar else 0)
            task = self._tasks.create_task(self._fetch_candles(one, timeframe, until_ns))
            one.tasks[timeframe] = task

    async def _fetch_candles(self, one: Watched, timeframe: Timeframe, until_ns: int) -> None:
        """Hand on the candles from the next to `until_ns`; what fails, the next message repeats."""
        count = (until_ns - one.next_open_ns[timeframe]) // timeframe.ns
        ask = partial(fetch_history, self._venue, one.instrument, timeframe, count)
        try:
            series = await within(self._clocks, ANSWER_S, partial(ask, until_ns=until_ns))
        except (self._any_error, InvalidRecording) as error:
            log.warning("candles not fetched", symbol=one.symbol, **describe(error))
            return
        for bar in bars_of(series) if series is not None else ():
            if bar.open_ns >= one.next_open_ns[timeframe]:
                one.next_open_ns[timeframe] = bar.close_ns
                self._outlet.put(bar)

    # watching

    async def _watch(self, one: Watched) -> None:
        """Look at the ages of the streams: silence on an open connection tells nobody."""
        while True:
            await self._clocks.sleep(WATCH_S)
            await self._watch_book(one)
            await self._watch_trades(one)

    async def _watch_book(self, one: Watched) -> None:
        health = one.health
        if not health.has_heard("book") or health.age_s("book") <= self._settings.silent_s:
            return
        if self._is_due(one, "reopen book", self._settings.silent_s):
            self._reopen(one, "book", "orderbook")
        if not self._is_due(one, "poll book", POLL_S):
            return
        health.is_fallback = True
        snapshot = await self._fetch_book(one, binance.POLLED_LEVELS)
        venue_ns = await self._ask_time()
        if snapshot is None or venue_ns is None or not health.is_fallback:
            return
        if one.book.replace(snapshot):
            health.counters["polls"] += 1
            self._outlet.put(replace(snapshot, ts_ns=venue_ns))

    async def _watch_trades(self, one: Watched) -> None:
        """Ask whether there were trades, where none came: a quiet market is no silence."""
        health, is_begun = one.health, one.trades.newest is not None
        is_silent = is_begun and health.age_s("trade") > self._settings.silent_s
        if not is_silent or self._runs(one, "mend") or not self._is_due(one, "probe", POLL_S):
            return
        if await self._fetch_trades(one):
            self._reopen(one, "trade", "trade")

    def _reopen(self, one: Watched, stream: str, name: str) -> None:
        """Close the connection of a stream as if it had failed; `_stay` opens the next."""
        key = f"{name}::{one.symbol}"
        age_s = one.health.age_s(stream)
        error = self._network_error(f"{one.symbol} {stream}: silent for {age_s:.1f} s")
        for client in list(self._venue.clients.values()):
            if key in client.subscriptions:
                one.health.counters["silences"] += 1
                client.on_error(error)

    async def _require_start(self) -> None:
        """Fail if a stream has not begun in time; a symbol nobody trades has begun all the same."""
        start_s = self._settings.start_s
        await self._clocks.sleep(start_s)
        for one in self._markets.values():
            silent = None
            if one.first_ns is None or not one.health.counters["snapshots"]:
                silent = "book"
            elif not one.health.has_heard("trade") and await self._has_traded(one):
                silent = "trades"
            if silent is not None:
                raise Unavailable(
                    f"binance {one.symbol} {silent}: expected a message within {start_s:g} s, was "
                    "none; check market.symbols and the network, or name another venue first in "
                    "market.exchanges"
                )

    async def _has_traded(self, one: Watched) -> bool:
        """Return whether a trade came to be since the first book change, or nobody knows."""
        rows = await self._ask("trades", symbol=one.instrument.venue_symbol, limit=1)
        if not rows or not isinstance(rows, list):
            return True
        trade = binance.read_trade(rows[-1], one.symbol, 0)
        return isinstance(trade, Unreadable) or trade.ts_ns > (one.first_ns or 0)

    async def _keep_time(self) -> None:
        while True:
            await self._ask_time()
            await self._clocks.sleep(TIME_S)

    async def _ask_time(self) -> int | None:
        sent_ns = self._clocks.wall_ns()
        answer = await self._ask("time")
        try:
            venue_ns = int(answer["serverTime"]) * binance.NS_PER_MS
        except (TypeError, KeyError, ValueError):
            return None
        self._health.skew.asked(venue_ns, sent_ns, self._clocks.wall_ns())
        return venue_ns

    async def _ask(self, path: str, **wanted: Any) -> Any:
        """Return what REST answers, None if it refuses or takes too long."""
        ask = partial(binance.ask, self._venue, path, **wanted)
        try:
            return await within(self._clocks, ANSWER_S, ask)
        except self._any_error as error:
            log.warning("no answer", path=path, **describe(error))
            return None

    def _is_due(self, one: Watched, what: str, every_s: float) -> bool:
        """Return whether something is to be done, and that it is done now."""
        now_s = self._clocks.now_s()
        if now_s < one.due_s.get(what, now_s):
            return False
        one.due_s[what] = now_s + every_s
        return True

    @staticmethod
    def _runs(one: Watched, name: str) -> bool:
        task = one.tasks.get(name)
        return task is not None and not task.done()
