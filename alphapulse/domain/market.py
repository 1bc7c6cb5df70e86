"""What a market shows: instruments, trades, book changes, bars and pivots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import InvalidBar, InvalidEvent

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SECOND_NS = 1_000_000_000
LOTS = 1e8  # a size has 8 decimals at most (Binance, 2026-11): whole lots add up without rounding


class Timeframe(StrEnum):
    """The length of a bar; a bar is stamped with its open, in UTC."""

    S1 = "1s"
    M1 = "1m"
    H1 = "1h"
    D1 = "1d"

    @property
    def ns(self) -> int:
        """Return the length in nanoseconds."""
        return _LENGTH_NS[self]

    @property
    def seconds(self) -> int:
        """Return the length in seconds."""
        return _LENGTH_NS[self] // SECOND_NS

    def floor(self, ts_ns: int) -> int:
        """Return the open of the bar that holds `ts_ns` [ns UTC]."""
        return ts_ns - ts_ns % self.ns


_LENGTH_NS = {
    Timeframe.S1: SECOND_NS,
    Timeframe.M1: 60 * SECOND_NS,
    Timeframe.H1: 3_600 * SECOND_NS,
    Timeframe.D1: 86_400 * SECOND_NS,
}
TIMEFRAMES: tuple[Timeframe, ...] = tuple(Timeframe)


class BarFlag(IntFlag):
    """What is special about a bar's row; 0 is never a row that may be used: that has VALID."""

    VALID = 1  # the bar is known and may be used
    FORMING = 2  # its period has not ended
    PARTIAL = 4  # its period began before the first tick and has not ended
    EMPTY = 8  # the feed was up and nobody traded: o=h=l=c=previous close, volume 0
    VENUE = 16  # the exchange's own candle, not made from our trades
    WARMUP = 32  # at least one indicator has too few bars behind it
    INCOMPLETE = 64  # trades of it were missed, which was told after it had closed


@dataclass(frozen=True, slots=True)
class Instrument:
    """A traded pair as the venue quotes it.

    Attributes:
        symbol: ccxt's name, such as `ETH/USDT`.
        tick_size: smallest price step [quote currency].
        bucket_size: width of a book bucket [quote currency].
    """

    symbol: str
    tick_size: float
    bucket_size: float

    def __post_init__(self) -> None:
        if not (self.tick_size > 0 and self.bucket_size >= self.tick_size):
            raise InvalidEvent(
                f"{self.symbol}: expected 0 < tick_size <= bucket_size, was tick_size "
                f"{self.tick_size}, bucket_size {self.bucket_size}; correct the instrument in the "
                "configuration"
            )

    @property
    def venue_symbol(self) -> str:
        """Return the name as recordings and Binance write it.

        `ETH/USDT` and the perpetual `ETH/USDT:USDT` are ETHUSDT; `ETH/USD:ETH`, which is margined
        and settled in coins, is ETHUSD_PERP.
        """
        pair, _, settled_in = self.symbol.partition(":")
        base, _, quote = pair.partition("/")
        return f"{base}{quote}_PERP" if settled_in == base else base + quote


