"""Lead the events of some symbols through a cache of their own, up to the instant asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.cache import MarketCache
from alphapulse.data.compiling import compile_kernels
from alphapulse.data.intake import Intake
from alphapulse.data.memory import map_large_blocks
from alphapulse.data.merge import BOOK_RANK, TRADE_RANK
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import (
    TIMEFRAMES,
    Bar,
    BookDelta,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.domain.quality import reason_of
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import MarketWindow
from alphapulse.interfaces import DataProvider
from alphapulse.logs import get_logger

log = get_logger("data")
NO_LEVELS = np.empty((0, 2))


@dataclass(frozen=True, slots=True)
class Ahead:
    """The event that waits in a shard.

    Attributes:
        event_ns: its time [ns UTC], None at the end of the source.
        is_tick: whether it is a trade or a book message.
        close_ns: close of the bar it is, None unless it is one of the lowest timeframe [ns UTC].
    """

    event_ns: int | None = None
    is_tick: bool = False
    close_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a shard has at an instant.

    Attributes:
        is_whole: whether every symbol has what a decision needs: a one-second bar, where there are
            ticks.
        window: of its symbols; None unless it was asked for and is whole.
        newest: time, rank and symbol of the newest trade or book message inside; of two of one
            time the merger's order decides.
        refused: number of events refused so far, by reason.
    """

    is_whole: bool
    window: MarketWindow | None
    newest: tuple[int, int, str]
    refused: Mapping[str, int]


