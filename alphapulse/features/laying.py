"""Lay the rows of a stream on the slots of an input, in one pass over memory."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from alphapulse.domain.inputs import Masks, Tensor
from alphapulse.domain.market import TIMEFRAMES, BarFlag, Flags, Floats, Ints
from alphapulse.features.channels import PLACED, fill_channels, place_mid, place_prices
from alphapulse.features.rows import COLUMN

# axes: T slot or row, oldest first · C column or channel · B book column

VALID, WARMUP, INCOMPLETE = (
    int(flag) for flag in (BarFlag.VALID, BarFlag.WARMUP, BarFlag.INCOMPLETE)
)
_LOW, _HIGH = COLUMN["low"], COLUMN["high"]
STEPS_NS = tuple(timeframe.ns for timeframe in TIMEFRAMES)

Stream = tuple[Ints, Flags, Tensor, Masks, Floats, Floats, int]
Book = tuple[Ints, Flags, Tensor, Masks, Floats]


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
def _move(source_N: Any, target_N: Any) -> None:  # pragma: no cover
    """Copy one after the other: a plain loop becomes wide moves, a slice assignment does not."""
    for n in range(len(source_N)):
        target_N[n] = source_N[n]


@numba.njit(cache=True, error_model="numpy")
def lay_bars(
    f: int,
    event_ns: int,
    stream: Stream,
    low: float,
    high: float,
    price: float,
    out_TC: Tensor,
    out_known_TC: Masks,
    out_flags_T: Flags,
) -> tuple[int, int, int]:  # pragma: no cover
    """Fill the slots of timeframe `f`; a slot without a row is 0 throughout.

    Returns:
        How many slots are valid and warmed up, how many are valid, how many INCOMPLETE.
    """
    open_ns_T, flags_T, values_TC, known_TC, prices_TP, forming_C, forming_flags = stream
    step_ns, num_slots = STEPS_NS[f], len(out_flags_T)
    num_closed = num_slots if f == 0 else num_slots - 1
    first_ns = event_ns - event_ns % step_ns - num_closed * step_ns
    hidden = INCOMPLETE if f == 0 else 0
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
        _move(values_TC[t:end].ravel(), out_TC[slot:filled].ravel())
        _move(known_TC[t:end].ravel(), out_known_TC[slot:filled].ravel())
        _move(flags_T[t:end], out_flags_T[slot:filled])
        place_prices(prices_TP[t:end], out_TC[slot:filled], low, high, price)
        t = end
    _clear(filled, num_slots, out_TC, out_known_TC, out_flags_T)
    if len(forming_C) and forming_flags & VALID:
        last = num_slots - 1
        prices_1P = np.empty((1, PLACED))
        fill_channels(
            forming_C.reshape(1, len(forming_C)), out_TC[last:], out_known_TC[last:], prices_1P
        )
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
    event_ns: int, book: Book, price: float, out_TB: Tensor, out_known_TB: Masks
) -> int:  # pragma: no cover
    """Fill the slots of a book, as `lay_bars` does; return how many seconds are there."""
    second_ns_T, flags_T, values_TB, known_TB, prices_TP = book
    num_slots, step_ns = len(out_TB), STEPS_NS[0]
    first_ns = event_ns - event_ns % step_ns - (num_slots - 1) * step_ns
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
        _move(values_TB[t:end].ravel(), out_TB[slot:filled].ravel())
        _move(known_TB[t:end].ravel(), out_known_TB[slot:filled].ravel())
        place_mid(prices_TP[t:end], out_TB[slot:filled], price)
        num += end - t
        t = end
    out_TB[filled:] = 0.0
    out_known_TB[filled:] = 0
    return num


@numba.njit(cache=True, error_model="numpy")
def lay(
    event_ns: int,
    streams: tuple[Stream, ...],
    book: Book,
    price: float,
    bars_FTC: Tensor,
    known_FTC: Masks,
    flags_FT: Flags,
    book_TB: Tensor,
    known_TB: Masks,
    counts_FN: Ints,
) -> tuple[float, float, int]:  # pragma: no cover
    """Fill a symbol's part of an input, in one call: a call costs as much as filling a stream.

    Args:
        event_ns: the decision instant [ns UTC].
        streams: of each timeframe opens, flags, what models see, the forming row, its flags.
        book: seconds, flags, what models see.
        price: newest traded price [quote currency].
        bars_FTC: float32 (4, 300, 32) to fill.
        known_FTC: uint8 (4, 300, 32) to fill.
        flags_FT: uint8 (4, 300) to fill.
        book_TB: float32 (300, 50) to fill.
        known_TB: uint8 (300, 50) to fill.
        counts_FN: int64 (4, 3) to fill, of slots: usable, valid, incomplete.

    Returns:
        Low and high of the scale [quote currency], number of book seconds.
    """
    last = len(streams) - 1
    open_ns_T, flags_T, _, _, prices_TP, forming_C, _ = streams[last]
    end_ns = event_ns - event_ns % STEPS_NS[last]
    first_ns = end_ns - (flags_FT.shape[1] - 1) * STEPS_NS[last]
    low, high = scale_of(first_ns, end_ns, open_ns_T, flags_T, prices_TP, forming_C)
    for f in range(len(streams)):
        counts_FN[f] = lay_bars(
            f, event_ns, streams[f], low, high, price, bars_FTC[f], known_FTC[f], flags_FT[f]
        )
    return low, high, lay_book(event_ns, book, price, book_TB, known_TB)
