"""Find what looks ahead: change or withhold what comes after a bar, and see which values move."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import BarSeries, Bools, Floats, Timeframe

# axes: T bar, oldest first · C column
POISONS = (float("nan"), 1e9)  # what everything after a cut is overwritten with
ROUNDING = 1e-12  # relative: a sum over arrays of another length may end in other last bits
NUM_CUTS = 12
EARLY_CUTS = (10, 30, 60, 150)  # inside warm-ups: what is filled back shows nowhere else
LEAK, WARNING = "leak", "warning"


@dataclass(frozen=True, slots=True)
class Table:
    """What a subject says of some bars.

    Attributes:
        names: of the columns.
        values_TC: float64 (T, C), a row a bar, said when the bar has closed; NaN is not known.
    """

    names: tuple[str, ...]
    values_TC: Floats

    def rows(self, names: Sequence[str], count: int) -> Floats:
        """Return the first `count` rows of some columns, NaN where there is no such column."""
        place = {name: i for i, name in enumerate(self.names)}
        found_TC = np.full((count, len(names)), np.nan)
        for c, name in enumerate(names):
            if name in place:
                found_TC[:, c] = self.values_TC[:count, place[name]]
        return found_TC


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that can be computed on any stretch of bars.

    Attributes:
        name: what it is called in findings.
        compute: returns its columns for closed bars, one row a bar; must not keep or change them.
    """

    name: str
    compute: Callable[[BarSeries], Table]

    def of(self, series: BarSeries) -> Table:
        """Return the columns for `series`.

        Raises InvalidRequest if the subject fails, or does not answer with one row a bar.
        """
        try:
            with warnings.catch_warnings(action="ignore"):  # poison overflows; that is no news
                table = self.compute(series)
        except Exception as error:  # a stranger's code: anything may come
            raise InvalidRequest(
                f"{self.name}: expected columns for {len(series)} bars, was "
                f"{type(error).__name__}: {error}; let it answer NaN for what it cannot know"
            ) from error
        if len(table.values_TC) != len(series):
            raise InvalidRequest(
                f"{self.name}: expected a row for each of {len(series)} bars, was "
                f"{len(table.values_TC)}; return one value a bar, NaN where there is none"
            )
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One column that does what it must not, at the place where that reaches farthest.

    Attributes:
        kind: `leak` or `warning`.
        check: which check found it.
        at_ns: close of the bar whose value moved [ns UTC]: when the value was said.
        bars_ahead: how many bars after it reach into the value, as far as was seen; 0 if unknown.
        num_bars: bars whose value moved, over all cuts.
        was: value with nothing of the later bars known.
        became: value once they were there.
        note: what it means, in words.
    """

    kind: str
    subject: str
    column: str
    check: str
    at_ns: int
    bars_ahead: int
    num_bars: int
    was: float
    became: float
    note: str


def cuts_of(num_bars: int, timeframe: Timeframe, first_ns: int, count: int = NUM_CUTS) -> list[int]:
    """Return how many bars are known at each cut, rising.

    None of them ends where a longer bar ends too: a longer bar joined too early would pass there.
    """
    found = set()
    for share in np.linspace(0.4, 0.97, count):
        cut = max(2, int(num_bars * share))
        # odd places, so that a pattern in the bars is not met always at its same point
        while cut < num_bars - 1 and _is_round(first_ns + cut * timeframe.ns, timeframe):
            cut += 1
        if cut < num_bars:
            found.add(cut)
    return sorted(found)


def _is_round(ts_ns: int, timeframe: Timeframe) -> bool:
    return any(ts_ns % longer.ns == 0 for longer in Timeframe if longer.ns > timeframe.ns)


def poisoned(series: BarSeries, known: int, fill: float) -> BarSeries:
    """Return the series with prices and volumes overwritten from the bar `known` on."""
    ohlcv_TC = series.ohlcv_TC.copy()
    ohlcv_TC[known:] = fill
    return BarSeries(series.symbol, series.timeframe, series.open_ns_T, ohlcv_TC)


def first(series: BarSeries, count: int) -> BarSeries:
    """Return the oldest `count` bars."""
    return BarSeries(
        series.symbol, series.timeframe, series.open_ns_T[:count], series.ohlcv_TC[:count]
    )


def differ(a: Floats, b: Floats) -> Bools:
    """Return where two arrays are not the same bits; a NaN is a NaN."""
    same_bits = np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(np.int64)
    return np.asarray(~(same_bits | (np.isnan(a) & np.isnan(b))))


def look(subject: Subject, series: BarSeries, cuts: Sequence[int]) -> list[Finding]:
    """Return what looks ahead among a subject's columns, none if all is well.

    Three checks: `repeat` (the same bars, the same bits), `poison` (bars after a cut overwritten
    with NaN and with 1e9: the values before it keep their bits) and `prefix` (values on the bars up
    to a cut equal those on all bars: nothing is repainted, filled in later or scaled by what came).

    Args:
        subject: what is checked.
        series: closed bars without a gap, oldest first.
        cuts: how many bars are known at each cut.

    Raises InvalidRequest if the subject fails on good bars.
    """
    whole = subject.of(series)
    again_TC = subject.of(series).rows(whole.names, len(series))
    unsteady_C = differ(whole.values_TC, again_TC).any(axis=0)
    found = [
        farthest(
            subject.name,
            series,
            whole.names[c],
            "repeat",
            [(len(series), whole.values_TC[:, c], again_TC[:, c])],
        )
        for c in np.flatnonzero(unsteady_C).tolist()
    ]
    changed: dict[str, list[tuple[int, Floats, Floats]]] = {"poison": [], "prefix": []}
    for cut in cuts:
        after_TC = whole.values_TC[:cut]
        tries = [("prefix", "prefix", first(series, cut))]
        tries += [("poison", f"poison with {x:g}", poisoned(series, cut, x)) for x in POISONS]
        for check, how, bars in tries:
            try:
                values_TC = subject.of(bars).rows(whole.names, cut)
            except InvalidRequest as error:
                found.append(_refusal(subject.name, series, cut, how, error))
                continue
            pair = (values_TC, after_TC) if check == "prefix" else (after_TC, values_TC)
            changed[check].append((cut, *pair))
    for check, pairs in changed.items():
        found += [
            farthest(
                subject.name,
                series,
                whole.names[c],
                check,
                [(cut, a_TC[:, c], b_TC[:, c]) for cut, a_TC, b_TC in pairs],
            )
            for c in np.flatnonzero(~unsteady_C).tolist()
            if any(differ(a_TC[:, c], b_TC[:, c]).any() for _, a_TC, b_TC in pairs)
        ]
    return one_of_each(found)


NOTES = {
    "repeat": "not the same on the same bars; seed it, or it cannot be checked",
    "poison": "later bars change it",
    "prefix": "it becomes another once later bars are there",
    "stream": "bar by bar it is another than over the whole history",
    "early": "it was known before what it depends on had happened",
    "revised": "known once, it became another later",
    "order": "it depends on what was asked before",
    "rounding": "last digits depend on how many bars there are; nothing of later bars was seen",
}


def farthest(
    subject: str,
    series: BarSeries,
    column: str,
    check: str,
    pairs: Sequence[tuple[int, Floats, Floats]],
) -> Finding:
    """Return the finding of a column at the bar that later bars reach farthest back to.

    Args:
        subject: its name.
        series: the bars.
        column: its name.
        check: which check saw values move.
        pairs: how many bars were known, and float64 (T,) values without and with later bars; they
            differ somewhere.
    """
    count, best = 0, (-1, 0, 0.0, 0.0)
    is_rounding = check == "prefix"
    for cut, a_T, b_T in pairs:
        moved = np.flatnonzero(differ(a_T, b_T))
        if not len(moved):
            continue
        count += len(moved)
        a, b = a_T[moved], b_T[moved]
        with np.errstate(invalid="ignore"):
            is_rounding &= bool((np.abs(a - b) <= ROUNDING * np.abs(b)).all())
        reach = max(1, cut - int(moved[0]))
        if reach > best[0]:
            best = (reach, int(moved[0]), float(a[0]), float(b[0]))
    reach, bar, was, became = best
    return Finding(
        kind=WARNING if is_rounding else LEAK,
        subject=subject,
        column=column,
        check="rounding" if is_rounding else check,
        at_ns=int(series.open_ns_T[bar]) + series.timeframe.ns,
        bars_ahead=0 if check == "repeat" or is_rounding else reach,
        num_bars=count,
        was=was,
        became=became,
        note=NOTES["rounding" if is_rounding else check],
    )


def _refusal(subject: str, series: BarSeries, cut: int, how: str, error: InvalidRequest) -> Finding:
    return Finding(
        kind=WARNING,
        subject=subject,
        column="(all)",
        check=how,
        at_ns=int(series.open_ns_T[cut - 1]) + series.timeframe.ns,
        bars_ahead=0,
        num_bars=0,
        was=float("nan"),
        became=float("nan"),
        note=f"not checked so: {error}",
    )


def one_of_each(found: Sequence[Finding]) -> list[Finding]:
    """Return the first finding of each column and check, in the order they came."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in found:
        kept.setdefault((finding.column, finding.check), finding)
    return list(kept.values())
