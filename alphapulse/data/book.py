"""Keep one instrument's resting orders as its venue reports them, and say what is unknown."""

from __future__ import annotations

from collections import Counter, deque
from enum import StrEnum

import numpy as np

from alphapulse.data.levels import Levels, Touch
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import BookDelta, Floats, Instrument
from alphapulse.domain.windows import BookSnapshot, Buckets
from alphapulse.features.rows import BOOK_COLUMN, BOOK_COLUMNS, BUCKET_COLUMN, NUM_BINS

# axes: L level · 2: price, size · K bucket, rising price · B column of BOOK_COLUMNS
BUFFERED = 1_000  # messages kept without a snapshot, 100 s of Binance's stream; the oldest leave
BPS = 1e-4
DECIMALS = 10  # no price has more: a difference of two is rounded back to them
SNAPSHOT_PCT = 1.0  # half width of a BookSnapshot


class BookChange(StrEnum):
    """What a message did to a book."""

    APPLIED = "applied"
    BUFFERED = "buffered"  # no snapshot yet: kept for it
    STALE = "stale"  # older than the book: dropped
    GAP = "sequence_gap"  # messages were missed: the book is unknown until the next snapshot
    CROSSED = "crossed"  # a bid cannot rest at or above an ask: unknown as above


APPLIED = BookChange.APPLIED  # looked up once: an enum's own look-up costs as much as ten levels


