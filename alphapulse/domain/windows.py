"""What is known of a market at one moment: rows, books and trades as arrays that never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from alphapulse.domain.market import Flags, Floats, Ints, Timeframe, Trades

# axes: T row, oldest first · C column · K bucket, rising price · R row, a bucket a second · P field


class Shown(NamedTuple):
    """What models see of finished rows, made once and copied into every input.

    Attributes:
        values_TC: float32 (T, C) channels of bars or columns of book seconds, 0 where an input
            places what depends on scale and price, and where nothing is known.
        known_TC: uint8 (T, C): 1 where the value is known.
        prices_TP: float64 (T, P) what is placed: of a bar open, high, low, close and 10 ATR, of a
            book second its mid [quote currency]; NaN is unknown.
    """

    values_TC: npt.NDArray[np.float32]
    known_TC: Flags
    prices_TP: Floats


@dataclass(frozen=True, slots=True)
class StreamWindow:
    """The newest closed rows of one symbol and timeframe, with the forming row apart.

    Attributes:
        open_ns_T: int64 (T,) opens of the closed bars [ns UTC], strictly rising; a missing bar
            leaves a gap.
        rows_TC: float64 (T, C) closed rows: `features.rows.COLUMNS`, then what the cache knows
            besides (`features.registry.layout`); immutable once written.
        flags_T: uint8 (T,) BarFlag bits.
        forming_open_ns: open of the forming bar [ns UTC], None where the stream has none.
        forming_C: float64 (C,) row of the forming bar, None where the stream has none.
        forming_flags: BarFlag bits of the forming row.
        shown: what models see of the rows; None where the rows alone are kept.
    """

    symbol: str
    timeframe: Timeframe
    open_ns_T: Ints
    rows_TC: Floats
    flags_T: Flags
    forming_open_ns: int | None
    forming_C: Floats | None
    forming_flags: int
    shown: Shown | None = field(default=None, init=False)  # so that other rows begin without

    def with_shown(self, shown: Shown) -> Self:
        """Return itself, after noting what models see of its rows."""
        object.__setattr__(self, "shown", shown)
        return self


@dataclass(frozen=True, slots=True)
class BookWindow:
    """The newest one-second aggregates of one book.

    Attributes:
        second_ns_T: int64 (T,) boundary each row describes [ns UTC]: everything before it is in the
            row.
        rows_TC: float64 (T, C) in the layout of `features.rows.BOOK_COLUMNS`; NaN is unknown, never
            empty.
        flags_T: uint8 (T,) BarFlag bits: INCOMPLETE or none.
        shown: what models see of the rows; None where the rows alone are kept.
    """

    symbol: str
    second_ns_T: Ints
    rows_TC: Floats
    flags_T: Flags
    shown: Shown | None = field(default=None, init=False)  # so that other rows begin without

    def with_shown(self, shown: Shown) -> Self:
        """Return itself, after noting what models see of its rows."""
        object.__setattr__(self, "shown", shown)
        return self


class Buckets(NamedTuple):  # made at every event, in half the time of a frozen dataclass
    """Resting sizes by price bucket; NaN where a bucket is not wholly in the snapshot's reach.

    Attributes:
        price_K: float64 (K,) lower edges [quote currency], rising.
        bids_K: float64 (K,) bid size inside the band [base currency].
        asks_K: float64 (K,) ask size inside the band [base currency].
        known_bids_K: uint8 (K,): 1 where the bid size is known.
        known_asks_K: uint8 (K,): 1 where the ask size is known.
    """

    price_K: Floats
    bids_K: Floats
    asks_K: Floats
    known_bids_K: Flags
    known_asks_K: Flags


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """The book in price buckets at the end of a second, and what happened there in that second.

    Attributes:
        symbol: ccxt's name.
        second_ns: boundary it describes [ns UTC]: everything before it is inside.
        price_K: float64 (K,) lower edges of the whole buckets within one percent of the mid
            [quote currency], rising.
        rows_KC: float64 (K, C) in the layout of `features.rows.BUCKET_COLUMNS`; NaN is unknown.
        known_KC: uint8 (K, C): 1 where the value is known.
    """

    symbol: str
    second_ns: int
    price_K: Floats
    rows_KC: Floats
    known_KC: Flags


@dataclass(frozen=True, slots=True)
class BucketWindow:
    """The newest book snapshots of one symbol, one row a bucket a second.

    Attributes:
        symbol: ccxt's name.
        second_ns_R: int64 (R,) boundary each row describes [ns UTC], never falling; a second in
            which the book was unknown has no rows.
        price_R: float64 (R,) lower edges of the buckets [quote currency], rising in each second.
        rows_RC: float64 (R, C) in the layout of `features.rows.BUCKET_COLUMNS`; NaN is unknown.
        known_RC: uint8 (R, C): 1 where the value is known.
    """

    symbol: str
    second_ns_R: Ints
    price_R: Floats
    rows_RC: Floats
    known_RC: Flags

    def at(self, second_ns: int) -> BookSnapshot | None:
        """Return the snapshot at one boundary [ns UTC], None if the book was unknown or forgot."""
        first, end = np.searchsorted(self.second_ns_R, (second_ns, second_ns + 1)).tolist()
        if first == end:
            return None
        rows = slice(first, end)
        return BookSnapshot(
            self.symbol, second_ns, self.price_R[rows], self.rows_RC[rows], self.known_RC[rows]
        )


@dataclass(frozen=True, slots=True)
class CacheView:
    """Everything the cache holds of some symbols at one moment, under one version number.

    Every array is read-only, contiguous and never written again: a view can be kept as long as it
    is needed, and travels through Ray's object store without a copy.

    Attributes:
        version: rises with every change of the cache: equal versions are equal views.
        at_ns: the moment, event time of the newest event inside or the newest second closed [ns
            UTC], whichever is later.
        streams: by (symbol, timeframe), all closed bars kept.
        books: by symbol, all one-second rows kept; a symbol without a book is absent.
        buckets: by symbol, the book within one percent of the mid now; absent while unknown.
        bucket_seconds: by symbol, the book by bucket at the end of every second kept.
        trades: by symbol, all trades kept.
        peers: by symbol, what a model would see of the others: float32 (K, P) last outputs by peer
            slot and uint8 (K,), 1 where there is one.
        last_trade_id: by symbol, the newest trade inside.
        last_book_id: by symbol, the newest book update inside.
        received_ns: collector's time of the newest event inside [ns UTC].
        down: symbols whose feed is down at this moment.
    """

    version: int
    at_ns: int
    streams: Mapping[tuple[str, Timeframe], StreamWindow]
    books: Mapping[str, BookWindow]
    buckets: Mapping[str, Buckets]
    bucket_seconds: Mapping[str, BucketWindow]
    trades: Mapping[str, Trades]
    peers: Mapping[str, tuple[npt.NDArray[np.float32], Flags]]
    last_trade_id: Mapping[str, int]
    last_book_id: Mapping[str, int]
    received_ns: int
    down: frozenset[str]


@dataclass(frozen=True, slots=True)
class MarketWindow:
    """Everything cached at one moment, under one version number.

    Attributes:
        event_ns: the decision instant [ns UTC]; only events before it are inside.
        version: rises by one a window.
        streams: by (symbol, timeframe).
        books: by symbol; a symbol without a book is absent.
        last_trade_id: by symbol, the newest trade inside.
        last_book_id: by symbol, the newest book update inside.
        received_ns: collector's time of the newest event inside [ns UTC].
        down: symbols whose feed is down at this moment.
        own: names of the users' indicators in the rows' columns `own_1`, `own_2`.
    """

    event_ns: int
    version: int
    streams: Mapping[tuple[str, Timeframe], StreamWindow]
    books: Mapping[str, BookWindow]
    last_trade_id: Mapping[str, int]
    last_book_id: Mapping[str, int]
    received_ns: int
    down: frozenset[str] = frozenset()
    own: tuple[str, ...] = ()

    def close(self, symbol: str) -> float:
        """Return the newest traded price known for `symbol` [quote currency]."""
        stream: Any = self.streams[symbol, Timeframe.M1]
        row = stream.forming_C if stream.forming_C is not None else stream.rows_TC[-1]
        return float(row[3])