@dataclass(frozen=True, slots=True)
class Trade:
    """One public execution.

    Attributes:
        symbol: ccxt's name.
        ts_ns: exchange time [ns UTC].
        received_ns: collector's time [ns UTC]; may be seconds off.
        trade_id: the venue's number, rising by one a trade.
        price: quote currency.
        size: base currency.
        is_buy: whether the aggressor bought.
    """

    symbol: str
    ts_ns: int
    received_ns: int
    trade_id: int
    price: float
    size: float
    is_buy: bool

    def __post_init__(self) -> None:
        if not (0 < self.price < math.inf and 0 < self.size < math.inf):
            raise InvalidEvent(
                f"{self.symbol} trade {self.trade_id}: expected a positive finite price and size, "
                f"was price {self.price}, size {self.size}; the event is quarantined"
            )


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades of one symbol as columns, oldest first; raises InvalidEvent if one cannot be.

    Attributes:
        symbol: ccxt's name.
        ts_ns_N: int64 (N,) exchange times [ns UTC].
        received_ns_N: int64 (N,) collector's times [ns UTC].
        trade_id_N: int64 (N,) the venue's numbers, rising.
        price_N: float64 (N,) quote currency.
        lots_N: int64 (N,) sizes in 1e-8 of the base currency.
        is_buy_N: bool (N,) whether the aggressor bought.
    """

    symbol: str
    ts_ns_N: Ints
    received_ns_N: Ints
    trade_id_N: Ints
    price_N: Floats
    lots_N: Ints
    is_buy_N: Bools

    def __post_init__(self) -> None:
        can_be_N = (self.price_N > 0) & (self.price_N < math.inf) & (self.lots_N >= 0)
        if not can_be_N.all():
            i = int(np.argmin(can_be_N))
            raise InvalidEvent(
                f"{self.symbol} trade {self.trade_id_N[i]}: expected a positive finite price and "
                f"lots >= 0, was price {self.price_N[i]}, lots {self.lots_N[i]}; leave it out"
            )

    @classmethod
    def of(cls, trades: Sequence[Trade]) -> Trades:
        """Return `trades`, at least one and all of one symbol, as columns."""
        count = len(trades)
        sizes_N = np.fromiter((t.size for t in trades), np.float64, count)
        return cls(
            symbol=trades[0].symbol,
            ts_ns_N=np.fromiter((t.ts_ns for t in trades), np.int64, count),
            received_ns_N=np.fromiter((t.received_ns for t in trades), np.int64, count),
            trade_id_N=np.fromiter((t.trade_id for t in trades), np.int64, count),
            price_N=np.fromiter((t.price for t in trades), np.float64, count),
            lots_N=np.rint(sizes_N * LOTS).astype(np.int64),
            is_buy_N=np.fromiter((t.is_buy for t in trades), np.bool_, count),
        )

    def __len__(self) -> int:
        return len(self.ts_ns_N)

    @property
    def columns(self) -> tuple[Any, ...]:
        """Return the columns in the order of the attributes."""
        return (
            self.ts_ns_N,
            self.received_ns_N,
            self.trade_id_N,
            self.price_N,
            self.lots_N,
            self.is_buy_N,
        )

    def part(self, rows: slice | Bools) -> Trades:
        """Return those of `rows`, as views where it is a slice."""
        return Trades(self.symbol, *(column[rows] for column in self.columns))

    def row(self, i: int) -> Trade:
        """Return one of them."""
        ts_ns, received_ns, trade_id, price, lots, is_buy = (c[i].item() for c in self.columns)
        return Trade(self.symbol, ts_ns, received_ns, trade_id, price, lots / LOTS, is_buy)


@dataclass(frozen=True, slots=True)
class BookDelta:
    """One message of the order book: a whole snapshot or the levels that changed.

    Attributes:
        symbol: ccxt's name.
        ts_ns: exchange time [ns UTC].
        received_ns: collector's time [ns UTC].
        first_id: venue's first update number in the message.
        last_id: venue's last update number in the message.
        is_snapshot: whether the message replaces the book.
        bids_L2: float64 (levels, 2): price, resting size; size 0 removes the level.
        asks_L2: float64 (levels, 2), as bids.
        prev_id: last_id of the message before, where numbers leave gaps (Binance futures: `pu`);
            None where they follow each other.
    """

    symbol: str
    ts_ns: int
    received_ns: int
    first_id: int
    last_id: int
    is_snapshot: bool
    bids_L2: Floats
    asks_L2: Floats
    prev_id: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """Open, high, low, close [quote currency] and volume [base currency] of one period.

    Attributes:
        symbol: ccxt's name.
        timeframe: length of the period.
        open_ns: start of the period [ns UTC].
        is_venue: whether it is the exchange's own candle.
        is_empty: whether nobody traded (prices repeat the previous close, volume 0).
    """

    symbol: str
    timeframe: Timeframe
    open_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    is_venue: bool = False
    is_empty: bool = False

    def __post_init__(self) -> None:
        opens_inside = 0 < self.low <= self.open <= self.high < math.inf
        if not (opens_inside and self.low <= self.close <= self.high):  # so that NaN is refused
            raise InvalidBar(
                f"{self.symbol} {self.timeframe} at {self.open_ns}: expected 0 < low <= open, "
                f"close <= high, was open {self.open}, high {self.high}, low {self.low}, "
                f"close {self.close}; drop or re-download the bar"
            )
        if not 0 <= self.volume < math.inf:
            raise InvalidBar(
                f"{self.symbol} {self.timeframe} at {self.open_ns}: expected volume >= 0, "
                f"was {self.volume}; drop or re-download the bar"
            )

    @property
    def close_ns(self) -> int:
        """Return the first nanosecond after the period."""
        return self.open_ns + self.timeframe.ns

    @property
    def ts_ns(self) -> int:
        """Return the last nanosecond of the period: when the venue's candle is an event."""
        return self.close_ns - 1


