"""Hold the newest of all a decision may look at, and give it out as windows that never change."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.bars import BarMaker
from alphapulse.data.book import Book, BookChange
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.inference import INPUT_SPEC
from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BarFlag,
    BarSeries,
    BookDelta,
    BookWindow,
    FeedGap,
    Flags,
    Floats,
    Instrument,
    Ints,
    MarketEvent,
    MarketWindow,
    StreamWindow,
    Timeframe,
    Trade,
)
from alphapulse.domain.trading import Quote
from alphapulse.features.grid import iso
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.rows import BOOK_COLUMNS, COLUMNS

# axes: T row, oldest first · C column of the rows
NUM_SLOTS = INPUT_SPEC.num_rows
FORMING, PARTIAL = int(BarFlag.FORMING), int(BarFlag.PARTIAL)
QUARANTINE_SIZE = 1_000  # newest refused events kept to look at; the counter knows all of them
SECONDS = Timeframe.S1
QUOTE_LEVELS = 500  # a side: an order walks no further
FormingRow = tuple[Floats, int]  # row, BarFlag bits


class Rows:
    """Rows of one stream, written once: a view that was handed out never changes."""

    def __init__(self, *, keep: int, num_columns: int) -> None:
        self._keep = keep
        self._num = 0
        self._allocate(4 * keep, num_columns)

    def __len__(self) -> int:
        return min(self._num, self._keep)

    def append(self, ts_ns: int, row_C: Floats, flags: int) -> None:
        """Write the next row; the oldest leaves once `keep` are there."""
        if self._num == len(self._ts_ns_T):  # move on to new memory: views keep the old
            ts_ns_T, rows_TC, flags_T = self.newest(self._keep)
            self._allocate(len(self._ts_ns_T), self._rows_TC.shape[1])
            self._num = len(ts_ns_T)
            self._ts_ns_T[: self._num] = ts_ns_T
            self._rows_TC[: self._num] = rows_TC
            self._flags_T[: self._num] = flags_T
        self._ts_ns_T[self._num] = ts_ns
        self._rows_TC[self._num] = row_C
        self._flags_T[self._num] = flags
        self._num += 1

    def newest(self, count: int, *, from_ns: int = 0) -> tuple[Ints, Floats, Flags]:
        """Return read-only views of the newest `count` rows at or after `from_ns`."""
        first = max(self._num - min(count, self._keep), 0)
        first += int(np.searchsorted(self._ts_ns_T[first : self._num], from_ns))
        shown = slice(first, self._num)
        ts_ns_T, rows_TC = self._ts_ns_T[shown], self._rows_TC[shown]
        flags_T = self._flags_T[shown]
        ts_ns_T.flags.writeable = rows_TC.flags.writeable = flags_T.flags.writeable = False
        return ts_ns_T, rows_TC, flags_T

    def _allocate(self, size: int, num_columns: int) -> None:
        self._ts_ns_T = np.empty(size, np.int64)
        self._rows_TC = np.empty((size, num_columns))
        self._flags_T = np.empty(size, np.uint8)


@dataclass(slots=True)
class _Market:
    """All that is kept of one symbol."""

    bars: BarMaker
    book: Book
    builders: dict[Timeframe, RowBuilder]
    rows: dict[Timeframe, Rows]
    book_rows: Rows
    trades: deque[Trade] = field(default_factory=deque)
    has_book: bool = False
    last_trade_id: int = 0
    last_book_id: int = 0


class MarketCache:
    """The newest bars, indicators, pivots, books and trades of every symbol, up to one moment.

    Events come in order; what came out of order or cannot be is refused and counted. Time moves on
    with the events and with `close_until`, never by itself.

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
        self._markets = {i.symbol: self._market(i) for i in instruments}
        self._closed_ns = -1  # every bar that ends by now is closed
        self._due: set[int] = set()  # closes of candles to come, where candles are all there is
        self._has_ticks = False
        self._version = 0
        self._received_ns = 0

    def _market(self, instrument: Instrument) -> _Market:
        keep, symbol = self._settings.cache_bars, instrument.symbol
        return _Market(
            bars=BarMaker(symbol, gap_s=self._settings.gap_s),
            book=Book(instrument),
            builders={tf: RowBuilder(symbol, tf) for tf in TIMEFRAMES},
            rows={tf: Rows(keep=keep, num_columns=len(COLUMNS)) for tf in TIMEFRAMES},
            book_rows=Rows(keep=self._settings.cache_s, num_columns=len(BOOK_COLUMNS)),
        )

    def seed(self, series: BarSeries) -> None:
        """Take the closed bars of one stream from before the first event, all there are."""
        market = self._markets[series.symbol]
        market.bars.seed(series)
        rows_TC, flags_T = market.builders[series.timeframe].open(series)
        rows, keep = market.rows[series.timeframe], self._settings.cache_bars
        newest = (series.open_ns_T[-keep:].tolist(), rows_TC[-keep:], flags_T[-keep:].tolist())
        for ts_ns, row_C, flags in zip(*newest, strict=True):
            rows.append(ts_ns, row_C, flags)

    @property
    def has_seconds(self) -> bool:
        """Return whether every symbol has closed a one-second bar."""
        return all(len(market.rows[SECONDS]) for market in self._markets.values())

    def apply(self, event: MarketEvent) -> None:
        """Take the next event; all that ends before its second is closed first."""
        market = self._markets.get(event.symbol)
        if market is None:
            self._refuse("unknown_symbol", event)
            return
        if isinstance(event, FeedGap):  # first of all: the seconds about to close lie in it
            market.bars.gap(event.from_ns, event.ts_ns)
            market.book.forget()
            return
        if self._closed_ns < 0:
            self._closed_ns = event.ts_ns - event.ts_ns % SECOND_NS
        if isinstance(event, Bar):
            market.bars.venue(event)
            self._due.add(event.close_ns)
            return
        if event.ts_ns < self._closed_ns:
            self._refuse("out_of_order", event)
            return
        self._has_ticks = True
        self.close_until(event.ts_ns)
        if isinstance(event, Trade):
            is_taken = self._take_trade(market, event)
        else:
            is_taken = self._take_delta(market, event)
        if is_taken:
            self.num_events += 1
            self._received_ns = event.received_ns

    def _take_trade(self, market: _Market, trade: Trade) -> bool:
        if trade.trade_id <= market.last_trade_id:
            self._refuse("out_of_order", trade)
            return False
        market.last_trade_id = trade.trade_id
        market.bars.heard(trade.ts_ns)
        market.bars.trade(trade.ts_ns, trade.price, trade.size)
        market.book.note_trade(trade.price, trade.size, is_buy=trade.is_buy)
        market.trades.append(trade)
        return True

    def _take_delta(self, market: _Market, delta: BookDelta) -> bool:
        try:
            change = market.book.apply(delta)
        except InvalidEvent:
            self._refuse("invalid", delta)
            return False
        market.bars.heard(delta.ts_ns)
        market.has_book = True
        market.last_book_id = max(market.last_book_id, delta.last_id)
        if change in (BookChange.GAP, BookChange.CROSSED):
            self._refuse(change.value, delta)
        return True

    def _refuse(self, reason: str, event: MarketEvent) -> None:
        self.quarantined[reason] += 1
        self.quarantine.append((reason, event))

    def close_until(self, event_ns: int) -> None:
        """Close every bar and book second that ends at or before `event_ns` [ns UTC]."""
        if self._closed_ns < 0 or event_ns < self._closed_ns + SECOND_NS:
            return
        boundaries: Iterable[int] = range(self._closed_ns + SECOND_NS, event_ns + 1, SECOND_NS)
        if not self._has_ticks:
            boundaries = sorted(ns for ns in self._due if ns <= event_ns)
        for boundary_ns in boundaries:
            for symbol in self._markets:
                self._close(symbol, boundary_ns)
        self._due = {ns for ns in self._due if ns > event_ns}
        self._closed_ns = event_ns - event_ns % SECOND_NS

    def _close(self, symbol: str, boundary_ns: int) -> None:
        market = self._markets[symbol]
        for bar in market.bars.close(boundary_ns):
            row_C, flags = market.builders[bar.timeframe].close(bar)
            market.rows[bar.timeframe].append(bar.open_ns, row_C, flags)
            self.num_bars[bar.timeframe.value] += 1
        if market.has_book:
            market.book_rows.append(boundary_ns, market.book.second_row(boundary_ns), 0)
        oldest_ns = boundary_ns - self._settings.cache_s * SECOND_NS
        while market.trades and market.trades[0].ts_ns < oldest_ns:
            market.trades.popleft()

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
        streams: dict[tuple[str, Timeframe], StreamWindow] = {}
        for symbol in self._markets:
            for timeframe in TIMEFRAMES:
                stream = self._stream(symbol, timeframe, event_ns)
                if stream is not None:
                    streams[symbol, timeframe] = stream
        markets, first_ns = self._markets.items(), event_ns - (NUM_SLOTS - 1) * SECOND_NS
        return MarketWindow(
            event_ns=event_ns,
            version=self._version,
            streams=streams,
            books={
                s: BookWindow(s, *market.book_rows.newest(NUM_SLOTS, from_ns=first_ns)[:2])
                for s, market in markets
                if market.has_book
            },
            last_trade_id={s: market.last_trade_id for s, market in markets},
            last_book_id={s: market.last_book_id for s, market in markets},
            received_ns=self._received_ns,
            down=frozenset(s for s, market in markets if market.bars.is_down(event_ns)),
        )

    def _stream(self, symbol: str, timeframe: Timeframe, event_ns: int) -> StreamWindow | None:
        market = self._markets[symbol]
        last_slot_ns = timeframe.floor(event_ns)
        if timeframe is SECONDS:
            forming, last_slot_ns = None, last_slot_ns - SECOND_NS
        else:
            forming = self._forming(symbol, timeframe, event_ns)
        if forming is None and not len(market.rows[timeframe]):
            return None
        first_ns = last_slot_ns - (NUM_SLOTS - 1) * timeframe.ns
        closed = market.rows[timeframe].newest(NUM_SLOTS, from_ns=first_ns)
        if forming is None:
            return StreamWindow(symbol, timeframe, *closed, None, None, 0)
        row_C, flags = forming
        return StreamWindow(symbol, timeframe, *closed, last_slot_ns, row_C, flags)

    def _forming(self, symbol: str, timeframe: Timeframe, event_ns: int) -> FormingRow | None:
        market = self._markets[symbol]
        forming = market.bars.forming(timeframe, event_ns)
        if forming is None:
            return None
        bar, is_partial = forming
        row_C, flags = market.builders[timeframe].peek(bar)
        row_C.flags.writeable = False
        return row_C, flags | FORMING | (PARTIAL if is_partial else 0)

    def candles(self, symbol: str, timeframe: str, count: int) -> list[dict[str, Any]]:
        """Return the newest `count` closed bars and the forming one as plain values."""
        timeframe = Timeframe(timeframe)
        opens, rows_TC, flags_T = self._markets[symbol].rows[timeframe].newest(count)
        candles = list(map(_candle, opens.tolist(), rows_TC[:, :5].tolist(), flags_T.tolist()))
        forming = None
        if timeframe is not SECONDS and self._closed_ns >= 0:
            forming = self._forming(symbol, timeframe, self._closed_ns)
        if forming is not None:
            row_C, flags = forming
            candles.append(_candle(timeframe.floor(self._closed_ns), row_C[:5].tolist(), flags))
        return candles

    def book(self, symbol: str) -> dict[str, Any]:
        """Return the touch and the buckets within one percent of the mid; None where unknown."""
        book = self._markets[symbol].book
        touch, buckets = book.touch(), book.buckets()
        bid, bid_size, ask, ask_size = touch or (None,) * 4
        rows = []
        if buckets is not None:
            rows = np.column_stack((buckets.price_K, buckets.bids_K, buckets.asks_K)).tolist()
        return {
            "symbol": symbol,
            "last_id": book.last_id,
            "is_known": book.is_known,
            "bid": bid,
            "bid_size": bid_size,
            "ask": ask,
            "ask_size": ask_size,
            "buckets": [{"price": p, "bids": _known(b), "asks": _known(a)} for p, b, a in rows],
        }

    def quote(self, symbol: str, at_ns: int) -> Quote | None:
        """Return what an order at `at_ns` meets now, None before the first price."""
        market = self._markets[symbol]
        if market.bars.price is None:
            return None
        bids_L2, asks_L2 = market.book.levels(QUOTE_LEVELS)
        source = "book" if len(bids_L2) and len(asks_L2) else "trade"
        return Quote(symbol, at_ns, source, market.bars.price, bids_L2, asks_L2)

    def pivots(self, symbol: str, timeframe: str) -> list[dict[str, Any]]:
        """Return the newest confirmed pivots of all levels, oldest first, as plain values."""
        return [
            {
                "level": pivot.level,
                "kind": pivot.kind.value,
                "price": pivot.price,
                "pivot_at": iso(pivot.pivot_ns),
                "confirm_at": iso(pivot.confirm_ns),
            }
            for pivot in self._markets[symbol].builders[Timeframe(timeframe)].pivots
        ]

    def trades(self, symbol: str) -> tuple[Trade, ...]:
        """Return the trades of the last `cache_s` seconds, oldest first."""
        return tuple(self._markets[symbol].trades)

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every symbol under the newest version number, as plain values."""
        now_ns = self._closed_ns
        return {
            "event_at": iso(now_ns) if now_ns >= 0 else None,
            "version": self._version,
            "symbols": {s: self._state(market, now_ns) for s, market in self._markets.items()},
        }

    def _state(self, market: _Market, now_ns: int) -> dict[str, Any]:
        bid, _, ask, _ = market.book.touch() or (None,) * 4
        return {
            "price": market.bars.price,
            "bid": bid,
            "ask": ask,
            "is_down": market.bars.is_down(now_ns),
            "num_trades": len(market.trades),
            "num_book_seconds": len(market.book_rows),
            "num_bars": {tf.value: len(rows) for tf, rows in market.rows.items()},
            "venue_candles": dict(market.bars.counters),
            "last_trade_id": market.last_trade_id,
            "last_book_id": market.last_book_id,
        }


def _candle(open_ns: int, ohlcv: Sequence[float], flags: int) -> dict[str, Any]:
    names = ("open", "high", "low", "close", "volume")
    kinds = [flag.name.lower() for flag in BarFlag if flag.name and flags & flag]
    return {"open_at": iso(open_ns), **dict(zip(names, ohlcv, strict=True)), "flags": kinds}


def _known(size: float) -> float | None:
    return None if math.isnan(size) else size
