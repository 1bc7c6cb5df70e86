"""Add trades to the bars of several timeframes in one pass over their columns."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from alphapulse.domain.market import Floats, Ints

# axes: F timeframe, shortest first, each a multiple of the one before · R row of a ring · N trade

# One bar; a period without trades has count 0 and repeats the close before it. Lots are integers,
# so that a volume is the same however the trades were cut into batches.
BAR = np.dtype(
    [
        ("open_ns", np.int64),  # -1 before the first trade
        ("open", np.float64),
        ("high", np.float64),
        ("low", np.float64),
        ("close", np.float64),
        ("lots", np.int64),
        ("count", np.int64),
    ]
)
# Where the closed bars of one timeframe lie: rows first .. first + size, written round and round.
RING = np.dtype(
    [("length_ns", np.int64), ("first", np.int64), ("size", np.int64), ("num", np.int64)]
)
Records = npt.NDArray[np.void]


@numba.njit(cache=True)
def _merge(bars_F: Records, f: int, later: int) -> None:
    """Add bar `later`, which has trades, to bar `f`, which it follows."""
    into, bar = bars_F[f], bars_F[later]
    if into.count == 0:
        into.open, into.high, into.low = bar.open, bar.high, bar.low
    else:
        into.high = max(into.high, bar.high)
        into.low = min(into.low, bar.low)
    into.close = bar.close
    into.lots += bar.lots
    into.count += bar.count


@numba.njit(cache=True)
def _close(bars_F: Records, rings_F: Records, closed_R: Records, f: int) -> None:
    """Move bar `f` to its ring and into the next longer one, and begin the next."""
    ring, bar = rings_F[f], bars_F[f]
    closed_R[ring.first + ring.num % ring.size] = bar
    ring.num += 1
    if f + 1 < len(bars_F) and bar.count > 0:
        _merge(bars_F, f + 1, f)
    bar.open_ns += ring.length_ns
    bar.open = bar.high = bar.low = bar.close
    bar.lots = bar.count = 0


@numba.njit(cache=True)
def close_until(bars_F: Records, rings_F: Records, closed_R: Records, ts_ns: int) -> None:
    """Close every bar that ends at or before `ts_ns` [ns UTC], those without trades too."""
    if bars_F[0].open_ns < 0:
        return
    while ts_ns >= bars_F[0].open_ns + rings_F[0].length_ns:
        _close(bars_F, rings_F, closed_R, 0)
        for f in range(1, len(bars_F)):  # a longer bar ends only where the shortest does
            if bars_F[0].open_ns < bars_F[f].open_ns + rings_F[f].length_ns:
                break
            _close(bars_F, rings_F, closed_R, f)


@numba.njit(cache=True)
def add(
    bars_F: Records,
    rings_F: Records,
    closed_R: Records,
    ts_ns_N: Ints,
    price_N: Floats,
    lots_N: Ints,
) -> None:
    """Add trades, oldest first, and close every bar that ends before one of them.

    Only the shortest bar is written a trade; a longer one takes it over when it closes.

    Args:
        bars_F: BAR (F,), the bars not closed yet.
        rings_F: RING (F,), where the closed ones go.
        closed_R: BAR (R,), all rings one after the other.
        ts_ns_N: int64 (N,) [ns UTC].
        price_N: float64 (N,) [quote currency].
        lots_N: int64 (N,) [1e-8 of the base currency].
    """
    if len(ts_ns_N) == 0:
        return
    bar = bars_F[0]
    if bar.open_ns < 0:
        for f in range(len(bars_F)):
            bars_F[f].open_ns = ts_ns_N[0] - ts_ns_N[0] % rings_F[f].length_ns
    end_ns = bar.open_ns + rings_F[0].length_ns
    for i in range(len(ts_ns_N)):
        if ts_ns_N[i] >= end_ns:
            close_until(bars_F, rings_F, closed_R, ts_ns_N[i])
            end_ns = bar.open_ns + rings_F[0].length_ns
        price = price_N[i]
        if bar.count == 0:
            bar.open = bar.high = bar.low = price
        elif price > bar.high:
            bar.high = price
        elif price < bar.low:
            bar.low = price
        bar.close = price
        bar.lots += lots_N[i]
        bar.count += 1


@numba.njit(cache=True)
def so_far(bars_F: Records, upto_F: Records, f: int) -> None:
    """Write bar `f` with all trades so far to `upto_F[f]`: the shorter bars still hold the newest.

    Args:
        bars_F: BAR (F,), the bars not closed yet; unchanged.
        upto_F: BAR (F,), written from f down to 0.
        f: index of the timeframe.
    """
    for i in range(f + 1):
        upto_F[i] = bars_F[i]
    for shorter in range(f - 1, -1, -1):
        if upto_F[shorter].count > 0:
            _merge(upto_F, f, shorter)
