"""Watch an exchange through ccxt's streams and hand out what it says as market events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data import binance
from alphapulse.data.binance_feed import BinanceFeed
from alphapulse.data.health import Health
from alphapulse.data.history import NS_PER_MS, fetch_history
from alphapulse.data.outlet import Outlet
from alphapulse.data.patience import Backoff, Clocks
from alphapulse.data.unified import UnifiedFeed
from alphapulse.domain.errors import ConfigError, Unavailable
from alphapulse.domain.market import BarSeries, Instrument, MarketEvent, Timeframe
from alphapulse.interfaces import DataProvider
from alphapulse.logs import describe, get_logger

CANDLES = (Timeframe.M1, Timeframe.H1, Timeframe.D1)
HISTORY_ATTEMPTS = 3
FEEDS = {"binance": BinanceFeed}  # whose own messages we read; all others: UnifiedFeed

log = get_logger("data")


def open_exchange(exchange_id: str, url: str = "") -> Any:
    """Return the ccxt.pro exchange of that id; it connects at its first call and must be closed.

    Args:
        exchange_id: ccxt id.
        url: address that stands in for the venue's own API, such as http://127.0.0.1:8090; only
            Binance's can be moved. Empty is the venue itself.

    Raises ConfigError if ccxt has no streams for it, or if its address cannot be moved.
    """
    import ccxt.pro  # half a second, and a recording needs none of it

    if exchange_id not in ccxt.pro.exchanges:
        raise ConfigError(
            f"exchange: expected a ccxt id with streams, was {exchange_id!r}; "
            "try binance, or see ccxt.pro.exchanges"
        )
    venue = getattr(ccxt.pro, exchange_id)({"enableRateLimit": True, "newUpdates": True})
    if url and exchange_id != "binance":
        raise ConfigError(
            f"market.exchange_url: expected to stand in for binance, was {exchange_id}; "
            "set market.exchanges to binance, or leave the address out"
        )
    if url:
        binance.stand_in(venue, url)
    return venue


async def reachable(
    exchange_id: str,
    *,
    timeout_s: float,
    url: str = "",
    exchange: Callable[[], Any] | None = None,
) -> bool:
    """Return whether the venue answers within `timeout_s`.

    Args:
        exchange_id: ccxt id.
        timeout_s: how long it may take [s].
        url: as in `open_exchange`.
        exchange: makes the exchange, in place of ccxt.pro's.

    Raises ConfigError if ccxt has no streams for the venue.
    """
    import ccxt

    venue = (exchange or partial(open_exchange, exchange_id, url))()
    try:
        async with asyncio.timeout(timeout_s):
            await (venue.fetch_time() if venue.has["fetchTime"] else venue.load_markets())
    except (ccxt.BaseError, TimeoutError) as error:
        log.info("venue not reachable", exchange=exchange_id, **describe(error))
        return False
    finally:
        await venue.close()
    return True


async def first_reachable(
    exchange_ids: Sequence[str],
    *,
    timeout_s: float,
    url: str = "",
    exchange: Callable[[], Any] | None = None,
) -> str | None:
    """Return the first of the venues that answers; None if none does. Arguments as in `reachable`.

    With `url`, only the first is asked: the address stands in for it.
    """
    for exchange_id in exchange_ids[:1] if url else exchange_ids:
        if await reachable(exchange_id, timeout_s=timeout_s, url=url, exchange=exchange):
            return exchange_id
    return None


class Live(DataProvider):
    """A venue as a source of events, as they arrive; a Merger puts them in order.

    Binance's own messages are read: trades leave once each in the order of their numbers, what was
    missed is fetched while everything waits, the book comes as changes and snapshots; see
    BinanceFeed. Other venues come through ccxt's unified streams; see UnifiedFeed. What is lost for
    good is told by a FeedGap. Reconnecting is tried for ever.
    """

    def __init__(
        self,
        exchange_id: str,
        instruments: Sequence[Instrument],
        settings: Feed,
        *,
        url: str = "",
        exchange: Callable[[], Any] | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """Prepare to watch; nothing connects before the first call.

        Args:
            exchange_id: ccxt id of the venue.
            instruments: what is watched.
            settings: bounds and pauses, and how many bars `history` fetches.
            url: as in `open_exchange`.
            exchange: makes the exchange, in place of ccxt.pro's.
            clocks: where the time comes from; None is this machine's.
        """
        self._exchange_id = exchange_id
        self._instruments = tuple(instruments)
        self._settings = settings
        self._clocks = clocks or Clocks()
        self._open = exchange or partial(open_exchange, exchange_id, url)
        self._venue: Any = None
        self._feed: BinanceFeed | UnifiedFeed | None = None
        self._health = Health((i.symbol for i in self._instruments), self._clocks)
        self._next_open_ns: dict[tuple[str, Timeframe], int] = {}

    @property
    def quarantine(self) -> Sequence[tuple[str, str]]:
        """Return (code, message) of the newest messages that could not be events, at most 1000."""
        return self._health.quarantine

    @property
    def num_quarantined(self) -> int:
        """Return the number of all of them."""
        return self._health.quarantined.total()

    def health(self) -> dict[str, Any]:
        """Return how the feed is, as plain values.

        Returns:
            `skew_ms`: the venue's clock minus ours [ms], None while unknown; `quarantined`: number
            of refused messages by reason code; `symbols`: by symbol
            - `age_s`: of the newest message of `trade`, `book`, `candle` [s], None before the first
            - `delay_ms`: from exchange time to us, skew taken out, median of the newest 100 [ms]
            - `fallback`: whether the book is polled, because its stream is silent
            - `down`: whether trades are missing that cannot be had at the moment
            - `reconnects`, `silences` (connections closed because nothing came), `backfilled`
              (trades fetched), `gaps` (told), `book_gaps` (numbers missing), `snapshots` (of the
              book, fetched), `polls` (of the fallback), `dropped` (messages the reader was too slow
              for): numbers since the start.
        """
        return self._health.as_dict()

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Have the whole book of the symbol fetched anew: it went wrong at the change `last_id`."""
        if self._feed is not None:
            self._feed.refresh_book(symbol, last_id)

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the newest `count` bars (`live_history_bars`, if None) the venue has closed.

        One-second bars are made of trades only: none. Raises Unavailable if the venue does not
        answer, InvalidRecording if its bars cannot be bars.
        """
        if timeframe not in CANDLES:
            empty = np.empty((0, 5), np.float64)
            return BarSeries(instrument.symbol, timeframe, np.empty(0, np.int64), empty)
        count = count or self._settings.live_history_bars

        async def fetch() -> BarSeries:
            venue = self._exchange()
            now_ms = await venue.fetch_time()  # the venue decides what has closed, not our clock
            until_ns = int(now_ms) * NS_PER_MS
            return await fetch_history(venue, instrument, timeframe, count, until_ns=until_ns)

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
        """Yield events as they arrive, for ever.

        Raises Unavailable, naming symbol and stream, if one is silent at the start or if the venue
        refuses us.
        """
        outlet = Outlet(watermark_ms=self._settings.watermark_ms)
        running = asyncio.create_task(self._run(outlet))
        try:
            while True:
                yield await outlet.get()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        venue, self._venue = self._venue, None
        if venue is not None:
            await venue.close()

    async def _run(self, outlet: Outlet) -> None:
        """Fill `outlet`; what ends the streams goes to the reader, who raises it."""
        import ccxt

        feed = FEEDS.get(self._exchange_id, UnifiedFeed)
        self._feed = feed(
            self._exchange(),
            self._instruments,
            self._settings,
            errors=(ccxt.NetworkError, ccxt.BaseError),
            outlet=outlet,
            health=self._health,
            clocks=self._clocks,
            next_open_ns=self._next_open_ns,
        )
        try:
            await self._feed.run(CANDLES)
        except ExceptionGroup as group:
            error = group.exceptions[0]
            is_refusal = isinstance(error, ccxt.BaseError)
            symbols = ", ".join(i.symbol for i in self._instruments)
            outlet.fail(self._refused(symbols, error) if is_refusal else error)

    def _exchange(self) -> Any:
        if self._venue is None:
            self._venue = self._open()
        return self._venue

    async def _answered(self, symbol: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the venue answers, within three attempts; raises Unavailable otherwise."""
        import ccxt

        backoff = Backoff(self._clocks, self._settings.reconnect_s)
        while True:
            try:
                return await ask()
            except ccxt.NetworkError as error:
                if backoff.attempts + 1 >= HISTORY_ATTEMPTS:
                    raise self._refused(symbol, error) from None
                log.warning("asking again", symbol=symbol, **describe(error))
                await backoff.pause(self._venue)
            except ccxt.BaseError as error:
                raise self._refused(symbol, error) from None

    def _refused(self, symbol: str, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self._exchange_id} {symbol}: expected market data, was {type(error).__name__}: "
            f"{error}; check market.exchanges, market.symbols and the connection"
        )
