"""Hold the levels of one book in whole ticks and lots, and speak of them in prices and sizes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import NoReturn

import numpy as np

from alphapulse.data import book_kernel as kernel
from alphapulse.data import book_second_kernel as seconds
from alphapulse.data import book_view_kernel as views
from alphapulse.data.book_kernel import change
from alphapulse.data.book_view_kernel import view
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import BookDelta, Flags, Floats, Instrument, Ints
from alphapulse.domain.windows import Buckets

# axes: L level · 2: price, size · K bucket, rising price · C column of BUCKET_COLUMNS
SPAN = 0.2  # of the mid, the window to either side; 0.6 % of Binance's changes lie outside it
MOST_SPAN = 2_000_000  # ticks: 64 MB a book; further levels stand in the list
FRAMES_KEPT = 1_000  # all are forgotten at this bound
KEPT_BPS = 100  # of the mid when a second begins: its levels are kept until it ends
FAR_ROOM = 4_096  # levels outside the window a side, doubled where they are more

Frame = tuple[Floats, Flags, Flags]  # price_K, known_bids_K, known_asks_K
Touch = tuple[float, float, float, float]  # best bid, its size, best ask, its size


class Levels:
    """Both sides of a book as they were last told, whatever the messages' numbers.

    ```python
    levels = Levels(instrument)
    is_crossed = levels.replace(snapshot)
    is_crossed = levels.change(delta)
    ```
    """

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._per_tick = 1 / instrument.tick_size
        self._decimals = -int(Decimal(str(instrument.tick_size)).as_tuple().exponent)
        self._width = round(instrument.bucket_size / instrument.tick_size)
        self._frames: dict[int, Frame] = {}  # by what `view` says of first bucket and count
        self._num_shown = 0  # buckets of the newest view
        self._renew(mid=0, far_room=FAR_ROOM)
        self.begin_second()

    @property
    def flow(self) -> float:
        """Return the order-flow imbalance at the best level in this second [base currency].

        NaN if a side was empty in it.
        """
        return self.size_of(self._memory.item(kernel.FLOW)) if self._is_flow_whole else math.nan

    @property
    def level_flow(self) -> float:
        """Return the order-flow imbalance of all levels near the mid [base currency].

        Counted is every tick within FLOW_BPS of the mid as it is now, the edges inside: what rests
        there less what rested there when the second began, bids less asks. That is all that was
        added less all that left, whatever happened between: an order that came and went is nothing.

        NaN if a side is empty now or was then, if a tick counted is out of the reach of the
        snapshot of now or of then, or further than KEPT_BPS from the mid of then.
        """
        added: float = seconds.added(self._memory, self._before, self._resting_L2, KEPT_BPS)
        return added

    @staticmethod
    def size_of(lots: int) -> float:
        """Return lots as a size [base currency]."""
        return lots / kernel.LOTS

    def bucket_of(self, price: float, size: float) -> tuple[int, int]:
        """Return the number of the bucket that holds `price`, and `size` in lots."""
        return round(price * self._per_tick) // self._width, round(size * kernel.LOTS)

    def change(self, delta: BookDelta) -> bool:
        """Set the levels a message names; return whether the sides cross.

        Raises InvalidEvent, and changes nothing, if it cannot be of this instrument.
        """
        answer = change(self._memory, delta.bids_L2, delta.asks_L2, self._per_tick)
        if not answer:
            return False
        while answer == kernel.NO_ROOM:
            self._rebuild(far_room=2 * self._memory.item(kernel.FAR_ROOM))
            answer = change(self._memory, delta.bids_L2, delta.asks_L2, self._per_tick)
        return self._settle(answer, delta)

    def replace(self, snapshot: BookDelta) -> bool:
        """Set the levels of a snapshot in place of all others; return whether the sides cross.

        Raises InvalidEvent, and changes nothing, if it cannot be of this instrument or a side is
        empty.
        """
        bids_L2, asks_L2 = _read_only(snapshot.bids_L2), _read_only(snapshot.asks_L2)
        _, bid = kernel.ends(bids_L2, self._per_tick)
        ask, _ = kernel.ends(asks_L2, self._per_tick)
        if min(bid, ask) < 0:
            self._refuse(min(bid, ask), snapshot)
        room = max(self._memory.item(kernel.FAR_ROOM), len(bids_L2), len(asks_L2))
        if room > self._memory.item(kernel.FAR_ROOM) or not self._is_central(bid, ask):
            old = self._memory
            self._renew(mid=(bid + ask) // 2, far_room=room)
            for kept in (slice(kernel.BEST, kernel.REACH), kernel.FLOW):  # the flow goes on
                self._memory[kept] = old[kept]
        self._frames.clear()  # the reach is another
        answer = kernel.replace(self._memory, bids_L2, asks_L2, self._per_tick)
        return self._settle(answer, snapshot)

    def touch(self) -> Touch | None:
        """Return best bid and its size, best ask and its size; None where a side is empty."""
        bid, ask, bid_lots, ask_lots = self._memory[kernel.BEST : kernel.REACH].tolist()
        if kernel.EMPTY in (bid, ask):
            return None
        tick = self._instrument.tick_size
        return (
            round(bid * tick, self._decimals),
            bid_lots / kernel.LOTS,
            round(-ask * tick, self._decimals),
            ask_lots / kernel.LOTS,
        )

    def nearest(self, count: int) -> tuple[Floats, Floats]:
        """Return the best `count` bids and asks, float64 (levels, 2)."""
        sides = []
        for side, sign in ((0, 1), (1, -1)):
            ranks_L, lots_L = views.nearest(self._memory, side, count).T
            prices_L = np.round(sign * ranks_L * self._instrument.tick_size, self._decimals)
            sides.append(np.column_stack((prices_L, lots_L / kernel.LOTS)))
        return sides[0], sides[1]

    def buckets(self, pct: float) -> Buckets | None:
        """Return the sizes within `pct` percent of the mid; None where a side is empty."""
        bids_K, asks_K = np.empty(self._num_shown), np.empty(self._num_shown)
        shown = view(self._memory, _bps(pct), bids_K, asks_K)
        if shown == views.NO_BAND:
            return None
        price_K, known_bids_K, known_asks_K = self._frames.get(shown) or self._frame(shown)
        if len(price_K) != self._num_shown:  # more or fewer than last time: they are not filled
            self._num_shown = len(price_K)
            return self.buckets(pct)
        return Buckets(price_K, bids_K, asks_K, known_bids_K, known_asks_K)

    def bins(self) -> Floats:
        """Return sizes by bin of BOOK_COLUMNS, bids then asks; NaN is unknown."""
        sizes_J: Floats = views.bins(self._memory)
        return sizes_J

    def begin_second(self) -> None:
        """Count flow from here on."""
        self._memory[kernel.FLOW] = 0
        self._is_flow_whole = True
        num_buckets = self._memory.item(kernel.NUM_BUCKETS)
        self._before: Ints = self._memory[: kernel.NUM_HEAD + 2 * num_buckets].copy()
        self._resting_L2: Ints = seconds.resting(self._memory, KEPT_BPS)

    def second(self, pct: float) -> tuple[int, Floats, Floats] | None:
        """Return number and prices of the buckets within `pct` percent of the mid, and their rows.

        The rows are in the layout of BUCKET_COLUMNS, without trades. None where a side is empty.
        """
        low, high = views.band(self._memory, _bps(pct))
        if low == kernel.EMPTY:
            return None
        first, last = low // self._width, high // self._width
        rows_KC = seconds.second(self._memory, self._before, first, last)
        return first, self._frame(first * views.MOST_SHOWN + last - first + 1)[0], rows_KC

    def _frame(self, shown: int) -> Frame:
        """Return and keep what is the same in every view of these buckets."""
        first, count = divmod(shown, views.MOST_SHOWN)
        edges_K = np.arange(first, first + count) * self._width
        price_K: Floats = np.round(edges_K * self._instrument.tick_size, self._decimals)
        bid_reach, ask_reach = self._memory[kernel.REACH : kernel.NUM_FAR].tolist()
        known_bids_K = (edges_K >= bid_reach).astype(np.uint8)
        known_asks_K = (edges_K + self._width - 1 <= -ask_reach).astype(np.uint8)
        frame = price_K, known_bids_K, known_asks_K
        for array in frame:
            array.setflags(write=False)  # every view of these buckets shows the same arrays
        if len(self._frames) >= FRAMES_KEPT:
            self._frames.clear()
        self._frames[shown] = frame
        return frame

    def _is_central(self, bid: int, ask: int) -> bool:
        base, size = self._memory.item(kernel.BASE), self._memory.item(kernel.NUM_PLACES)
        return abs(bid + ask - 2 * base - size) <= size / 2

    def _renew(self, *, mid: int, far_room: int) -> None:
        """Begin empty, with the window round `mid`."""
        span = min(round(SPAN * mid), MOST_SPAN)
        self._memory = kernel.new_memory(mid, self._width, span=span, far_room=far_room)

    def _rebuild(self, *, far_room: int) -> None:
        """Move the window to the mid, or make room outside it; no level changes."""
        old = self._memory
        size = old.item(kernel.NUM_PLACES)
        bids_L2, asks_L2 = map(_read_only, self.nearest(size + old.item(kernel.FAR_ROOM)))
        middle, _ = views.band(old, 0)
        if middle == kernel.EMPTY:
            middle = old.item(kernel.BASE) + size // 2
        self._renew(mid=middle, far_room=max(far_room, len(bids_L2), len(asks_L2)))
        kernel.replace(self._memory, bids_L2, asks_L2, self._per_tick)
        for kept in (slice(kernel.REACH, kernel.REACH + 2), kernel.FLOW):
            self._memory[kept] = old[kept]

    def _settle(self, answer: int, delta: BookDelta) -> bool:
        if answer < 0:
            self._refuse(answer, delta)
        if answer == kernel.ONE_SIDED:
            self._is_flow_whole = False
        if answer == kernel.DRIFTED:
            self._rebuild(far_room=self._memory.item(kernel.FAR_ROOM))
        return answer == kernel.CROSSED

    def _refuse(self, answer: int, delta: BookDelta) -> NoReturn:
        where = f"{self._instrument.symbol} book message {delta.last_id}: expected"
        if answer == kernel.NO_LEVELS:
            raise InvalidEvent(
                f"{where} a snapshot with levels on both sides, was {len(delta.bids_L2)} bids and "
                f"{len(delta.asks_L2)} asks, some of size 0; ask the venue for another"
            )
        levels_L2 = np.concatenate((delta.bids_L2, delta.asks_L2))
        price, size = next(
            levels_L2[i].tolist()
            for i in range(len(levels_L2))
            if kernel.check(levels_L2[i : i + 1], self._per_tick) == answer
        )
        if answer == kernel.BAD_PRICE:
            raise InvalidEvent(
                f"{where} prices in whole ticks of {self._instrument.tick_size}, was {price}; "
                "the message is quarantined"
            )
        raise InvalidEvent(
            f"{where} sizes >= 0 in whole lots of {1 / kernel.LOTS:g} up to "
            f"{kernel.MOST_LOTS / kernel.LOTS:.0f}, was {size}; the message is quarantined"
        )


def _bps(pct: float) -> int:
    return int(100 * pct + 0.5)


def _read_only(levels_L2: Floats) -> Floats:
    """Return a read-only view: to numba another type, and one is enough to compile for."""
    view = levels_L2.view()
    view.setflags(write=False)
    return view