class Book:
    """The book of one instrument, by Binance's rules for a snapshot and numbered changes.

    Changes that come before the snapshot wait for it; those it already holds are dropped; a missing
    number makes the book unknown until the next snapshot. Levels beyond the snapshot's worst price
    are unknown until a change names them.

    ```python
    book = Book(instrument)
    change = book.apply(delta)
    snapshot = book.bucket_second(boundary_ns)
    row_B = book.second_row(boundary_ns)
    ```

    Attributes:
        is_known: whether there is a snapshot and every change since.
        last_id: number of the newest change inside, 0 before the first.
        num_gaps: how often messages were missed.
        num_crossed: how often the book crossed.

    Source: Binance, How to manage a local order book correctly (spot and futures), 2024-08.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.is_known = False
        self.last_id = 0
        self.num_gaps = 0
        self.num_crossed = 0
        self._instrument = instrument
        self._levels = Levels(instrument)
        self._snapshot_id = 0
        self._newest_ns = -1
        self._boundary_ns = -1  # the second counted began here
        self._waiting: deque[BookDelta] = deque(maxlen=BUFFERED)
        self._is_whole_second = False  # the feed was up since the last boundary
        self._are_trades_whole = False  # and every trade came
        self._is_known_second = False  # and the book known
        self._begin_second()

    def apply(self, delta: BookDelta) -> BookChange:
        """Take the next message and return what it did.

        Raises InvalidEvent, and changes nothing, if it cannot be of this instrument.
        """
        last_id, own_id, prev_id = delta.last_id, self.last_id, delta.prev_id
        if delta.is_snapshot:
            change = self._restart(delta)
        elif not self.is_known:
            change = self._wait(delta, BookChange.BUFFERED)
        elif last_id <= own_id:
            change = BookChange.STALE
        elif (
            delta.first_id <= own_id + 1
            if prev_id is None
            else prev_id == own_id or self._holds_snapshot(delta)
        ):
            is_crossed = self._levels.change(delta)
            self.last_id = last_id
            change = self._cross() if is_crossed else APPLIED
        else:
            self.num_gaps += 1
            self._lose()
            change = self._wait(delta, BookChange.GAP)
        ts_ns = delta.ts_ns
        if ts_ns > self._newest_ns:
            self._newest_ns = ts_ns
        self._num_updates += 1
        return change

    def forget(self) -> None:
        """Hold the book for unknown until the next snapshot: the feed was down."""
        self._lose()
        self._is_whole_second = self._are_trades_whole = False
        self._waiting.clear()

    def note_trade(self, price: float, size: float, *, is_buy: bool) -> None:
        """Count a trade towards the current second [quote currency, base currency]."""
        bucket, lots = self._levels.bucket_of(price, size)
        self._num_trades += 1
        (self._bought if is_buy else self._sold)[bucket] += lots

    def miss_trades(self) -> None:
        """Note that trades of the current second were missed: what was traded is unknown."""
        self._are_trades_whole = False

    def touch(self) -> Touch | None:
        """Return best bid and its size, best ask and its size; None while unknown or one-sided."""
        return self._levels.touch() if self.is_known else None

    def levels(self, count: int) -> tuple[Floats, Floats]:
        """Return the best `count` bids and asks, float64 (levels, 2); empty while unknown."""
        if not self.is_known:
            return np.empty((0, 2)), np.empty((0, 2))
        return self._levels.nearest(count)

    def buckets(self, pct: float = 1.0) -> Buckets | None:
        """Return the sizes within `pct` percent of the mid, by bucket of the instrument's size.

        A bucket that the band cuts counts what is inside the band. `pct` is taken to two decimals.
        None while the book is unknown or a side is empty.
        """
        return self._levels.buckets(pct) if self.is_known else None

    def bucket_second(self, boundary_ns: int) -> BookSnapshot | None:
        """Return whole buckets at the boundary and what happened in each in the second before it.

        None while the book is unknown or a side is empty. Traded sizes are known if the feed was up
        for the whole second; the flow if besides the book was known throughout, and the bucket in
        the snapshot's reach on both sides when the second began and when it ended.

        Args:
            boundary_ns: the whole second just reached [ns UTC].

        Raises InvalidEvent if a message from after it is already inside, or if `second_row` has
        begun the next second.
        """
        self._require_now(boundary_ns)
        if self._boundary_ns >= boundary_ns:
            raise InvalidEvent(
                f"{self._instrument.symbol} book: expected a boundary after {self._boundary_ns}, "
                f"was {boundary_ns}; take the buckets of a second before its row"
            )
        found = self._levels.second(SNAPSHOT_PCT) if self.is_known else None
        if found is None:
            return None
        first, price_K, rows_KC = found
        if self._are_trades_whole:
            for name, traded in (("bought", self._bought), ("sold", self._sold)):
                rows_KC[:, BUCKET_COLUMN[name]] = [
                    Levels.size_of(traded[first + k]) for k in range(len(rows_KC))
                ]
        if not self._is_known_second:
            rows_KC[:, BUCKET_COLUMN["ofi"]] = np.nan
        known_KC = (~np.isnan(rows_KC)).astype(np.uint8)
        return BookSnapshot(self._instrument.symbol, boundary_ns, price_K, rows_KC, known_KC)

    def second_row(self, boundary_ns: int) -> Floats:
        """Return float64 (50,) in the layout of BOOK_COLUMNS and begin the next second.

        What was not seen whole is NaN: flows and counts of a second that began before the feed did
        or had a gap in it; the flow of levels also where `Levels.level_flow` says so.

        Args:
            boundary_ns: the whole second just reached [ns UTC].

        Raises InvalidEvent if a message from after it is already inside.
        """
        self._require_now(boundary_ns)
        row_B = np.full(len(BOOK_COLUMNS), np.nan)
        touch = self.touch()
        if touch is not None:
            self._describe(row_B, touch)
        if self._is_known_second:
            row_B[BOOK_COLUMN["ofi"]] = self._levels.flow
            row_B[BOOK_COLUMN["ofi_levels"]] = self._levels.level_flow
        if self._are_trades_whole:
            row_B[BOOK_COLUMN["bought"]] = Levels.size_of(self._bought.total())
            row_B[BOOK_COLUMN["sold"]] = Levels.size_of(self._sold.total())
            row_B[BOOK_COLUMN["num_trades"]] = self._num_trades
        if self._is_whole_second:
            row_B[BOOK_COLUMN["num_updates"]] = self._num_updates
        self._is_whole_second = self._are_trades_whole = True
        self._is_known_second = touch is not None
        self._boundary_ns = boundary_ns
        self._begin_second()
        return row_B

    def _require_now(self, boundary_ns: int) -> None:
        if self._newest_ns >= boundary_ns:
            raise InvalidEvent(
                f"{self._instrument.symbol} book: expected messages before {boundary_ns} only, was "
                f"{self._newest_ns}; take the row of a second before applying what follows it"
            )

    def _begin_second(self) -> None:
        self._levels.begin_second()
        self._bought: Counter[int] = Counter()  # lots by bucket
        self._sold: Counter[int] = Counter()
        self._num_trades = self._num_updates = 0

    def _describe(self, row_B: Floats, touch: Touch) -> None:
        bid, bid_size, ask, ask_size = touch
        mid = (bid + ask) / 2
        spread_bps = round(ask - bid, DECIMALS) / mid / BPS
        imbalance = (bid_size - ask_size) / (bid_size + ask_size)
        row_B[BOOK_COLUMN["mid"]] = mid
        row_B[BOOK_COLUMN["spread_bps"]] = spread_bps
        row_B[BOOK_COLUMN["imbalance"]] = imbalance
        # (bid * ask_size + ask * bid_size) / (bid_size + ask_size) less the mid, with no digit lost
        row_B[BOOK_COLUMN["microprice_bps"]] = spread_bps / 2 * imbalance
        row_B[: 2 * NUM_BINS] = self._levels.bins()

    def _restart(self, snapshot: BookDelta) -> BookChange:
        if self.is_known and snapshot.last_id < self.last_id:
            return BookChange.STALE
        is_crossed = self._levels.replace(snapshot)
        self.is_known, self.last_id = True, snapshot.last_id
        self._snapshot_id = snapshot.last_id
        change = self._cross() if is_crossed else BookChange.APPLIED
        waiting, num_updates = list(self._waiting), self._num_updates
        self._waiting.clear()
        for delta in waiting:
            then = self.apply(delta)
            change = then if then in (BookChange.GAP, BookChange.CROSSED) else change
        self._num_updates = num_updates  # they were counted when they came
        return change

    def _holds_snapshot(self, delta: BookDelta) -> bool:
        """Return whether the snapshot lies inside this first change after it."""
        return self.last_id == self._snapshot_id and delta.first_id <= self.last_id

    def _wait(self, delta: BookDelta, change: BookChange) -> BookChange:
        self._waiting.append(delta)
        return change

    def _cross(self) -> BookChange:
        self.num_crossed += 1
        self._lose()
        return BookChange.CROSSED

    def _lose(self) -> None:
        self.is_known = self._is_known_second = False
