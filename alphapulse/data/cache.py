"""Hold the newest of all a decision may look at, and give it out as windows that never change."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data import views, windows
from alphapulse.data.book import BookChange
from alphapulse.data.symbol_cache import SECONDS, SymbolCache
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import (
    SECOND_NS,
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
    Trades,
)
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import CacheView, MarketWindow
from alphapulse.features import registry
from alphapulse.features.grid import iso

QUARANTINE_SIZE = 1_000  # newest refused events kept to look at; the counter knows all of them


class MarketCache:
    """The newest bars, indicators, pivots, books and trades of every symbol, up to one moment.

    Events come in order; what came out of order or cannot be is refused and counted, but for a
    trade: it is kept as one, and the rows that closed without it are flagged INCOMPLETE. Time moves
    on with the events and with `close_until`, never by itself.

    No reader sees a torn state. A window or view is made in one call, between two events; rows and
    trades in it are views of memory written before and never again, and what still changes (forming
    rows, the book) is copied. So all of it comes from one moment, however long it is kept.

    ```python
    cache = MarketCache(instruments, settings)
    cache.seed(series)  # of every symbol and timeframe
    cache.apply(event)
    window = cache.window(event_ns)
    ```

    Attributes:
        num_events: trades and book messages taken.
        num_bars: by timeframe, bars closed since the first event, all symbols together.
        quarantined: number of refused events by reason: `unknown_symbol`, `out_of_order`,
            `invalid`, `sequence_gap`, `crossed`.
        quarantine: (reason, event) of the newest of them, at most 1000; older ones leave it.
    """

    def __init__(self, instruments: Sequence[Instrument], settings: Feed) -> None:
        self.num_events = 0
        self.num_bars: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self.quarantine: deque[tuple[str, MarketEvent]] = deque(maxlen=QUARANTINE_SIZE)
        self._settings = settings
        registry.load(settings.indicators)
        self._symbols = {i.symbol: SymbolCache(i, settings) for i in instruments}
        self._closed_ns = -1  # every bar that ends by now is closed
        self._newest_ns = -1  # newest event taken
        self._due: set[int] = set()  # closes of candles to come, where candles are all there is
        self._has_ticks = False
        self._version = 0  # of the newest window
        self._num_changes = 0
        self._received_ns = 0

    def seed(self, series: BarSeries) -> None:
        """Take the closed bars of one stream from before the first event, all there are."""
        self._num_changes += 1
        self._symbols[series.symbol].seed(series)

    @property
    def has_seconds(self) -> bool:
        """Return whether every symbol has closed a one-second bar."""
        return all(len(cache.rows[SECONDS]) for cache in self._symbols.values())

    def apply(self, event: MarketEvent) -> None:
        """Take the next event; all that ends before its second is closed first."""
        cache = self._symbols.get(event.symbol)
        if cache is None:
            self._refuse("unknown_symbol", event)
            return
        self._num_changes += 1
        if isinstance(event, FeedGap):  # first of all: the seconds about to close lie in it
            cache.take_gap(event)
            return
        if self._closed_ns < 0:
            self._closed_ns = Timeframe.S1.floor(event.ts_ns)
        if isinstance(event, Bar):
            cache.take_candle(event)
            self._due.add(event.close_ns)
            return
        if event.ts_ns < self._closed_ns:
            self._take_late(cache, event)
            return
        self._has_ticks = True
        self.close_until(event.ts_ns)
        if isinstance(event, Trade):
            is_taken = self._take_trade(cache, event)
        else:
            is_taken = self._take_delta(cache, event)
        if is_taken:
            self._note(1, event.ts_ns, event.received_ns)

    def apply_trades(self, trades: Trades) -> None:
        """Take trades of one symbol at once, at least one, as `apply` takes one after the other.

        Of the other symbols every event before the second of the newest must be there.
        """
        cuts = np.flatnonzero(np.diff(trades.ts_ns_N // SECOND_NS)) + 1
        for first, end in pairwise((0, *cuts.tolist(), len(trades))):
            self._apply_second(trades.part(slice(first, end)))

    def _apply_second(self, trades: Trades) -> None:
        cache = self._symbols.get(trades.symbol)
        if cache is None:
            self._refuse_all("unknown_symbol", trades)
            return
        self._num_changes += 1
        first_ns = int(trades.ts_ns_N[0])
        if self._closed_ns < 0:
            self._closed_ns = Timeframe.S1.floor(first_ns)
        if first_ns < self._closed_ns:
            for i in range(len(trades)):
                self._take_late(cache, trades.row(i))
            return
        self._has_ticks = True
        self.close_until(first_ns)
        is_new_N = cache.take_trades(trades)
        if not is_new_N.all():
            self._refuse_all("out_of_order", trades.part(~is_new_N))
            trades = trades.part(is_new_N)
        if len(trades):
            self._note(len(trades), int(trades.ts_ns_N[-1]), int(trades.received_ns_N[-1]))

    def _take_trade(self, cache: SymbolCache, trade: Trade) -> bool:
        is_new = cache.take_trade(trade)
        if not is_new:
            self._refuse("out_of_order", trade)
        return is_new

    def _take_delta(self, cache: SymbolCache, delta: BookDelta) -> bool:
        try:
            change = cache.take_delta(delta)
        except InvalidEvent:
            self._refuse("invalid", delta)
            return False
        if change in (BookChange.GAP, BookChange.CROSSED):
            self._refuse(change.value, delta)
        return True

    def _take_late(self, cache: SymbolCache, event: Trade | BookDelta) -> None:
        if isinstance(event, Trade) and cache.take_late(event):
            self._note(1, event.ts_ns, event.received_ns)
        else:
            self._refuse("out_of_order", event)

    def _note(self, count: int, ts_ns: int, received_ns: int) -> None:
        self.num_events += count
        self._newest_ns = max(self._newest_ns, ts_ns)
        self._received_ns = received_ns

    def _refuse(self, reason: str, event: MarketEvent) -> None:
        self.quarantined[reason] += 1
        self.quarantine.append((reason, event))

    def _refuse_all(self, reason: str, trades: Trades) -> None:
        for i in range(len(trades)):
            self._refuse(reason, trades.row(i))

    def close_until(self, event_ns: int) -> None:
        """Close every bar and book second that ends at or before `event_ns` [ns UTC]."""
        if self._closed_ns < 0 or event_ns < self._closed_ns + SECOND_NS:
            return
        self._num_changes += 1
        boundaries: Iterable[int] = range(self._closed_ns + SECOND_NS, event_ns + 1, SECOND_NS)
        if not self._has_ticks:
            boundaries = sorted(ns for ns in self._due if ns <= event_ns)
        for boundary_ns in boundaries:
            for cache in self._symbols.values():
                for bar in cache.close(boundary_ns):
                    self.num_bars[bar.timeframe.value] += 1
        self._due = {ns for ns in self._due if ns > event_ns}
        self._closed_ns = Timeframe.S1.floor(event_ns)

    def window(self, event_ns: int) -> MarketWindow:
        """Return everything as it is at `event_ns`, under the next version number.

        Args:
            event_ns: a whole second at or after every event taken [ns UTC].
        """
        self.close_until(event_ns)
        if event_ns != self._closed_ns:
            raise InvalidEvent(
                f"window at {event_ns}: expected a whole second at or after {self._closed_ns}, "
                "which the cache has reached; ask for that one"
            )
        self._version += 1
        return windows.window(
            self._symbols, event_ns, version=self._version, received_ns=self._received_ns
        )

    def view(self, symbols: Sequence[str]) -> CacheView:
        """Return all that is kept of `symbols` now, the second that is not over included.

        It changes nothing and moves no time on: a reader may ask as often as it likes.

        Args:
            symbols: whose; each is one of the instruments.
        """
        return windows.view(
            {symbol: self._symbols[symbol] for symbol in symbols},
            self._settings,
            closed_ns=self._closed_ns,
            at_ns=max(self._closed_ns, self._newest_ns),
            version=self._num_changes,
            received_ns=self._received_ns,
        )

    def candles(self, symbol: str, timeframe: str, count: int) -> list[dict[str, Any]]:
        """Return the newest `count` closed bars and the forming one as plain values."""
        return views.candles(self._symbols[symbol], Timeframe(timeframe), count, self._closed_ns)

    def book(self, symbol: str) -> dict[str, Any]:
        """Return the touch and the buckets within one percent of the mid; None where unknown."""
        return views.book(self._symbols[symbol])

    def quote(self, symbol: str, at_ns: int) -> Quote | None:
        """Return what an order at `at_ns` meets now, None before the first price."""
        return self._symbols[symbol].quote(at_ns)

    def pivots(self, symbol: str, timeframe: str) -> list[dict[str, Any]]:
        """Return the newest confirmed pivots of all levels, oldest first, as plain values."""
        return views.pivots(self._symbols[symbol], Timeframe(timeframe))

    def trades(self, symbol: str) -> Trades:
        """Return the trades of the last `cache_s` seconds, oldest first."""
        return self._symbols[symbol].trades

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every symbol under the newest version number, as plain values."""
        now_ns = self._closed_ns
        return {
            "event_at": iso(now_ns) if now_ns >= 0 else None,
            "version": self._version,
            "symbols": {s: views.state(cache, now_ns) for s, cache in self._symbols.items()},
        }