class Shard:
    """The feed and the cache of some symbols; whoever leads it says which instants there are.

    ```python
    shard = Shard(provider, instruments, settings)
    await shard.open()
    ahead = await shard.lead(instant_ns, has_ticks=True)
    shown = await shard.show(instant_ns, has_ticks=True)
    ```

    Attributes:
        cache: everything known of its symbols at the newest instant.
    """

    def __init__(
        self, provider: DataProvider, instruments: Sequence[Instrument], settings: Feed
    ) -> None:
        """Prepare; nothing is read before `open`."""
        map_large_blocks()
        self.cache = MarketCache(instruments, settings)
        self._provider = provider
        self._instruments = tuple(instruments)
        symbols = self._symbols = [instrument.symbol for instrument in instruments]
        self._intake = Intake(
            symbols, settings, touch=self._touch, on_refused_book=self._refresh_book
        )
        self._lowest: Timeframe | None = None  # timeframe of the shortest bars so far
        self._reached_ns = -1  # newest instant shown
        self._applied_ns = -1  # newest event in the cache
        self._newest = (-1, 0, "")

    async def open(self) -> None:
        """Fill the cache with the bars before the first event."""
        await asyncio.to_thread(compile_kernels)
        for timeframe in TIMEFRAMES:
            for instrument in self._instruments:
                series = await self._provider.history(instrument, timeframe, None)
                self.cache.seed(series)
                if len(series) and self._lowest is None:
                    self._lowest = timeframe
                log.info(
                    "history seeded", symbol=series.symbol, timeframe=timeframe, bars=len(series)
                )
        self._intake.open(self._provider.events())

    async def look(self) -> Ahead:
        """Return the next tick or bar of the lowest timeframe, applying what comes before it."""
        while (event := await self._intake.next()) is not None:
            ahead = self._ahead(event)
            if ahead.is_tick or ahead.close_ns is not None:
                self._intake.put_back([event])
                return ahead
            self._apply(event)
        return Ahead()

    async def lead(self, instant_ns: int, *, has_ticks: bool) -> Ahead:
        """Apply every event before `instant_ns` and return the one that waits then.

        Where candles are all there was so far, the first tick ends it early.
        """
        while (event := await self._intake.next()) is not None:
            ahead = self._ahead(event)
            if event.ts_ns >= instant_ns or (ahead.is_tick and not has_ticks):
                self._intake.put_back([event])
                return ahead
            self._apply(event)
        return Ahead()

    async def show(self, instant_ns: int, *, has_ticks: bool, is_wanted: bool = True) -> Shown:
        """Close what ends at `instant_ns`, which `lead` has reached, and return what is there."""
        self.cache.close_until(instant_ns)
        self._reached_ns = instant_ns
        is_whole = self.cache.has_seconds if has_ticks else self._applied_ns >= 0
        window = self.cache.window(instant_ns) if is_whole and is_wanted else None
        refused = self._refused() + Counter(self._intake.late)
        return Shown(is_whole, window, self._newest, refused)

    async def quote(self, symbol: str, at_ns: int, *, has_ticks: bool) -> Quote | None:
        """Return what an order of `symbol` meets at `at_ns`; see `Shards.quote`."""
        if await self.has_passed(symbol, at_ns):
            raise Unavailable(
                f"quote of {symbol} at {at_ns}: expected a time after {self._applied_ns}, which "
                "the feed has reached; replay to the instant before it"
            )
        return await (self._met(symbol, at_ns) if has_ticks else self._open(symbol, at_ns))

    async def has_passed(self, symbol: str, at_ns: int) -> bool:
        """Return whether events at or after `at_ns` [ns UTC] have been applied already."""
        return at_ns <= self._applied_ns

    async def view(self, what: str, arguments: Mapping[str, Any]) -> Any:
        """Return a view for people: `counters`, `health`, or one of the cache.

        `cached` is all it holds of a symbol, a CacheView.
        """
        if what == "cached":
            return self.cache.view([arguments["symbol"]])
        if what in ("counters", "health"):
            return getattr(self, what)()
        return getattr(self.cache, what)(**arguments)

    def counters(self) -> dict[str, Any]:
        """Return how many events and bars there were, and how many were refused, by reason."""
        cache, intake = self.cache, self._intake
        return {
            "events": cache.num_events,
            "bars": {tf.value: cache.num_bars[tf.value] for tf in TIMEFRAMES},
            "late": dict(intake.late),
            "late_candles": intake.late_candles,
            "quarantined": dict(self._refused()),
        }

    def health(self) -> dict[str, Any]:
        """Return how the source is; see `DataProvider.health`."""
        return dict(self._provider.health())

    def _refused(self) -> Counter[str]:
        refused: Counter[str] = Counter(self.cache.quarantined)
        refused.update(self._intake.refused)
        for code, count in self._provider.health().get("quarantined", {}).items():
            refused[reason_of(code)] += count
        return refused

    def _ahead(self, event: MarketEvent) -> Ahead:
        if isinstance(event, Trade | BookDelta):
            return Ahead(event.ts_ns, True)
        if not isinstance(event, Bar):
            return Ahead(event.ts_ns)
        if self._lowest is None or event.timeframe.ns < self._lowest.ns:
            self._lowest = event.timeframe
        is_next = event.timeframe is self._lowest and event.close_ns > self._reached_ns
        return Ahead(event.ts_ns, False, event.close_ns if is_next else None)

    def _apply(self, event: MarketEvent) -> None:
        num_refused = self.cache.quarantined.total()
        self.cache.apply(event)
        if isinstance(event, BookDelta) and self.cache.quarantined.total() > num_refused:
            self._refresh_book(event)
        self._applied_ns = max(self._applied_ns, event.ts_ns)
        if isinstance(event, Trade | BookDelta) and event.ts_ns >= self._newest[0]:
            rank = TRADE_RANK if isinstance(event, Trade) else BOOK_RANK
            self._newest = (event.ts_ns, rank, event.symbol)

    def _refresh_book(self, wrong: BookDelta) -> None:
        if wrong.symbol in self._symbols:
            self._provider.refresh_book(wrong.symbol, wrong.last_id)

    async def _met(self, symbol: str, at_ns: int) -> Quote | None:
        while (event := await self._intake.next()) is not None:
            if event.ts_ns >= at_ns:
                self._intake.put_back([event])
                return self.cache.quote(symbol, at_ns)
            self._apply(event)
        return None

    async def _open(self, symbol: str, at_ns: int) -> Quote | None:
        """Return the open of the next bar; the bars on the way wait for their instants."""
        passed: list[MarketEvent] = []
        found: Bar | None = None
        while found is None and (event := await self._intake.next()) is not None:
            passed.append(event)
            if isinstance(event, Bar) and (event.symbol, event.timeframe) == (symbol, self._lowest):
                found = event if event.open_ns >= self._reached_ns else None
        self._intake.put_back(passed)
        if found is None:
            return None
        return Quote(symbol, at_ns, "open", found.open, NO_LEVELS, NO_LEVELS)

    def _touch(self, symbol: str) -> tuple[float, float] | None:
        quote = self.cache.quote(symbol, self._applied_ns)
        if quote is None or quote.source != "book":
            return None
        return float(quote.bids_L2[0, 0]), float(quote.asks_L2[0, 0])
