"""Read from a book's memory what rests there: best levels, buckets round the mid, bins."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import numpy as np

from alphapulse.data.book_kernel import (
    BASE,
    BEST,
    EMPTY,
    FAR_ROOM,
    LOTS,
    NUM_BUCKETS,
    NUM_FAR,
    NUM_PLACES,
    REACH,
    far_at,
    kernel,
    lots_at,
    sums_at,
)
from alphapulse.domain.market import Floats, Ints
from alphapulse.features.rows import BIN_BPS, NUM_BINS

# axes: S, L as in book_kernel · K bucket, rising price · J bin, away from the mid
WHOLE_BPS, TWICE_BPS = 10_000, 20_000
MOST_SHOWN, NO_BAND = 1 << 20, -1  # buckets of a view; in place of them


@kernel
def width_of(memory: Ints) -> int:
    """Return the ticks a bucket."""
    width: int = memory[NUM_PLACES] // memory[NUM_BUCKETS]
    return width


@kernel
def window_of(memory: Ints, side: int) -> tuple[Ints, Ints]:
    """Return sums_K and lots_T of a side, views of the memory."""
    sums, lots = sums_at(memory, side), lots_at(memory, side)
    return memory[sums : sums + memory[NUM_BUCKETS]], memory[lots : lots + memory[NUM_PLACES]]


@kernel
def far_of(memory: Ints, side: int) -> tuple[Ints, Ints]:
    """Return ranks_N and lots_N of the levels of a side outside the window, views."""
    ranks, count = far_at(memory, side), memory[NUM_FAR + side]
    lots = ranks + memory[FAR_ROOM]
    return memory[ranks : ranks + count], memory[lots : lots + count]


@kernel
def nearest(memory: Ints, side: int, count: int) -> Ints:
    """Return int64 (levels, 2): rank and lots of the best `count` levels, best first."""
    (sums_K, lots_T), (ranks_N, lots_N) = window_of(memory, side), far_of(memory, side)
    base, place, far = memory[BASE + side], len(lots_T) - 1, len(ranks_N) - 1
    width = width_of(memory)
    found_L2, i = np.empty((min(count, place + far + 2), 2), np.int64), 0
    while i < len(found_L2) and (place >= 0 or far >= 0):
        is_inside = place >= 0 and (far < 0 or ranks_N[far] < base)
        if not is_inside:
            found_L2[i, 0], found_L2[i, 1] = ranks_N[far], lots_N[far]
            far, i = far - 1, i + 1
        elif lots_T[place]:
            found_L2[i, 0], found_L2[i, 1] = base + place, lots_T[place]
            place, i = place - 1, i + 1
        else:
            bucket = place // width
            place = place - 1 if sums_K[bucket] else bucket * width - 1
    return found_L2[:i]


@kernel
def lowest_rank(bucket: int, width: int, side: int) -> int:
    """Return the rank of the worst tick of a bucket on a side."""
    return bucket * width if side == 0 else 1 - (bucket + 1) * width


@kernel
def window_lots(memory: Ints, side: int, first: int, lots_K: Ints) -> None:
    """Set lots_K to the lots of whole buckets from the number `first` on, zero outside the window.

    Args:
        memory: of a book, or no more than its head and sums.
        side: 0 for bids, 1 for asks.
        first: number of the first bucket, its lower edge over its width.
        lots_K: int64 (K,), filled.
    """
    sums, width, step = sums_at(memory, side), width_of(memory), 1 - 2 * side
    start = (lowest_rank(first, width, side) - memory[BASE + side]) // width
    num_buckets = memory[NUM_BUCKETS]
    for k in range(len(lots_K)):
        bucket = start + step * k
        lots_K[k] = memory[sums + bucket] if 0 <= bucket < num_buckets else 0


@kernel
def bucket_lots(memory: Ints, side: int, first: int, lots_K: Ints) -> None:
    """Set lots_K to the lots of whole buckets from the number `first` on."""
    window_lots(memory, side, first, lots_K)
    width = width_of(memory)
    low = memory[BASE] // width
    if low <= first and first + len(lots_K) <= low + memory[NUM_BUCKETS]:
        return
    ranks_N, lots_N = far_of(memory, side)
    for i in range(len(ranks_N)):
        k = (1 - 2 * side) * ranks_N[i] // width - first
        if 0 <= k < len(lots_K):
            lots_K[k] += lots_N[i]


@kernel
def lots_between(memory: Ints, side: int, low: int, high: int) -> int:
    """Return the lots at the ticks from `low` to `high`, both inside."""
    lots, base, size = lots_at(memory, side), memory[BASE + side], memory[NUM_PLACES]
    lowest, highest = (low, high) if side == 0 else (-high, -low)
    found = 0
    for own in memory[lots + max(lowest - base, 0) : lots + min(highest - base + 1, size)]:
        found += own
    if lowest < base or highest >= base + size:
        ranks_N, lots_N = far_of(memory, side)
        for i in range(len(ranks_N)):
            if lowest <= ranks_N[i] <= highest:
                found += lots_N[i]
    return found


@kernel
def cut(
    memory: Ints, side: int, lots: int, inside: tuple[int, int], outside: tuple[int, int]
) -> int:
    """Return what is left of the lots of a bucket inside a band; the shorter part is summed."""
    if lots == 0:
        return 0
    if inside[1] - inside[0] < outside[1] - outside[0]:
        return lots_between(memory, side, *inside)
    return lots - lots_between(memory, side, *outside)


@kernel
def band(memory: Ints, bps: int) -> tuple[int, int]:
    """Return the lowest and the highest tick within `bps` of the mid; EMPTY without a side."""
    bid, ask = memory[BEST], memory[BEST + 1]
    if bid == EMPTY or ask == EMPTY:
        return EMPTY, EMPTY
    both = bid - ask  # twice the mid: in integers the edges are exact
    return -(both * (bps - WHOLE_BPS) // TWICE_BPS), both * (bps + WHOLE_BPS) // TWICE_BPS


@kernel
def view(memory: Ints, bps: int, bids_K: Floats, asks_K: Floats) -> int:
    """Set bids_K and asks_K to what rests within `bps` of the mid; NaN is unknown.

    Args:
        memory: of the book.
        bps: half the width of the band.
        bids_K: float64 (K,), filled if the band has so many buckets.
        asks_K: float64 (K,), filled if the band has so many buckets.

    Returns:
        MOST_SHOWN times the number of the first bucket plus the count of buckets: one number comes
        back to Python in half the time of two. NO_BAND where a side is empty.
    """
    low, high = band(memory, bps)
    if low == EMPTY:
        return NO_BAND
    width = width_of(memory)
    first, last = low // width, high // width
    shown: int = first * MOST_SHOWN + last - first + 1
    if last - first + 1 != len(bids_K):
        return shown
    start, end = (first + 1) * width, last * width  # where the buckets the band cuts adjoin
    lots_K = np.empty(len(bids_K), np.int64)
    for side in range(2):
        bucket_lots(memory, side, first, lots_K)
        lots_K[0] = cut(memory, side, lots_K[0], (low, start - 1), (first * width, low - 1))
        inside = max(low, end), high
        lots_K[-1] = cut(memory, side, lots_K[-1], inside, (high + 1, end + width - 1))
        sizes_K = bids_K if side == 0 else asks_K
        rank, step = lowest_rank(first, width, side), (1 - 2 * side) * width
        reach = memory[REACH + side]
        for k in range(len(lots_K)):
            sizes_K[k] = lots_K[k] / LOTS if rank + k * step >= reach else np.nan
    return shown


@kernel
def bins(memory: Ints) -> Floats:
    """Return float64 (2 * NUM_BINS,): sizes by bin, bids then asks.

    Bins are those of BOOK_COLUMNS; NaN where a bin is not wholly in the snapshot's reach.
    """
    width = width_of(memory)
    mid = (memory[BEST] - memory[BEST + 1]) / 2
    per_tick = 1 / (mid * BIN_BPS * 1e-4)  # bins a tick
    lots_J, sizes_J = np.zeros(2 * NUM_BINS, np.int64), np.empty(2 * NUM_BINS)
    for side in range(2):
        (sums_K, lots_T), (ranks_N, lots_N) = window_of(memory, side), far_of(memory, side)
        base, own_J = memory[BASE + side], lots_J[side * NUM_BINS : (side + 1) * NUM_BINS]
        middle = mid if side == 0 else -mid
        for i in range(len(ranks_N)):
            j = int(per_tick * (middle - ranks_N[i]))
            if 0 <= j < NUM_BINS:
                own_J[j] += lots_N[i]
        place = min(memory[BEST + side] - base, len(lots_T) - 1)
        end = max(int(middle - NUM_BINS / per_tick) - base - 1, 0)  # a place too far, to be sure
        bucket = place // width
        while place >= end:
            stop = max(bucket * width, end) if sums_K[bucket] else place + 1
            for held in range(place, stop - 1, -1):
                if lots_T[held]:
                    j = int(per_tick * (middle - (base + held)))
                    if j < NUM_BINS:
                        own_J[j] += lots_T[held]
            place, bucket = bucket * width - 1, bucket - 1
        num_known = int(per_tick * (middle - memory[REACH + side]))
        for j in range(NUM_BINS):
            is_known = j < num_known
            sizes_J[side * NUM_BINS + j] = own_J[j] / LOTS if is_known else np.nan
    return sizes_J
