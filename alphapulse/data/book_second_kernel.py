"""Read from a book's memory what a second changed: by bucket, and in all levels near the mid."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import numpy as np

from alphapulse.data.book_kernel import (
    BASE,
    BEST,
    EMPTY,
    LOTS,
    NUM_BUCKETS,
    REACH,
    kernel,
)
from alphapulse.data.book_view_kernel import (
    band,
    bucket_lots,
    far_of,
    lots_between,
    lowest_rank,
    width_of,
    window_lots,
    window_of,
)
from alphapulse.domain.market import Floats, Ints
from alphapulse.features.rows import FLOW_BPS

# axes: S, L as in book_kernel · K bucket, rising price · C column
# columns of BUCKET_COLUMNS; the traded sizes are filled in by the book
BIDS, ASKS, IMBALANCE, OFI, NUM_COLUMNS = 0, 1, 4, 5, 6


@kernel
def resting(memory: Ints, bps: int) -> Ints:
    """Return int64 (levels, 2): ticks and lots within `bps` of the mid, lots of asks negative."""
    low, high = band(memory, bps)
    if low == EMPTY:
        return np.empty((0, 2), np.int64)
    width, count = width_of(memory), 0
    found_L2 = np.empty((2 * (high - low + 1), 2), np.int64)  # crossed, a tick may have both
    for side in range(2):
        sign, base = 1 - 2 * side, memory[BASE + side]
        (sums_K, lots_T), (ranks_N, lots_N) = window_of(memory, side), far_of(memory, side)
        lowest, highest = (low, high) if side == 0 else (-high, -low)
        place, end = max(lowest - base, 0), min(highest - base + 1, len(lots_T))
        while place < end:
            bucket = place // width
            stop = min((bucket + 1) * width, end)
            for held in range(place, stop if sums_K[bucket] else place):
                if lots_T[held]:
                    found_L2[count] = sign * (base + held), sign * lots_T[held]
                    count += 1
            place = stop
        for i in range(len(ranks_N)):
            if lowest <= ranks_N[i] <= highest:
                found_L2[count] = sign * ranks_N[i], sign * lots_N[i]
                count += 1
    return found_L2[:count].copy()


@kernel
def added(memory: Ints, before: Ints, resting_L2: Ints, kept_bps: int) -> float:
    """Return what was added within FLOW_BPS of the mid, bids less asks; NaN is unknown.

    Args:
        memory: of the book at the end of the second.
        before: head of the memory at its begin.
        resting_L2: int64 (levels, 2), what `resting` told then.
        kept_bps: how far it reaches.
    """
    (low, high), (lowest, highest) = band(memory, FLOW_BPS), band(before, kept_bps)
    if low == EMPTY or lowest == EMPTY or low < lowest or high > highest:
        return np.nan
    for head in (memory, before):
        if low < head[REACH] or -high < head[REACH + 1]:
            return np.nan
    lots = lots_between(memory, 0, low, high) - lots_between(memory, 1, low, high)
    for i in range(len(resting_L2)):
        if low <= resting_L2[i, 0] <= high:
            lots -= resting_L2[i, 1]
    return lots / LOTS


@kernel
def second(memory: Ints, before: Ints, first: int, last: int) -> Floats:
    """Return rows_KC of what rests in whole buckets and what changed there.

    Args:
        memory: of the book at the end of the second.
        before: head and sums of the memory at its begin.
        first: number of the first bucket.
        last: number of the last bucket.
    """
    width = width_of(memory)
    middle = (memory[BEST] - memory[BEST + 1]) // (2 * width)
    far = max(middle - first, last - middle)  # the imbalance looks as far on both sides
    start, count = middle - far, 2 * far + 1
    lots_SK, lots0_SK = np.empty((2, count), np.int64), np.empty((2, count), np.int64)
    for side in range(2):
        bucket_lots(memory, side, start, lots_SK[side])
        window_lots(before, side, start, lots0_SK[side])
    low0 = before[BASE] // width
    rows_KC = np.full((count, NUM_COLUMNS), np.nan)
    bids, asks = 0, 0  # from the mid's bucket out to this one and its mirror
    for distance in range(far + 1):
        below, above = far - distance, far + distance
        bids += lots_SK[0, below]  # there are none above the mid's bucket
        asks += lots_SK[1, above]
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
    return rows_KC[first - start : last - start + 1]
