"""Find labels that are known before their outcome, or change after they were known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import BarSeries, Floats
from alphapulse.features.lookahead import (
    POISONS,
    WARNING,
    Finding,
    Subject,
    Table,
    differ,
    farthest,
    first,
    one_of_each,
    poisoned,
)

# axes: T bar, oldest first · C column


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels that say what they knew at a time.

    Attributes:
        name: what they are called in findings.
        compute: returns the labels of the instants at which the bars close, one row a bar, as known
            at a time [ns UTC]; NaN where the label was not known then.
    """

    name: str
    compute: Callable[[BarSeries, int], Table]

    def at(self, series: BarSeries, known_ns: int) -> Table:
        """Return the labels as known at `known_ns`; raises InvalidRequest as `Subject.of` does."""
        return Subject(self.name, lambda bars: self.compute(bars, known_ns)).of(series)


def look_at_labels(labels: Labels, series: BarSeries, cuts: Sequence[int]) -> list[Finding]:
    """Return what is known too early among the labels, or changes once known.

    At each cut the labels are asked for as known at the close of the last bar of the cut. `early`:
    they are the same whether there are later bars or not, whatever is in those. `revised`: what was
    known at a cut is the same at every later one. `feature` (a warning): a label known at the
    close of its own bar has no outcome to wait for. `unknown` (a warning): no cut knew one.

    Args:
        labels: what is checked.
        series: closed bars without a gap, oldest first.
        cuts: how many bars are known at each cut, rising.
    """
    num_bars = len(series)
    closes = series.open_ns_T + series.timeframe.ns
    names = labels.at(series, int(closes[-1])).names
    found: list[Finding] = []
    early: list[tuple[int, Floats, Floats]] = []
    revised: list[tuple[int, Floats, Floats]] = []
    told: list[tuple[int, Floats]] = []
    for cut in cuts:
        known_ns = int(closes[cut - 1])
        alone_TC = _padded(labels.at(first(series, cut), known_ns), names, cut, num_bars)
        for bars in (series, *(poisoned(series, cut, fill) for fill in POISONS)):
            try:
                beside_TC = labels.at(bars, known_ns).rows(names, num_bars)
            except InvalidRequest as error:
                found.append(_warning(labels.name, series, "(all)", cut, f"not checked: {error}"))
                continue
            early.append((cut, alone_TC, beside_TC))
        for before, was_TC in told:
            same_or_new_TC = np.where(np.isnan(was_TC), np.nan, alone_TC)
            revised.append((before, was_TC, same_or_new_TC))
        told.append((cut, alone_TC))
    for check, pairs in (("early", early), ("revised", revised)):
        found += [
            farthest(
                labels.name,
                series,
                name,
                check,
                [(cut, a_TC[:, c], b_TC[:, c]) for cut, a_TC, b_TC in pairs],
            )
            for c, name in enumerate(names)
            if any(differ(a_TC[:, c], b_TC[:, c]).any() for _, a_TC, b_TC in pairs)
        ]
    for c, name in enumerate(names):
        found += _waits(labels.name, series, name, [(cut, t_TC[:cut, c]) for cut, t_TC in told])
    return one_of_each(found)


def _padded(table: Table, names: Sequence[str], known: int, num_bars: int) -> Floats:
    padded_TC = np.full((num_bars, len(names)), np.nan)
    padded_TC[:known] = table.rows(names, known)
    return padded_TC


def _waits(
    subject: str, series: BarSeries, column: str, told: Sequence[tuple[int, Floats]]
) -> list[Finding]:
    known = [(cut, np.flatnonzero(~np.isnan(value_T))) for cut, value_T in told]
    if not any(len(bars) for _, bars in known):
        return [_warning(subject, series, column, told[-1][0], "no cut knew one", check="unknown")]
    for cut, bars in known:
        if len(bars) and bars[-1] == cut - 1:
            note = "known at its own bar: no outcome is waited for"
            return [_warning(subject, series, column, cut, note, check="feature")]
    return []


def _warning(
    subject: str, series: BarSeries, column: str, cut: int, note: str, *, check: str = "early"
) -> Finding:
    return Finding(
        kind=WARNING,
        subject=subject,
        column=column,
        check=check,
        at_ns=int(series.open_ns_T[cut - 1]) + series.timeframe.ns,
        bars_ahead=0,
        num_bars=0,
        was=float("nan"),
        became=float("nan"),
        note=note,
    )
