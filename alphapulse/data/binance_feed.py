"""Lead every message of Binance's streams to the symbol it is about, and keep the streams open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alphapulse.config import Feed
from alphapulse.data import binance
from alphapulse.data.binance import Kline, Unreadable
from alphapulse.data.book_stream import BookStream
from alphapulse.data.candle_stream import CandleStream
from alphapulse.data.health import Health, SymbolHealth
from alphapulse.data.outlet import Outlet
from alphapulse.data.patience import Backoff, Clocks
from alphapulse.data.session import Session
from alphapulse.data.trade_stream import TradeStream
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import BookDelta, Instrument, Timeframe, Trade
from alphapulse.logs import describe, get_logger

WATCH_S = 0.5  # between two looks at the ages of the streams
TIME_S = 60.0  # between two questions for the venue's time
KINDS = {Trade: "trade", BookDelta: "book", Kline: "candle"}

log = get_logger("data")


@dataclass(frozen=True, slots=True)
class Watched:
    """The streams of one symbol."""

    health: SymbolHealth
    trades: TradeStream
    book: BookStream
    candles: CandleStream


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
        self._session = session = Session(
            venue=venue,
            settings=settings,
            errors=errors,
            outlet=outlet,
            health=health,
            clocks=clocks,
        )
        self._names = {i.venue_symbol: i.symbol for i in instruments}
        self._markets: dict[str, Watched] = {}
        for instrument in instruments:
            symbol = instrument.symbol
            opens = {tf: ns for (s, tf), ns in next_open_ns.items() if s == symbol}
            self._markets[symbol] = Watched(
                health.of(symbol),
                TradeStream(session, instrument),
                BookStream(session, instrument),
                CandleStream(session, instrument, opens),
            )
        outlet.on_late_book = lambda change: self._markets[change.symbol].book.lose()

    async def run(self, timeframes: Sequence[Timeframe]) -> None:
        """Watch for ever; raises Unavailable or ccxt's error if the venue refuses us."""
        session, symbols = self._session, list(self._markets)
        venue = session.venue
        binance.listen(venue, self._hear, self._confirmed)
        pairs = [[symbol, timeframe.value] for symbol in symbols for timeframe in timeframes]
        candles = partial(venue.watch_ohlcv_for_symbols, pairs)
        try:
            async with session.tasks as tasks:
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
            session.is_over = True

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Ask for the whole book anew: the reader's went wrong at the change `last_id`."""
        self._markets[symbol].book.doubt(last_id)

    async def _stay(
        self, stream: str, symbols: Sequence[str], connect: Callable[[], Awaitable[object]]
    ) -> None:
        """Keep a stream subscribed; ccxt's call lasts as long as the connection does."""
        session = self._session
        backoff = Backoff(session.clocks, session.settings.reconnect_s)
        while True:
            begun_s = session.clocks.now_s()
            try:
                await connect()
            except session.errors[0] as error:
                log.warning("stream down", stream=stream, symbols=symbols, **describe(error))
            for one in map(self._markets.__getitem__, symbols):
                one.health.counters["reconnects"] += 1
                if one.health.age_s(stream) < session.clocks.now_s() - begun_s:
                    backoff.reset()
                if stream == "trade":
                    one.trades.deafen()
            await backoff.pause(session.venue)

    def _confirmed(self, name: str) -> None:
        """Take the name of a stream that the venue has confirmed."""
        stream, _, symbol = name.partition("::")
        one = self._markets.get(symbol)
        if one is None:
            return
        if stream == "trade":
            one.trades.subscribed.set()
        elif stream == "orderbook":
            one.book.require_snapshot()

    def _hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of any stream; it must not raise, or ccxt stops reading."""
        session = self._session
        if session.is_over:
            return
        received_ns = session.clocks.wall_ns()
        event = binance.read(message, self._names, received_ns)
        if isinstance(event, Unreadable):
            session.health.refuse(event.code, event.message)
            return
        one = self._markets[event.symbol]
        one.health.heard(KINDS[type(event)])
        if session.outlet.is_full:
            one.health.counters["dropped"] += 1
            return
        if isinstance(event, Kline):
            one.candles.take(event)
            return
        one.health.took(event.ts_ns, received_ns)
        session.health.skew.heard(event.ts_ns, received_ns)
        if isinstance(event, Trade):
            one.trades.take(event)
        else:
            one.book.take(event)

    async def _watch(self, one: Watched) -> None:
        while True:
            await self._session.clocks.sleep(WATCH_S)
            await one.book.watch()
            await one.trades.watch()
            one.book.follow(one.trades.price)
            one.candles.watch()

    async def _require_start(self) -> None:
        """Fail if a stream has not begun in time; a symbol nobody trades has begun all the same."""
        start_s = self._session.settings.start_s
        await self._session.clocks.sleep(start_s)
        for symbol, one in self._markets.items():
            silent = None
            if one.book.first_ns is None or not one.health.counters["snapshots"]:
                silent = "book"
            elif not one.health.has_heard("trade") and await one.trades.has_traded(
                one.book.first_ns
            ):
                silent = "trades"
            if silent is not None:
                raise Unavailable(
                    f"binance {symbol} {silent}: expected a message within {start_s:g} s, was "
                    "none; check market.symbols and the network, or name another venue first in "
                    "market.exchanges"
                )

    async def _keep_time(self) -> None:
        while True:
            await self._session.ask_time()
            await self._session.clocks.sleep(TIME_S)
