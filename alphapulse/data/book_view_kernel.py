"""Read a book's memory: best levels, buckets round the mid, the bins and buckets of a second."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import numpy as np

from alphapulse.data.book_kernel import (
    BASE,
    BEST,
    LOTS,
    NUM_BUCKETS,
    NUM_FAR,
    NUM_HEAD,
    REACH,
    kernel,
    parts,
)
from alphapulse.domain.market import Flags, Floats, Ints
from alphapulse.features.rows import BIN_BPS, NUM_BINS

# axes: S, L as in book_kernel · K bucket, rising price · J bin, away from the mid · C column
WHOLE_BPS = 10_000
# columns of BUCKET_COLUMNS; the traded sizes are filled in by the book
BIDS, ASKS, IMBALANCE, OFI, NUM_COLUMNS = 0, 1, 4, 5, 6


@kernel
def nearest(memory: Ints, side: int, count: int) -> Ints:
    """Return int64 (levels, 2): rank and lots of the best `count` levels, best first."""
    sums_SK, far_SXN, lots_ST = parts(memory)
    base, size, far = memory[BASE + side], lots_ST.shape[1], memory[NUM_FAR + side] - 1
    width, place = size // sums_SK.shape[1], size - 1
    found_L2, i = np.empty((min(count, size + far + 1), 2), np.int64), 0
    while i < len(found_L2) and (place >= 0 or far >= 0):
        is_inside = place >= 0 and (far < 0 or far_SXN[side, 0, far] < base)
        if not is_inside:
            found_L2[i, 0], found_L2[i, 1] = far_SXN[side, 0, far], far_SXN[side, 1, far]
            far, i = far - 1, i + 1
        elif sums_SK[side, place // width] == 0:
            place = place // width * width - 1
        else:
            if lots_ST[side, place]:
                found_L2[i, 0], found_L2[i, 1] = base + place, lots_ST[side, place]
                i += 1
            place -= 1
    return found_L2[:i]


@kernel
def lowest_rank(bucket: int, width: int, side: int) -> int:
    """Return the rank of the worst tick of a bucket on a side."""
    return bucket * width if side == 0 else 1 - (bucket + 1) * width


@kernel
def window_lots(memory: Ints, width: int, first: int, count: int) -> Ints:
    """Return int64 (2, K): lots of whole buckets, zero outside the window.

    Args:
        memory: of a book, or no more than its head and sums.
        width: ticks a bucket.
        first: number of the first bucket, its lower edge over its width.
        count: number of buckets.
    """
    buckets = memory[NUM_BUCKETS]
    lots_SK = np.zeros((2, count), np.int64)
    for side in range(2):
        sums_K = memory[NUM_HEAD + side * buckets : NUM_HEAD + (side + 1) * buckets]
        step = 1 - 2 * side
        place = (lowest_rank(first, width, side) - memory[BASE + side]) // width
        for k in range(count):
            if 0 <= place < buckets:
                lots_SK[side, k] = sums_K[place]
            place += step
    return lots_SK


@kernel
def bucket_lots(memory: Ints, first: int, count: int) -> Ints:
    """Return int64 (2, K): lots of whole buckets, those outside the window too."""
    sums_SK, far_SXN, lots_ST = parts(memory)
    width = lots_ST.shape[1] // sums_SK.shape[1]
    lots_SK = window_lots(memory, width, first, count)
    low = memory[BASE] // width
    if low <= first and first + count <= low + sums_SK.shape[1]:
        return lots_SK
    for side in range(2):
        for i in range(memory[NUM_FAR + side]):
            k = (1 - 2 * side) * far_SXN[side, 0, i] // width - first
            if 0 <= k < count:
                lots_SK[side, k] += far_SXN[side, 1, i]
    return lots_SK


@kernel
def lots_between(memory: Ints, side: int, low: int, high: int) -> int:
    """Return the lots at the ticks from `low` to `high`, both inside."""
    _, far_SXN, lots_ST = parts(memory)
    lowest, highest = (low, high) if side == 0 else (-high, -low)
    base, found = memory[BASE + side], 0
    for place in range(max(lowest - base, 0), min(highest - base + 1, lots_ST.shape[1])):
        found += lots_ST[side, place]
    if lowest < base or highest >= base + lots_ST.shape[1]:
        for i in range(memory[NUM_FAR + side]):
            if lowest <= far_SXN[side, 0, i] <= highest:
                found += far_SXN[side, 1, i]
    return found


@kernel
def band(memory: Ints, bps: int) -> tuple[int, int]:
    """Return the lowest and the highest tick within `bps` of the mid."""
    both = (
        memory[BEST] - memory[BEST + 1]
    )  # twice the mid: integers, so no edge is a matter of luck
    whole = 2 * WHOLE_BPS
    return -(both * (bps - WHOLE_BPS) // whole), both * (WHOLE_BPS + bps) // whole


@kernel
def view(memory: Ints, bps: int) -> tuple[int, Floats, Floats, Flags, Flags]:
    """Return the first bucket within `bps` of the mid, then bids_K, asks_K and what is known.

    A bucket that the band cuts counts what is inside the band.
    """
    sums_SK, _, lots_ST = parts(memory)
    width = lots_ST.shape[1] // sums_SK.shape[1]
    low, high = band(memory, bps)
    first = low // width
    count = high // width - first + 1
    lots_SK = bucket_lots(memory, first, count)
    sizes_SK, known_SK = np.empty((2, count)), np.empty((2, count), np.uint8)
    for side in range(2):
        if lots_SK[side, 0]:
            lots_SK[side, 0] -= lots_between(memory, side, first * width, low - 1)
        if lots_SK[side, count - 1]:
            end = (first + count) * width - 1
            lots_SK[side, count - 1] -= lots_between(memory, side, high + 1, end)
        rank, step = lowest_rank(first, width, side), (1 - 2 * side) * width
        for k in range(count):
            is_known = rank + k * step >= memory[REACH + side]
            known_SK[side, k] = is_known
            sizes_SK[side, k] = lots_SK[side, k] / LOTS if is_known else np.nan
    return first, sizes_SK[0], sizes_SK[1], known_SK[0], known_SK[1]


@kernel
def bins(memory: Ints) -> Floats:
    """Return float64 (2 * NUM_BINS + 1,): sizes by bin, bids then asks, and their known sum.

    Bins are those of BOOK_COLUMNS; NaN where a bin is not wholly in the snapshot's reach.
    """
    sums_SK, far_SXN, lots_ST = parts(memory)
    width = lots_ST.shape[1] // sums_SK.shape[1]
    mid = (memory[BEST] - memory[BEST + 1]) / 2
    per_tick = 1 / (mid * BIN_BPS * 1e-4)  # bins a tick
    lots_J, depth = np.zeros(2 * NUM_BINS, np.int64), 0
    sizes_J = np.empty(2 * NUM_BINS + 1)
    for side in range(2):
        base, own_J = memory[BASE + side], lots_J[side * NUM_BINS : (side + 1) * NUM_BINS]
        middle = mid if side == 0 else -mid
        for i in range(memory[NUM_FAR + side]):
            j = int(per_tick * (middle - far_SXN[side, 0, i]))
            if 0 <= j < NUM_BINS:
                own_J[j] += far_SXN[side, 1, i]
        place = min(memory[BEST + side] - base, lots_ST.shape[1] - 1)
        end = max(int(middle - NUM_BINS / per_tick) - base - 1, 0)  # a place too far, to be sure
        while place >= end:
            if sums_SK[side, place // width] == 0:
                place = place // width * width - 1
                continue
            lots = lots_ST[side, place]
            j = int(per_tick * (middle - (base + place)))
            if lots and j < NUM_BINS:
                own_J[j] += lots
            place -= 1
        num_known = int(per_tick * (middle - memory[REACH + side]))
        for j in range(NUM_BINS):
            is_known = j < num_known
            sizes_J[side * NUM_BINS + j] = own_J[j] / LOTS if is_known else np.nan
            depth += own_J[j]
    sizes_J[2 * NUM_BINS] = depth / LOTS
    return sizes_J


@kernel
def second(memory: Ints, before: Ints, bps: int) -> tuple[int, Floats]:
    """Return the first bucket within `bps` of the mid, and rows_KC of what rests and what changed.

    Args:
        memory: of the book at the end of the second.
        before: head and sums of the memory at its begin.
        bps: half width of the band [basis points].
    """
    sums_SK, _, lots_ST = parts(memory)
    width = lots_ST.shape[1] // sums_SK.shape[1]
    low, high = band(memory, bps)
    first, last = low // width, high // width
    middle = (memory[BEST] - memory[BEST + 1]) // (2 * width)
    far = max(middle - first, last - middle)  # the imbalance looks as far on both sides
    start, count = middle - far, 2 * far + 1
    lots_SK = bucket_lots(memory, start, count)
    lots0_SK = window_lots(before, width, start, count)
    low0 = before[BASE] // width
    rows_KC = np.full((count, NUM_COLUMNS), np.nan)
    bids, asks = 0, 0  # from the mid's bucket out to this one and its mirror
    for distance in range(far + 1):
        below, above = far - distance, far + distance
        bids += lots_SK[0, below] + (lots_SK[0, above] if distance else 0)
        asks += lots_SK[1, above] + (lots_SK[1, below] if distance else 0)
        is_known = (
            lowest_rank(start + below, width, 0) >= memory[REACH]
            and lowest_rank(start + above, width, 1) >= memory[REACH + 1]
        )
        if is_known and bids + asks:
            rows_KC[below, IMBALANCE] = rows_KC[above, IMBALANCE] = (bids - asks) / (bids + asks)
    for k in range(count):
        rank, other = lowest_rank(start + k, width, 0), lowest_rank(start + k, width, 1)
        if rank >= memory[REACH]:
            rows_KC[k, BIDS] = lots_SK[0, k] / LOTS
        if other >= memory[REACH + 1]:
            rows_KC[k, ASKS] = lots_SK[1, k] / LOTS
        was_known = rank >= before[REACH] and other >= before[REACH + 1]
        was_inside = 0 <= start + k - low0 < before[NUM_BUCKETS]
        if was_known and was_inside:
            added = lots_SK[0, k] - lots0_SK[0, k] - lots_SK[1, k] + lots0_SK[1, k]
            is_known = rank >= memory[REACH] and other >= memory[REACH + 1]
            rows_KC[k, OFI] = added / LOTS if is_known else np.nan
    return first, rows_KC[first - start : last - start + 1]
