"""Keep the resting lots of a book by tick in one array, and change them by a message a call.

A side is kept by rank (the tick for a bid, minus the tick for an ask): the best level has the
highest rank on both sides, so one piece of code serves both. A window of ranks round the mid is
dense, with the sum of every bucket beside it; the few levels outside it stand in a short sorted
list. All of it lies in one array, since a call from Python pays for every array it passes.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import numba
import numpy as np

from alphapulse.domain.market import Floats, Ints

# axes: S side (bid, ask) · T place in the window, rising rank · K bucket of places · L level
#       N level outside the window, rising rank · X rank, lots
# The memory of a book: a head, then sums_SK, far_SXN and lots_ST. The head, "+ side" a side each:
BASE = 0  # + side: rank of the window's first place
BEST = 2  # + side: highest rank with lots; EMPTY if there is none
BEST_LOTS = 4  # + side
REACH = 6  # + side: rank of the snapshot's worst level; below it only named levels are known
NUM_FAR = 8  # + side: levels outside the window
FLOW = 10  # order-flow imbalance at the best level in this second [lots]
NUM_BUCKETS = 11
NUM_PLACES = 12
FAR_ROOM = 13
NUM_HEAD = 14

EMPTY = -(1 << 62)
LOTS = 1e8  # a unit; Binance quotes at most 8 decimals
MOST_LOTS = float(1 << 53)  # beyond it a float no longer tells lots apart
MOST_TICKS = float(1 << 44)  # so that a tick times twice a whole in basis points fits
TICK_TOLERANCE = 1e-4  # a price further from a whole tick is another instrument's [ticks]

# What a message did, 0 if none of these, or below zero why it was refused.
CROSSED, ONE_SIDED, DRIFTED = 1, 2, 3
BAD_PRICE, BAD_SIZE, NO_ROOM, NO_LEVELS = -1, -2, -3, -4

kernel = numba.njit(cache=True, error_model="numpy")
# what a message runs through: calls inside the kernel would cost it a tenth
inlined = numba.njit(cache=True, error_model="numpy", inline="always")


def new_memory(mid: int, width: int, *, span: int, far_room: int) -> Ints:
    """Return the memory of an empty book.

    Args:
        mid: tick at the middle of the window.
        width: ticks a bucket.
        span: ticks from the mid to either end of the window, at least.
        far_room: levels outside the window there is room for, a side.
    """
    low = (mid - span) // width  # buckets
    num_buckets = (mid + span) // width - low + 1
    num_places = num_buckets * width
    memory = np.zeros(NUM_HEAD + 2 * (num_buckets + 2 * far_room + num_places), np.int64)
    memory[BASE : BASE + 2] = low * width, 1 - low * width - num_places
    memory[BEST : BEST + 2] = EMPTY
    memory[NUM_BUCKETS:NUM_HEAD] = num_buckets, num_places, far_room
    return memory


@kernel
def sums_at(memory: Ints, side: int) -> int:
    """Return where sums_K of a side begins."""
    start: int = NUM_HEAD + side * memory[NUM_BUCKETS]
    return start


@kernel
def far_at(memory: Ints, side: int) -> int:
    """Return where ranks_N of the levels of a side outside the window begins, lots_N after it."""
    start: int = NUM_HEAD + 2 * (memory[NUM_BUCKETS] + side * memory[FAR_ROOM])
    return start


@kernel
def lots_at(memory: Ints, side: int) -> int:
    """Return where lots_T of a side begins."""
    start: int = far_at(memory, 2) + side * memory[NUM_PLACES]
    return start


@inlined
def check(levels_L2: Floats, per_tick: float) -> int:
    """Return 0 if every price is whole ticks and every size whole lots, else why not."""
    good_prices, good_sizes = True, True
    for i in range(len(levels_L2)):
        scaled, size = levels_L2[i, 0] * per_tick, levels_L2[i, 1]
        tick, lots = np.rint(scaled), np.rint(size * LOTS)
        good_prices &= (tick >= 1) & (tick < MOST_TICKS) & (abs(scaled - tick) <= TICK_TOLERANCE)
        good_sizes &= (lots >= 0) & (lots <= MOST_LOTS) & (lots / LOTS == size)
    return BAD_PRICE if not good_prices else 0 if good_sizes else BAD_SIZE


@kernel
def put_far(memory: Ints, side: int, rank: int, lots: int) -> None:
    """Set the lots of a level outside the window."""
    count = memory[NUM_FAR + side]
    far, room = far_at(memory, side), memory[FAR_ROOM]
    ranks_N, lots_N = memory[far : far + room], memory[far + room : far + 2 * room]
    place = np.searchsorted(ranks_N[:count], rank)
    is_there = place < count and ranks_N[place] == rank
    if lots and is_there:
        lots_N[place] = lots
    elif lots:
        for i in range(count, place, -1):
            ranks_N[i], lots_N[i] = ranks_N[i - 1], lots_N[i - 1]
        ranks_N[place], lots_N[place] = rank, lots
        memory[NUM_FAR + side] = count + 1
    elif is_there:
        for i in range(place, count - 1):
            ranks_N[i], lots_N[i] = ranks_N[i + 1], lots_N[i + 1]
        memory[NUM_FAR + side] = count - 1


@kernel
def find_best(memory: Ints, side: int) -> None:
    """Move the best of a side down to the highest rank that has lots."""
    sums, far, lots = sums_at(memory, side), far_at(memory, side), lots_at(memory, side)
    width = memory[NUM_PLACES] // memory[NUM_BUCKETS]
    base, last = memory[BASE + side], memory[NUM_FAR + side] - 1
    best, best_lots = EMPTY, 0
    place = min(memory[BEST + side] - base, memory[NUM_PLACES] - 1)
    while place >= 0:
        if memory[lots + place]:
            best, best_lots = base + place, memory[lots + place]
            break
        bucket = place // width
        place = place - 1 if memory[sums + bucket] else bucket * width - 1
    if last >= 0 and memory[far + last] > best:
        best, best_lots = memory[far + last], memory[far + memory[FAR_ROOM] + last]
    memory[BEST + side], memory[BEST_LOTS + side] = best, best_lots


@inlined
def put(memory: Ints, side: int, levels_L2: Floats, per_tick: float) -> None:
    """Set the lots of levels of one side that `check` has passed."""
    # unsigned: an index that might be below zero would be tested for that at every level
    sums, lots = np.uint64(sums_at(memory, side)), np.uint64(lots_at(memory, side))
    sign, base, size = 1 - 2 * side, memory[BASE + side], np.uint64(memory[NUM_PLACES])
    per_width = memory[NUM_BUCKETS] / memory[NUM_PLACES]
    best, best_lots = memory[BEST + side], memory[BEST_LOTS + side]
    for i in range(len(levels_L2)):
        rank = sign * int(np.rint(levels_L2[i, 0] * per_tick))
        own = int(np.rint(levels_L2[i, 1] * LOTS))
        place = np.uint64(rank - base)
        if place < size:
            # half a place more, so that rounding never leaves the bucket: cheaper than dividing
            bucket = np.uint64(int((int(place) + 0.5) * per_width))
            memory[sums + bucket] += own - memory[lots + place]
            memory[lots + place] = own
        else:
            put_far(memory, side, rank, own)
        if rank == best or (rank > best and own):
            best, best_lots = rank, own
    memory[BEST + side], memory[BEST_LOTS + side] = best, best_lots
    if best_lots == 0 and best != EMPTY:
        find_best(memory, side)


@inlined
def flow(best: int, lots: int, best_before: int, lots_before: int) -> int:
    """Return what was added at the best level of a side [lots].

    Source: Cont, Kukanov, Stoikov, The Price Impact of Order Book Events (2014), section 2.1.
    """
    return (best >= best_before) * lots - (best <= best_before) * lots_before


@inlined
def put_both(memory: Ints, bids_L2: Floats, asks_L2: Floats, per_tick: float) -> int:
    """Set the levels of both sides and return what that did; `BEST` holds what was before."""
    bid, ask = memory[BEST], memory[BEST + 1]
    bid_lots, ask_lots = memory[BEST_LOTS], memory[BEST_LOTS + 1]
    put(memory, 0, bids_L2, per_tick)
    put(memory, 1, asks_L2, per_tick)
    memory[FLOW] += flow(memory[BEST], memory[BEST_LOTS], bid, bid_lots)
    memory[FLOW] -= flow(memory[BEST + 1], memory[BEST_LOTS + 1], ask, ask_lots)
    bid, ask = memory[BEST], memory[BEST + 1]
    if bid == EMPTY or ask == EMPTY:
        return ONE_SIDED
    if bid + ask >= 0:
        return CROSSED
    size = memory[NUM_PLACES]
    from_middle = (bid - ask) - (2 * memory[BASE] + size)  # half ticks
    return DRIFTED if 2 * abs(from_middle) > size else 0


@kernel
def change(memory: Ints, bids_L2: Floats, asks_L2: Floats, per_tick: float) -> int:
    """Set the levels a message names and return what that did; refused, it changes nothing."""
    refused = min(check(bids_L2, per_tick), check(asks_L2, per_tick))
    if refused < 0:
        return refused
    room = memory[FAR_ROOM] - max(memory[NUM_FAR], memory[NUM_FAR + 1])
    if max(len(bids_L2), len(asks_L2)) > room:
        return NO_ROOM
    return put_both(memory, bids_L2, asks_L2, per_tick)


@kernel
def ends(levels_L2: Floats, per_tick: float) -> tuple[int, int]:
    """Return the lowest and the highest tick with lots, or twice why there is none."""
    refused = check(levels_L2, per_tick)
    if refused < 0:
        return refused, refused
    low, high = -EMPTY, NO_LEVELS
    for i in range(len(levels_L2)):
        if levels_L2[i, 1] > 0:
            tick = int(np.rint(levels_L2[i, 0] * per_tick))
            low, high = min(low, tick), max(high, tick)
    return min(low, high) if high < 0 else low, high


@kernel
def replace(memory: Ints, bids_L2: Floats, asks_L2: Floats, per_tick: float) -> int:
    """Set the levels of a snapshot in place of all others and return what that did.

    `ends` has passed both sides, and the memory has room for all of them outside the window.
    """
    bid, ask = memory[BEST], memory[BEST + 1]
    bid_lots, ask_lots = memory[BEST_LOTS], memory[BEST_LOTS + 1]
    width = memory[NUM_PLACES] // memory[NUM_BUCKETS]
    for side in range(2):
        sums, lots = sums_at(memory, side), lots_at(memory, side)
        sums_K = memory[sums : sums + memory[NUM_BUCKETS]]
        for bucket in np.flatnonzero(sums_K):  # the lots of all others are zero already
            memory[lots + bucket * width : lots + (bucket + 1) * width] = 0
        sums_K[:] = 0
        memory[NUM_FAR + side], memory[BEST + side] = 0, EMPTY
    flow_before = memory[FLOW]
    answer = put_both(memory, bids_L2, asks_L2, per_tick)
    memory[FLOW] = flow_before + flow(memory[BEST], memory[BEST_LOTS], bid, bid_lots)
    memory[FLOW] -= flow(memory[BEST + 1], memory[BEST_LOTS + 1], ask, ask_lots)
    memory[REACH] = ends(bids_L2, per_tick)[0]
    memory[REACH + 1] = -ends(asks_L2, per_tick)[1]
    return answer
