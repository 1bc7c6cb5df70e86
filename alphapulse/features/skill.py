"""Compare what a column knows of the next bar with what it knew earlier and will know later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alphapulse.domain.market import Floats
from alphapulse.features.lookahead import LEAK, Finding, Table

# axes: T bar, oldest first · C column
LAGS = (-1, 0, 1, 2, 3, 5, 10)  # bars the column is held back; -1 is one bar too early
LEAST_SKILL = 0.1  # of a rank correlation with the next return: rarely reached by an honest column
NUM_ERRORS = 5.0  # standard errors, 1 / sqrt(n), a skill must be away from zero
LEAST_BARS = 30


@dataclass(frozen=True, slots=True)
class Skill:
    """How a column goes with the return of the next bar.

    Attributes:
        column: its name.
        curve: by lag [bars], rank correlation with the next bar's return; NaN where it cannot be
            told. Lag -1 is the column one bar later: what it will know when the return is known.
        num_bars: bars compared at lag 0.
        is_suspicious: see `is_suspicious`.
    """

    column: str
    curve: Mapping[int, float]
    num_bars: int
    is_suspicious: bool


def is_suspicious(curve: Mapping[int, float], num_bars: int) -> bool:
    """Return whether a column seems to know the next bar.

    Knowledge that is honest comes when the bar closes: between lag 0 and lag -1 the curve jumps,
    and between lag 1 and lag 0 it hardly moves. The rule: |skill| at lag 0 is above 0.1 and above
    five standard errors, and what lag 0 adds to the best lagged one is at least what lag -1 would
    add to it.

    >>> is_suspicious({-1: 1.0, 0: 0.05, 1: 0.02}, 1000)
    False
    >>> is_suspicious({-1: 0.02, 0: 0.99, 1: 0.03}, 1000)
    True
    """
    now = abs(curve[0])
    lagged = [abs(value) for lag, value in curve.items() if lag > 0 and not np.isnan(value)]
    before, after = max(lagged, default=0.0), abs(curve[-1])
    if num_bars < LEAST_BARS or not now > max(LEAST_SKILL, NUM_ERRORS / np.sqrt(num_bars)):
        return False
    return bool(now - before >= max(0.0, (0.0 if np.isnan(after) else after) - now))


def skills(table: Table, close_T: Floats, lags: Sequence[int] = LAGS) -> list[Skill]:
    """Return the skill of every column of `table`.

    Args:
        table: columns, one row a bar, said at its close.
        close_T: float64 (T,) closes of the same bars [quote currency].
        lags: bars a column is held back; -1 and 0 must be among them.
    """
    next_T = np.full(len(close_T), np.nan)
    next_T[:-1] = np.diff(np.log(close_T))
    found = []
    for name, value_T in zip(table.names, table.values_TC.T, strict=True):
        both = {lag: correlation(_held_back(value_T, lag), next_T) for lag in lags}
        curve = {lag: value for lag, (value, _) in both.items()}
        num_bars = both[0][1]
        found.append(Skill(name, curve, num_bars, is_suspicious(curve, num_bars)))
    return found


def too_good(subject: str, skilled: Sequence[Skill], at_ns: int) -> list[Finding]:
    """Return a finding for each column that seems to know the next bar."""
    return [
        Finding(
            kind=LEAK,
            subject=subject,
            column=skill.column,
            check="skill",
            at_ns=at_ns,
            bars_ahead=1,
            num_bars=skill.num_bars,
            was=max((abs(v) for lag, v in skill.curve.items() if lag > 0), default=0.0),
            became=abs(skill.curve[0]),
            note="it goes with the next bar's return as only the bar itself could",
        )
        for skill in skilled
        if skill.is_suspicious
    ]


def _held_back(value_T: Floats, lag: int) -> Floats:
    held_T = np.full(len(value_T), np.nan)
    if lag > 0:
        held_T[lag:] = value_T[:-lag]
    elif lag < 0:
        held_T[:lag] = value_T[-lag:]
    else:
        held_T[:] = value_T
    return held_T


def correlation(a_T: Floats, b_T: Floats) -> tuple[float, int]:
    """Return the rank correlation where both are known (NaN if one never moves), and how often."""
    known_T = np.isfinite(a_T) & np.isfinite(b_T)
    num_known = int(known_T.sum())
    if num_known < LEAST_BARS:
        return float("nan"), num_known
    a, b = _ranks(a_T[known_T]), _ranks(b_T[known_T])
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return (float(a @ b) / size if size > 0 else float("nan")), num_known


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value, the mean rank where values are equal."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)
