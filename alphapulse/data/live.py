"""Watch an exchange through ccxt's streams and hand out what it says as market events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_never,
    wait_exponential_jitter,
)

from alphapulse.data.history import NS_PER_MS, fetch_history
from alphapulse.domain.errors import ConfigError, InvalidEvent, Unavailable
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    Floats,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider
from alphapulse.logs import describe, get_logger

CANDLES = (Timeframe.M1, Timeframe.H1, Timeframe.D1)
BOOK_LEVELS = 1_000  # a side; as deep as Binance's own snapshot, 2026-11
QUEUE_EVENTS = 10_000  # at the bound the streams wait for the reader; see Live
QUARANTINE_SIZE = 1_000
LONGEST_PAUSE_S = 30.0  # between two attempts to reconnect
HISTORY_ATTEMPTS = 3

log = get_logger("data")

Receive = Callable[[], Awaitable[list[MarketEvent]]]
Queue = asyncio.Queue[MarketEvent | Exception]


def open_exchange(exchange_id: str) -> Any:
    """Return the ccxt.pro exchange of that id; it connects at its first call and must be closed.

    Raises ConfigError if ccxt has no streams for it.
    """
    import ccxt.pro  # half a second, and a recording needs none of it

    if exchange_id not in ccxt.pro.exchanges:
        raise ConfigError(
            f"market.exchange: expected a ccxt id with streams, was {exchange_id!r}; "
            "try binance, or see ccxt.pro.exchanges"
        )
    return getattr(ccxt.pro, exchange_id)({"enableRateLimit": True, "newUpdates": True})


async def reachable(
    exchange_id: str, *, timeout_s: float, exchange: Callable[[], Any] | None = None
) -> bool:
    """Return whether the venue answers within `timeout_s`.

    Args:
        exchange_id: ccxt id.
        timeout_s: how long it may take [s].
        exchange: makes the exchange, in place of ccxt.pro's.

    Raises ConfigError if ccxt has no streams for the venue.
    """
    import ccxt

    venue = (exchange or partial(open_exchange, exchange_id))()
    try:
        async with asyncio.timeout(timeout_s):
            await (venue.fetch_time() if venue.has["fetchTime"] else venue.load_markets())
    except (ccxt.BaseError, TimeoutError) as error:
        log.info("venue not reachable", exchange=exchange_id, **describe(error))
        return False
    finally:
        await venue.close()
    return True


class Live(DataProvider):
    """A venue as a source of events, as they arrive; a Merger puts them in order.

    Trades come one by one, the book as snapshots of 1000 levels a side, and the venue's candles
    when the next one has begun. All streams fill one queue of 10 000 events. When it is full they
    wait for the reader; trades the venue sent meanwhile may be lost, which their ids show.

    Lost seconds are told, never filled: a FeedGap stands before the first event after a network
    error, and before a trade whose id does not follow the last. Reconnecting is tried for ever,
    after 1 s, 2 s, ... 30 s.

    Attributes:
        quarantine: (code, message) of the newest messages that could not be events, at most 1000.
        num_quarantined: number of all of them.
    """

    def __init__(
        self,
        exchange_id: str,
        instruments: Sequence[Instrument],
        *,
        history_bars: int,
        exchange: Callable[[], Any] | None = None,
        first_pause_s: float = 1.0,
    ) -> None:
        """Prepare to watch; nothing connects before the first call.

        Args:
            exchange_id: ccxt id of the venue.
            instruments: what is watched.
            history_bars: bars `history` fetches where no count is asked for.
            exchange: makes the exchange, in place of ccxt.pro's.
            first_pause_s: pause before the first attempt to reconnect [s].
        """
        self.quarantine: deque[tuple[str, str]] = deque(maxlen=QUARANTINE_SIZE)
        self.num_quarantined = 0
        self._exchange_id = exchange_id
        self._instruments = tuple(instruments)
        self._history_bars = history_bars
        self._open = exchange or partial(open_exchange, exchange_id)
        self._first_pause_s = first_pause_s
        self._venue: Any = None
        self._next_open_ns: dict[tuple[str, Timeframe], int] = {}
        self._last_trade: dict[str, Trade] = {}

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the newest `count` bars (`history_bars`, if None) the venue has closed.

        One-second bars are made of trades only: none. Raises Unavailable if the venue does not
        answer, InvalidRecording if its bars cannot be bars.
        """
        if timeframe not in CANDLES:
            empty = np.empty((0, 5), np.float64)
            return BarSeries(instrument.symbol, timeframe, np.empty(0, np.int64), empty)
        fetch = partial(self._fetch, instrument, timeframe, count or self._history_bars)
        series: BarSeries = await self._answered(instrument.symbol, fetch)
        if len(series):
            newest = int(series.open_ns_T[-1])
            self._next_open_ns[instrument.symbol, timeframe] = newest + timeframe.ns
        return series

    async def now_ns(self) -> int:
        """Return the venue's time [ns UTC]; raises Unavailable if the venue does not answer."""

        async def ask() -> int:
            return int(await self._exchange().fetch_time()) * NS_PER_MS

        now_ns: int = await self._answered("time", ask)
        return now_ns

    async def candles(
        self, symbol: str, timeframe: Timeframe, *, since_ns: int, limit: int
    ) -> list[Sequence[float]]:
        """Return one page of the venue's candles, as it gives them: the last may still be forming.

        Args:
            symbol: ccxt's name; it need not be one that is watched.
            timeframe: length of a bar.
            since_ns: open of the first bar asked for [ns UTC].
            limit: most bars asked for; a venue may give fewer.

        Returns:
            Rows of open [ms UTC], open, high, low, close, volume.

        Raises Unavailable if the venue does not answer.
        """

        async def ask() -> Any:
            return await self._exchange().fetch_ohlcv(
                symbol, timeframe.value, since=since_ns // NS_PER_MS, limit=limit
            )

        rows: list[Sequence[float]] = await self._answered(symbol, ask)
        return rows

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield events as they arrive, for ever; raises Unavailable if the venue refuses us."""
        queue: Queue = asyncio.Queue(QUEUE_EVENTS)
        feeds = [
            asyncio.create_task(self._feed(queue, instrument.symbol, receive))
            for instrument in self._instruments
            for receive in self._streams(instrument)
        ]
        try:
            while True:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        venue, self._venue = self._venue, None
        if venue is not None:
            await venue.close()

    def _exchange(self) -> Any:
        if self._venue is None:
            self._venue = self._open()
        return self._venue

    def _streams(self, instrument: Instrument) -> list[Receive]:
        candles = [partial(self._receive_candles, instrument, timeframe) for timeframe in CANDLES]
        return [
            partial(self._receive_trades, instrument.symbol),
            partial(self._receive_book, instrument.symbol),
            *candles,
        ]

    async def _feed(self, queue: Queue, symbol: str, receive: Receive) -> None:
        """Fill `queue` from one stream; what ends the stream goes to the reader, who raises it."""
        import ccxt

        newest: MarketEvent | None = None
        lost = ""  # why the feed was down, until an event says that it is up again
        try:
            while True:
                try:
                    events = await receive()
                except ccxt.NetworkError as error:
                    log.warning("feed down", symbol=symbol, **describe(error))
                    events = await self._retrying(symbol)(receive)
                    lost = type(error).__name__
                if lost and events:
                    events = [*_gap(newest, events, reason=lost), *events]
                    lost = ""
                for event in events:
                    await queue.put(event)
                    newest = event
        except ccxt.BaseError as error:
            await queue.put(self._refused(symbol, error))
        except Exception as error:
            await queue.put(error)

    async def _answered(self, symbol: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the venue answers, within three attempts; raises Unavailable otherwise."""
        import ccxt

        try:
            return await self._retrying(symbol, attempts=HISTORY_ATTEMPTS)(ask)
        except ccxt.BaseError as error:
            raise self._refused(symbol, error) from None

    def _retrying(self, symbol: str, *, attempts: int | None = None) -> AsyncRetrying:
        import ccxt

        def tell(state: RetryCallState) -> None:
            log.warning("reconnecting", symbol=symbol, attempt=state.attempt_number)

        return AsyncRetrying(
            retry=retry_if_exception_type(ccxt.NetworkError),
            wait=wait_exponential_jitter(
                multiplier=self._first_pause_s, max=LONGEST_PAUSE_S, jitter=0.1
            ),
            stop=stop_after_attempt(attempts) if attempts else stop_never,
            before_sleep=tell,
            reraise=True,
        )

    def _refused(self, symbol: str, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self._exchange_id} {symbol}: expected market data, was {type(error).__name__}: "
            f"{error}; check market.exchange, market.symbols and the connection"
        )

    async def _fetch(self, instrument: Instrument, timeframe: Timeframe, count: int) -> BarSeries:
        venue = self._exchange()
        now_ms = await venue.fetch_time()  # the venue decides what has closed, not our clock
        until_ns = int(now_ms) * NS_PER_MS
        return await fetch_history(venue, instrument, timeframe, count, until_ns=until_ns)

    async def _receive_trades(self, symbol: str) -> list[MarketEvent]:
        rows = await self._exchange().watch_trades(symbol)
        received_ns = time.time_ns()
        events: list[MarketEvent] = []
        for row in rows:
            trade = self._built(partial(_trade, symbol, received_ns, row))
            if not isinstance(trade, Trade):
                continue
            last = self._last_trade.get(symbol)
            if last is not None and trade.trade_id > last.trade_id + 1:
                lost = f"trades {last.trade_id + 1} to {trade.trade_id - 1} did not arrive"
                events.append(FeedGap(symbol, trade.ts_ns, last.ts_ns, lost))
            self._last_trade[symbol] = trade
            events.append(trade)
        return events

    async def _receive_book(self, symbol: str) -> list[MarketEvent]:
        book = await self._exchange().watch_order_book(symbol)
        delta = self._built(partial(_snapshot, symbol, time.time_ns(), book))
        return [] if delta is None else [delta]

    async def _receive_candles(
        self, instrument: Instrument, timeframe: Timeframe
    ) -> list[MarketEvent]:
        """Return the candles closed since the last: the stream says when, REST says what."""
        venue, key = self._exchange(), (instrument.symbol, timeframe)
        rows = await venue.watch_ohlcv(instrument.symbol, timeframe.value)
        forming_ns = int(rows[-1][0]) * NS_PER_MS
        next_ns = self._next_open_ns.setdefault(key, forming_ns)
        count = (forming_ns - next_ns) // timeframe.ns
        if count <= 0:
            return []
        series = await fetch_history(venue, instrument, timeframe, count, until_ns=forming_ns)
        if len(series):
            self._next_open_ns[key] = int(series.open_ns_T[-1]) + timeframe.ns
        bars = zip(series.open_ns_T.tolist(), series.ohlcv_TC.tolist(), strict=True)
        return [
            Bar(*key, open_ns, first, high, low, last, volume, is_venue=True)
            for open_ns, (first, high, low, last, volume) in bars
        ]

    def _built(self, build: Callable[[], MarketEvent]) -> MarketEvent | None:
        """Return the event, or None with the reason in the quarantine."""
        try:
            return build()
        except (TypeError, ValueError, KeyError) as error:  # InvalidEvent is a ValueError
            code = error.code if isinstance(error, InvalidEvent) else InvalidEvent.__name__
            self.quarantine.append((code, f"{type(error).__name__}: {error}"))
            self.num_quarantined += 1
            return None


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
