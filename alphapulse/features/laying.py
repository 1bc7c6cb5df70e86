"""Lay the rows of a stream on the slots of an input, in one pass over memory."""

from __future__ import annotations

import numba
import numpy as np

from alphapulse.domain.inputs import Masks, Tensor
from alphapulse.domain.market import BarFlag, Flags, Floats, Ints
from alphapulse.features.channels import PLACED, fill_channels, place_mid, place_prices
from alphapulse.features.rows import COLUMN

# axes: T slot or row, oldest first · C column or channel · B book column

VALID, WARMUP, INCOMPLETE = (
    int(flag) for flag in (BarFlag.VALID, BarFlag.WARMUP, BarFlag.INCOMPLETE)
)
_LOW, _HIGH = COLUMN["low"], COLUMN["high"]


@numba.njit(cache=True, error_model="numpy")
def scale_of(
    first_ns: int,
    end_ns: int,
    open_ns_T: Ints,
    flags_T: Flags,
    prices_TP: Floats,
    forming_C: Floats,
) -> tuple[float, float]:  # pragma: no cover
    """Return the lowest low and the highest high of the rows an input shows [quote currency].

    Those are closed ones that open from `first_ns` until before `end_ns`, and the forming one.
    `forming_C` has no length where no forming bar is shown.
    """
    low, high = np.inf, -np.inf
    for t in range(len(open_ns_T)):
        if first_ns <= open_ns_T[t] < end_ns and flags_T[t] & VALID:
            low, high = min(low, prices_TP[t, 2]), max(high, prices_TP[t, 1])
    if len(forming_C):
        low, high = min(low, forming_C[_LOW]), max(high, forming_C[_HIGH])
    return low, high


@numba.njit(cache=True, error_model="numpy")
def _run_from(
    t: int, ts_ns_T: Ints, flags_T: Flags, step_ns: int, needed: int, hidden: int
) -> int:  # pragma: no cover
    """Return the end of the run of rows to show, one a step, that begins with row `t`."""
    end = t
    while (
        end < len(ts_ns_T)
        and ts_ns_T[end] == ts_ns_T[t] + (end - t) * step_ns
        and flags_T[end] & needed == needed
        and flags_T[end] & hidden == 0
    ):
        end += 1
    return end


@numba.njit(cache=True, error_model="numpy")
def lay_bars(
    first_ns: int,
    step_ns: int,
    num_closed: int,
    hidden: int,
    open_ns_T: Ints,
    flags_T: Flags,
    channels_TC: Tensor,
    known_TC: Masks,
    prices_TP: Floats,
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
        hidden: BarFlag bits of rows that are left out.
        open_ns_T: int64 (T,) opens of the rows [ns UTC], rising.
        flags_T: uint8 (T,) BarFlag bits.
        channels_TC: float32 (T, 32) of `bar_channels`.
        known_TC: uint8 (T, 32) of it.
        prices_TP: float64 (T, 5) of it.
        forming_C: float64 (C,) row of the forming bar; of no length where it is not shown.
        forming_flags: its BarFlag bits.
        low: of the scale [quote currency].
        high: of the scale.
        price: newest traded price of the symbol.
        out_TC: float32 (300, 32) to fill.
        out_known_TC: uint8 (300, 32) to fill.
        out_flags_T: uint8 (300,) to fill.

    Returns:
        How many slots are valid and warmed up, how many are valid, how many INCOMPLETE.
    """
    num_slots = len(out_flags_T)
    filled = t = 0  # slots before `filled` are written, rows before `t` are done
    while t < len(open_ns_T):
        slot = (open_ns_T[t] - first_ns) // step_ns
        end = t
        if 0 <= slot < num_closed:
            end = _run_from(t, open_ns_T, flags_T, step_ns, VALID, hidden)
            end = min(end, t + num_closed - slot)
        if end == t:
            t += 1
            continue
        _clear(filled, slot, out_TC, out_known_TC, out_flags_T)
        filled = slot + end - t
        out_TC[slot:filled] = channels_TC[t:end]
        out_known_TC[slot:filled] = known_TC[t:end]
        out_flags_T[slot:filled] = flags_T[t:end]
        place_prices(prices_TP[t:end], out_TC[slot:filled], low, high, price)
        t = end
    _clear(filled, num_slots, out_TC, out_known_TC, out_flags_T)
    if len(forming_C) and forming_flags & VALID:
        last = num_slots - 1
        prices_1P = np.empty((1, PLACED))
        fill_channels(forming_C.reshape(1, len(forming_C)), out_TC[last:], out_known_TC[last:],
                      prices_1P)  # fmt: skip
        place_prices(prices_1P, out_TC[last:], low, high, price)
        out_flags_T[last] = forming_flags
    num_usable = num_valid = num_incomplete = 0
    for slot in range(num_slots):
        flags = out_flags_T[slot]
        num_usable += (flags & (VALID | WARMUP)) == VALID
        num_valid += (flags & VALID) != 0
        num_incomplete += (flags & INCOMPLETE) != 0
    return num_usable, num_valid, num_incomplete


@numba.njit(cache=True, error_model="numpy")
def _clear(
    first: int, end: int, out_TC: Tensor, out_known_TC: Masks, out_flags_T: Flags
) -> None:  # pragma: no cover
    out_TC[first:end] = 0.0
    out_known_TC[first:end] = 0
    out_flags_T[first:end] = 0


@numba.njit(cache=True, error_model="numpy")
def lay_book(
    first_ns: int,
    step_ns: int,
    second_ns_T: Ints,
    flags_T: Flags,
    columns_TB: Tensor,
    known_TB: Masks,
    prices_TP: Floats,
    price: float,
    out_TB: Tensor,
    out_known_TB: Masks,
) -> int:  # pragma: no cover
    """Fill the slots of a book, as `lay_bars` does; return how many seconds are there."""
    num_slots = len(out_TB)
    num = filled = t = 0
    while t < len(second_ns_T):
        slot = (second_ns_T[t] - first_ns) // step_ns
        end = t
        if 0 <= slot < num_slots:
            end = _run_from(t, second_ns_T, flags_T, step_ns, 0, INCOMPLETE)
            end = min(end, t + num_slots - slot)
        if end == t:
            t += 1
            continue
        out_TB[filled:slot] = 0.0
        out_known_TB[filled:slot] = 0
        filled = slot + end - t
        out_TB[slot:filled] = columns_TB[t:end]
        out_known_TB[slot:filled] = known_TB[t:end]
        place_mid(prices_TP[t:end], out_TB[slot:filled], price)
        num += end - t
        t = end
    out_TB[filled:] = 0.0
    out_known_TB[filled:] = 0
    return num
