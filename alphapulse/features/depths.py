"""Measure how many bars a column needs until it is what a long history would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alphapulse.domain.market import BarSeries, Floats
from alphapulse.features.lookahead import WARNING, Finding, Subject, Table

# axes: D depth · E end (bar the value is taken at) · C column
DEPTHS = (100, 200, 300, 600, 1_440)
SETTLED = 1e-6  # relative difference below which a value counts as settled
TOLERATED = 1e-3  # above which a value must not be shown as known
NUM_ENDS = 3  # newest bar, and others before it: one value may agree by chance
END_STEP = 37


@dataclass(frozen=True, slots=True)
class Warming:
    """How a column comes to its value.

    Attributes:
        column: its name.
        difference: by depth [bars], the largest relative difference from the value on the whole
            history at the newest bars; NaN where the column said nothing yet.
        settled: least depth from which on it stays below 1e-6; None if it does not.
        is_path_dependent: whether it still differs by more than 1e-3 at the greatest depth: how far
            back it began is part of it, as in on-balance volume.
        short: greatest depth at which it said a value that differs by more than 1e-3; None if none.
    """

    column: str
    difference: Mapping[int, float]
    settled: int | None
    is_path_dependent: bool
    short: int | None


def warm_up(subject: Subject, series: BarSeries, depths: Sequence[int] = DEPTHS) -> list[Warming]:
    """Return how each column settles with the depth of the history.

    A difference is relative to the value on the whole history, but at least to a hundredth of the
    column's median size: what crosses zero has no relative difference there.
    """
    ends = [len(series) - i * END_STEP for i in range(NUM_ENDS)]
    usable = [depth for depth in depths if depth < ends[-1]]
    whole = subject.of(series)
    size_C = _median_size(whole)
    difference_DC = np.full((len(usable), len(whole.names)), np.nan)
    for d, depth in enumerate(usable):
        for end in ends:
            rows = slice(end - depth, end)
            part = BarSeries(
                series.symbol, series.timeframe, series.open_ns_T[rows], series.ohlcv_TC[rows]
            )
            said_C = subject.of(part).rows(whole.names, depth)[-1]
            difference_C = _difference(said_C, whole.values_TC[end - 1], size_C)
            difference_DC[d] = np.fmax(difference_DC[d], difference_C)
    return [
        _warming(name, dict(zip(usable, difference_DC[:, c].tolist(), strict=True)))
        for c, name in enumerate(whole.names)
    ]


def _median_size(table: Table) -> Floats:
    size_TC = np.abs(table.values_TC)
    known_C = ~np.isnan(size_TC).all(axis=0)
    size_C = np.full(len(table.names), np.nan)
    if known_C.any():
        size_C[known_C] = np.nanmedian(size_TC[:, known_C], axis=0)
    return size_C


def _difference(said_C: Floats, true_C: Floats, size_C: Floats) -> Floats:
    """Return the relative difference, NaN where nothing was said, inf where nothing is true."""
    scale_C = np.fmax(np.abs(true_C), size_C / 100)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference_C = np.where(said_C == true_C, 0.0, np.abs(said_C - true_C) / scale_C)
    difference_C[~np.isnan(said_C) & np.isnan(true_C)] = np.inf
    return np.asarray(difference_C)


def _warming(name: str, difference: Mapping[int, float]) -> Warming:
    depths = sorted(difference)
    settled = None
    for depth in reversed(depths):
        if not difference[depth] < SETTLED:
            break
        settled = depth
    is_path = bool(depths) and difference[depths[-1]] > TOLERATED
    over = [depth for depth in depths if difference[depth] > TOLERATED]
    return Warming(name, difference, settled, is_path, over[-1] if over else None)


def too_short(subject: Subject, series: BarSeries, warmings: Sequence[Warming]) -> list[Finding]:
    """Return a warning for each column that says a value before it is settled."""
    at_ns = int(series.open_ns_T[-1]) + series.timeframe.ns
    found = []
    for warming in warmings:
        if warming.short is None:
            continue
        depth = warming.short
        what = (
            f"path dependent: after {depth} bars still"
            if warming.is_path_dependent
            else f"warm-up too short: after {depth} bars said with"
        )
        found.append(
            Finding(
                kind=WARNING,
                subject=subject.name,
                column=warming.column,
                check="warm-up",
                at_ns=at_ns,
                bars_ahead=0,
                num_bars=0,
                was=float(depth),
                became=warming.difference[depth],
                note=f"{what} a relative difference of {warming.difference[depth]:.1e}",
            )
        )
    return found
