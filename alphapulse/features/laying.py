"""Lay the rows of a stream on the slots of an input, in one pass over memory."""

from __future__ import annotations

import numba
import numpy as np

from alphapulse.domain.inputs import Masks, Tensor
from alphapulse.domain.market import BarFlag, Flags, Floats, Ints
from alphapulse.features.channels import fill_channels, place_mid, place_prices
from alphapulse.features.rows import COLUMN

# axes: T slot or row, oldest first · C column or channel · B book column

VALID, WARMUP, INCOMPLETE = (
    int(flag) for flag in (BarFlag.VALID, BarFlag.WARMUP, BarFlag.INCOMPLETE)
)
_LOW, _HIGH = COLUMN["low"], COLUMN["high"]


@numba.njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def scale_of(
    first_ns: int,
    open_ns_T: Ints,
    flags_T: Flags,
    rows_TC: Floats,
    forming_C: Floats,
    shows_forming: bool,
) -> tuple[float, float]:  # pragma: no cover
    """Return the lowest low and the highest high of the rows an input shows [quote currency]."""
    low, high = np.inf, -np.inf
    for t in range(len(open_ns_T)):
        if open_ns_T[t] >= first_ns and flags_T[t] & VALID:
            low, high = min(low, rows_TC[t, _LOW]), max(high, rows_TC[t, _HIGH])
    if shows_forming:
        low, high = min(low, forming_C[_LOW]), max(high, forming_C[_HIGH])
    return low, high


@numba.njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def lay_bars(
    first_ns: int,
    step_ns: int,
    num_closed: int,
    hides: bool,
    open_ns_T: Ints,
    flags_T: Flags,
    rows_TC: Floats,
    channels_TC: Tensor,
    known_TC: Masks,
    forming_C: Floats,
    forming_flags: int,
    low: float,
    high: float,
    price: float,
    out_TC: Tensor,
    out_known_TC: Masks,
    out_flags_T: Flags,
) -> tuple[int, int, int]:  # pragma: no cover
    """Fill one stream's slots; a slot without a row is 0 throughout.

    Args:
        first_ns: time of slot 0 [ns UTC].
        step_ns: length of a bar.
        num_closed: slots of closed bars, the first ones.
        hides: whether rows flagged INCOMPLETE are left out.
        open_ns_T: int64 (T,) opens of the rows [ns UTC], rising.
        flags_T: uint8 (T,) BarFlag bits.
        rows_TC: float64 (T, C) rows.
        channels_TC: float32 (T, 32) of `bar_channels`.
        known_TC: uint8 (T, 32) of it.
        forming_C: float64 (C,) row of the forming bar, of any content where it is not shown.
        forming_flags: its BarFlag bits, 0 where it is not shown.
        low: of the scale [quote currency].
        high: of the scale.
        price: newest traded price of the symbol.
        out_TC: float32 (300, 32) to fill.
        out_known_TC: uint8 (300, 32) to fill.
        out_flags_T: uint8 (300,) to fill.

    Returns:
        How many slots are valid and warmed up, how many are valid, how many INCOMPLETE.
    """
    out_flags_T[:] = 0
    num_usable = num_valid = num_incomplete = 0
    filled = 0  # slots before this one are written
    for t in range(len(open_ns_T)):
        slot = (open_ns_T[t] - first_ns) // step_ns
        flags = flags_T[t]
        if slot < 0 or slot >= num_closed or not flags & VALID or (hides and flags & INCOMPLETE):
            continue
        out_TC[filled:slot] = 0.0
        out_known_TC[filled:slot] = 0
        out_TC[slot] = channels_TC[t]
        out_known_TC[slot] = known_TC[t]
        place_prices(
            rows_TC[t : t + 1], out_TC[slot : slot + 1], out_known_TC[slot : slot + 1],
            low, high, price,
        )  # fmt: skip
        out_flags_T[slot] = flags
        filled = slot + 1
    last = len(out_flags_T) - 1
    out_TC[filled:] = 0.0
    out_known_TC[filled:] = 0
    if forming_flags & VALID:
        forming_1C = forming_C.reshape(1, len(forming_C))
        out_1C, known_1C = out_TC[last:], out_known_TC[last:]
        fill_channels(forming_1C, out_1C, known_1C)
        place_prices(forming_1C, out_1C, known_1C, low, high, price)
        out_flags_T[last] = forming_flags
    for flags in out_flags_T:
        num_usable += (flags & (VALID | WARMUP)) == VALID
        num_valid += (flags & VALID) != 0
        num_incomplete += (flags & INCOMPLETE) != 0
    return num_usable, num_valid, num_incomplete


@numba.njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def lay_book(
    first_ns: int,
    step_ns: int,
    second_ns_T: Ints,
    flags_T: Flags,
    rows_TB: Floats,
    columns_TB: Tensor,
    known_TB: Masks,
    price: float,
    out_TB: Tensor,
    out_known_TB: Masks,
) -> int:  # pragma: no cover
    """Fill the slots of a book, as `lay_bars` does; return how many seconds are there."""
    num = filled = 0
    for t in range(len(second_ns_T)):
        slot = (second_ns_T[t] - first_ns) // step_ns
        if slot < 0 or slot >= len(out_TB) or flags_T[t] & INCOMPLETE:
            continue
        out_TB[filled:slot] = 0.0
        out_known_TB[filled:slot] = 0
        out_TB[slot] = columns_TB[t]
        out_known_TB[slot] = known_TB[t]
        place_mid(rows_TB[t : t + 1], out_TB[slot : slot + 1], out_known_TB[slot : slot + 1], price)
        filled = slot + 1
        num += 1
    out_TB[filled:] = 0.0
    out_known_TB[filled:] = 0
    return num