@dataclass(frozen=True, slots=True)
class FeedGap:
    """A stretch in which the feed of a symbol was down: its seconds are missing, not empty.

    Attributes:
        symbol: ccxt's name.
        ts_ns: its place in the order, and its end [ns UTC].
        from_ns: its begin [ns UTC].
        reason: what happened.
        is_book_lost: whether the book went too, not trades alone.
    """

    symbol: str
    ts_ns: int
    from_ns: int
    reason: str
    is_book_lost: bool = True


MarketEvent = Trade | BookDelta | Bar | FeedGap


@dataclass(frozen=True, slots=True)
class BarSeries:
    """Closed bars of one stream as arrays, oldest first.

    Attributes:
        symbol: ccxt's name.
        timeframe: length of a bar.
        open_ns_T: int64 (T,) opens [ns UTC], strictly rising.
        ohlcv_TC: float64 (T, 5): open, high, low, close, volume.
    """

    symbol: str
    timeframe: Timeframe
    open_ns_T: Ints
    ohlcv_TC: Floats

    def __len__(self) -> int:
        return len(self.open_ns_T)

    def until(self, ts_ns: int) -> BarSeries:
        """Return the bars that had closed at `ts_ns`."""
        n = int(np.searchsorted(self.open_ns_T, ts_ns - self.timeframe.ns, side="right"))
        return BarSeries(self.symbol, self.timeframe, self.open_ns_T[:n], self.ohlcv_TC[:n])

    def last(self, count: int) -> BarSeries:
        """Return the newest `count` bars."""
        return BarSeries(
            self.symbol, self.timeframe, self.open_ns_T[-count:], self.ohlcv_TC[-count:]
        )


class PivotKind(StrEnum):
    """Which way the market turned."""

    HIGH = "H"
    LOW = "L"


@dataclass(frozen=True, slots=True)
class Pivot:
    """A turning point of the recursive Williams structure (convention W1).

    It does not exist before `confirm_ns`.

    Attributes:
        level: 1 short-term, 2 intermediate, 3 long-term, and so on.
        pivot_ns: open of the bar that holds the extreme [ns UTC].
        confirm_ns: close of the bar that confirmed it [ns UTC].
        price: the extreme [quote currency].
        segment_id: counts the stretches of bars without a missing one in what its structure has
            walked, from 0; no pivot spans two.
    """

    symbol: str
    timeframe: Timeframe
    level: int
    kind: PivotKind
    pivot_ns: int
    price: float
    confirm_ns: int
    segment_id: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What trading needs to know of one instrument at a decision instant.

    Attributes:
        price: newest traded price [quote currency].
        low: lowest traded price since the instant before [quote currency].
        high: highest traded price since then.
        risk: one hourly volatility, R [log price]; NaN while it is not known.
    """

    price: float
    low: float
    high: float
    risk: float
