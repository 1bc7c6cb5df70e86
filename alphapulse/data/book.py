"""Keep one instrument's resting orders as its venue reports them, and say what is unknown."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import numpy as np

from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import BookDelta, Flags, Floats, Instrument, Ints
from alphapulse.features.rows import BIN_BPS, BOOK_COLUMN, BOOK_COLUMNS, NUM_BINS

# axes: L level · 2: price, size · K bucket, rising price · B column of BOOK_COLUMNS
BUFFERED = 1_000  # messages kept without a snapshot, 100 s of Binance's stream; the oldest leave
PRICES_KEPT = 100_000  # prices whose ticks are remembered; all are forgotten at this bound
NEAR = 1_000  # ticks within which the next best level is looked for before looking at all
TICK_TOLERANCE = 1e-4  # a price further from a whole tick is another instrument's [ticks]
BPS = 1e-4

Touch = tuple[float, float, float, float]  # best bid, its size, best ask, its size
Levels = tuple[list[int], list[float]]  # ranks, sizes


class BookChange(StrEnum):
    """What a message did to a book."""

    APPLIED = "applied"
    BUFFERED = "buffered"  # no snapshot yet: kept for it
    STALE = "stale"  # older than the book: dropped
    GAP = "sequence_gap"  # messages were missed: the book is unknown until the next snapshot
    CROSSED = "crossed"  # a bid cannot rest at or above an ask: unknown as above


@dataclass(frozen=True, slots=True)
class Buckets:
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


class _Ranks(dict[float, int]):
    """Ranks by price, worked out once a price: the tick for a bid, minus the tick for an ask."""

    def __init__(self, instrument: Instrument, sign: int) -> None:
        super().__init__()
        self._instrument = instrument
        self._sign = sign
        self._per_price = 1 / instrument.tick_size

    def __missing__(self, price: float) -> int:
        scaled = price * self._per_price
        tick = round(scaled) if 0 < scaled < math.inf else 0
        if tick < 1 or abs(scaled - tick) > TICK_TOLERANCE:
            raise InvalidEvent(
                f"{self._instrument.symbol} book: expected a price in whole ticks of "
                f"{self._instrument.tick_size}, was {price}; the message is quarantined"
            )
        if len(self) >= PRICES_KEPT:
            self.clear()
        self[price] = self._sign * tick
        return self._sign * tick


class _Side:
    """Sizes on one side by rank: the best level has the highest."""

    def __init__(self, instrument: Instrument, sign: int) -> None:
        self.sign = sign  # +1 for bids, -1 for asks
        self.sizes: dict[int, float] = {}
        self.best = 0  # rank; meaningless while `sizes` is empty
        self.reach = 0  # rank of the snapshot's worst level; below it only named levels are known
        self._instrument = instrument
        self._ranks = _Ranks(instrument, sign)

    def parse(self, levels_L2: Floats) -> Levels:
        prices, sizes = levels_L2.T.tolist()
        if sizes and not (min(sizes) >= 0 and sum(sizes) < math.inf):
            raise InvalidEvent(
                f"{self._instrument.symbol} book: expected finite sizes >= 0, was {sizes}; "
                "the message is quarantined"
            )
        return [self._ranks[price] for price in prices], sizes

    def replace(self, levels: Levels) -> None:
        self.sizes = {rank: size for rank, size in zip(*levels, strict=True) if size}
        self.best, self.reach = max(self.sizes), min(self.sizes)

    def update(self, levels: Levels) -> None:
        known, best = self.sizes, self.best
        for rank, size in zip(*levels, strict=True):
            if size:
                known[rank] = size
                if rank > best:
                    best = rank
            else:
                known.pop(rank, None)
        self.best = best if best in known or not known else self._next(best)

    def _next(self, rank: int) -> int:
        for lower in range(rank - 1, rank - NEAR, -1):
            if lower in self.sizes:
                return lower
        return max(self.sizes)

    def arrays(self) -> tuple[Ints, Floats]:
        """Return ticks and sizes of all levels, unordered."""
        count = len(self.sizes)
        ranks_L = np.fromiter(self.sizes, np.int64, count)
        return self.sign * ranks_L, np.fromiter(self.sizes.values(), np.float64, count)


class Book:
    """The book of one instrument, by Binance's rules for a snapshot and numbered changes.

    Changes that come before the snapshot wait for it; those it already holds are dropped; a missing
    number makes the book unknown until the next snapshot. Levels beyond the snapshot's worst price
    are unknown until a change names them.

    ```python
    book = Book(instrument)
    change = book.apply(delta)
    row_B = book.second_row(boundary_ns)
    ```

    Attributes:
        is_known: whether there is a snapshot and every change since.
        last_id: number of the newest change inside, 0 before the first.
        num_gaps: how often messages were missed.
        num_crossed: how often the book crossed.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.is_known = False
        self.last_id = 0
        self.num_gaps = 0
        self.num_crossed = 0
        self._instrument = instrument
        self._decimals = -int(Decimal(str(instrument.tick_size)).as_tuple().exponent)
        self._newest_ns = -1
        self._bids, self._asks = _Side(instrument, +1), _Side(instrument, -1)
        self._waiting: deque[BookDelta] = deque(maxlen=BUFFERED)
        self._is_whole_second = False  # the feed was up since the last boundary
        self._is_known_second = False  # and the book known
        self._begin_second()

    def apply(self, delta: BookDelta) -> BookChange:
        """Take the next message and return what it did.

        Raises InvalidEvent, and changes nothing, if it cannot be of this instrument.
        """
        before = self.touch()
        change = self._restart(delta) if delta.is_snapshot else self._advance(delta)
        self._newest_ns = max(self._newest_ns, delta.ts_ns)
        self._num_updates += 1
        if change is BookChange.APPLIED:
            self._note_flow(before, self.touch())
        return change

    def forget(self) -> None:
        """Hold the book for unknown until the next snapshot: the feed was down."""
        self.is_known = False
        self._is_whole_second = self._is_known_second = False
        self._waiting.clear()

    def note_trade(self, size: float, *, is_buy: bool) -> None:
        """Count a trade towards the current second [base currency]."""
        self._num_trades += 1
        if is_buy:
            self._bought += size
        else:
            self._sold += size

    def touch(self) -> Touch | None:
        """Return best bid and its size, best ask and its size; None while unknown or one-sided."""
        bids, asks = self._bids, self._asks
        if not (self.is_known and bids.sizes and asks.sizes):
            return None
        bid, ask = self._price(bids.best), self._price(-asks.best)
        return bid, bids.sizes[bids.best], ask, asks.sizes[asks.best]

    def levels(self, count: int) -> tuple[Floats, Floats]:
        """Return the best `count` bids and asks, float64 (levels, 2); empty while unknown."""
        return self._nearest(self._bids, count), self._nearest(self._asks, count)

    def buckets(self, pct: float = 1.0) -> Buckets | None:
        """Return the sizes within `pct` percent of the mid, by bucket of the instrument's size.

        None while the book is unknown or a side is empty.
        """
        touch = self.touch()
        if touch is None:
            return None
        tick = self._instrument.tick_size
        width = round(self._instrument.bucket_size / tick)
        mid = (self._bids.best - self._asks.best) / 2
        low, high = math.ceil(mid * (1 - pct / 100)), math.floor(mid * (1 + pct / 100))
        first, count = low // width, high // width - low // width + 1
        edges_K = (first + np.arange(count)) * width  # lower edges in ticks
        sides = []
        for side in (self._bids, self._asks):
            ticks_L, sizes_L = side.arrays()
            inside_L = (ticks_L >= low) & (ticks_L <= high)
            sums_K = np.bincount(
                ticks_L[inside_L] // width - first, sizes_L[inside_L], minlength=count
            )
            worst_K = edges_K if side.sign > 0 else -(edges_K + width - 1)
            known_K = worst_K >= side.reach
            sizes_K: Floats = np.where(known_K, sums_K, np.nan)
            sides.append((sizes_K, known_K.astype(np.uint8)))
        (bids_K, known_bids_K), (asks_K, known_asks_K) = sides
        return Buckets(
            np.round(edges_K * tick, self._decimals), bids_K, asks_K, known_bids_K, known_asks_K
        )

    def second_row(self, boundary_ns: int) -> Floats:
        """Return float64 (50,) in the layout of BOOK_COLUMNS and begin the next second.

        What was not seen whole is NaN: flow and counts of a second that began before the feed did
        or had a gap in it.

        Args:
            boundary_ns: the whole second just reached [ns UTC].

        Raises InvalidEvent if a message from after it is already inside.
        """
        if self._newest_ns >= boundary_ns:
            raise InvalidEvent(
                f"{self._instrument.symbol} book: expected messages before {boundary_ns} only, was "
                f"{self._newest_ns}; take the row of a second before applying what follows it"
            )
        row_B = np.full(len(BOOK_COLUMNS), np.nan)
        touch = self.touch()
        if touch is not None:
            self._describe(row_B, touch)
        if self._is_known_second:
            row_B[BOOK_COLUMN["ofi"]] = self._ofi
        if self._is_whole_second:
            row_B[BOOK_COLUMN["bought"]] = self._bought
            row_B[BOOK_COLUMN["sold"]] = self._sold
            row_B[BOOK_COLUMN["num_trades"]] = self._num_trades
            row_B[BOOK_COLUMN["num_updates"]] = self._num_updates
        self._is_whole_second, self._is_known_second = True, touch is not None
        self._begin_second()
        return row_B

    def _begin_second(self) -> None:
        self._ofi = self._bought = self._sold = 0.0
        self._num_trades = self._num_updates = 0

    def _describe(self, row_B: Floats, touch: Touch) -> None:
        bid, bid_size, ask, ask_size = touch
        mid, both = (bid + ask) / 2, bid_size + ask_size
        row_B[BOOK_COLUMN["mid"]] = mid
        row_B[BOOK_COLUMN["spread_bps"]] = (ask - bid) / mid / BPS
        row_B[BOOK_COLUMN["imbalance"]] = (bid_size - ask_size) / both
        microprice = (bid * ask_size + ask * bid_size) / both
        row_B[BOOK_COLUMN["microprice_bps"]] = (microprice / mid - 1) / BPS
        mid_tick = (self._bids.best - self._asks.best) / 2
        per_tick = 1 / (mid_tick * BIN_BPS * BPS)  # bins a tick
        depth = 0.0
        for i, side in enumerate((self._bids, self._asks)):
            ticks_L, sizes_L = side.arrays()
            bins_L = (side.sign * per_tick * (mid_tick - ticks_L)).astype(np.int64)
            inside_L = bins_L < NUM_BINS
            sums = np.bincount(bins_L[inside_L], sizes_L[inside_L], minlength=NUM_BINS)
            depth += float(sums.sum())
            num_known = int(per_tick * (side.sign * mid_tick - side.reach))
            sums[max(num_known, 0) :] = np.nan
            row_B[i * NUM_BINS : (i + 1) * NUM_BINS] = sums
        row_B[BOOK_COLUMN["depth"]] = depth

    def _restart(self, snapshot: BookDelta) -> BookChange:
        if self.is_known and snapshot.last_id < self.last_id:
            return BookChange.STALE
        bids = self._bids.parse(snapshot.bids_L2)
        asks = self._asks.parse(snapshot.asks_L2)
        if not (any(bids[1]) and any(asks[1])):
            raise InvalidEvent(
                f"{self._instrument.symbol} book snapshot {snapshot.last_id}: expected "
                f"levels on both sides, was {len(bids[0])} bids and {len(asks[0])} asks; "
                "ask the venue for another snapshot"
            )
        self._bids.replace(bids)
        self._asks.replace(asks)
        self.is_known, self.last_id = True, snapshot.last_id
        change = self._uncrossed()
        waiting = list(self._waiting)
        self._waiting.clear()
        for delta in waiting:
            change = self._advance(delta) if self.is_known else change
        return BookChange.APPLIED if self.is_known else change

    def _advance(self, delta: BookDelta) -> BookChange:
        if not self.is_known:
            self._waiting.append(delta)
            return BookChange.BUFFERED
        if delta.last_id <= self.last_id:
            return BookChange.STALE
        if delta.first_id > self.last_id + 1:
            self.num_gaps += 1
            self._lose()
            self._waiting.append(delta)
            return BookChange.GAP
        bids, asks = self._bids.parse(delta.bids_L2), self._asks.parse(delta.asks_L2)
        self._bids.update(bids)
        self._asks.update(asks)
        self.last_id = delta.last_id
        return self._uncrossed()

    def _uncrossed(self) -> BookChange:
        bids, asks = self._bids, self._asks
        if bids.sizes and asks.sizes and bids.best >= -asks.best:
            self.num_crossed += 1
            self._lose()
            return BookChange.CROSSED
        return BookChange.APPLIED

    def _lose(self) -> None:
        self.is_known = self._is_known_second = False

    def _note_flow(self, before: Touch | None, after: Touch | None) -> None:
        if before is None or after is None:
            self._is_known_second = False
            return
        (bid0, bid_size0, ask0, ask_size0), (bid, bid_size, ask, ask_size) = before, after
        self._ofi += (bid >= bid0) * bid_size - (bid <= bid0) * bid_size0
        self._ofi += (ask >= ask0) * ask_size0 - (ask <= ask0) * ask_size

    def _price(self, tick: int) -> float:
        return round(tick * self._instrument.tick_size, self._decimals)

    def _nearest(self, side: _Side, count: int) -> Floats:
        if not self.is_known:
            return np.empty((0, 2))
        ranks = sorted(side.sizes, reverse=True)[:count]
        levels = [(self._price(side.sign * rank), side.sizes[rank]) for rank in ranks]
        return np.array(levels).reshape(-1, 2)
