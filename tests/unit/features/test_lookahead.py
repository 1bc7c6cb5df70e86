"""Hold the checks to small bars worked out by hand: where a value moves, by how much, how far."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import BarSeries, Floats, Timeframe
from alphapulse.features.depths import too_short, warm_up
from alphapulse.features.known_labels import Labels, look_at_labels
from alphapulse.features.lookahead import LEAK, WARNING, Subject, Table, cuts_of, look
from alphapulse.features.skill import correlation, is_suspicious, skills, too_good

MINUTE_NS = Timeframe.M1.ns
NOW_NS = 1_723_161_240_000_000_000  # 2024-08-08T23:54:00Z
Column = Callable[[Floats], Floats]


def series_of(closes: Floats) -> BarSeries:
    ohlcv_TC = np.column_stack([closes] * 4 + [np.ones(len(closes))])
    opens = NOW_NS + MINUTE_NS * np.arange(len(closes))
    return BarSeries("ETH/USDT", Timeframe.M1, opens, ohlcv_TC)


def subject_of(**columns: Column) -> Subject:
    def compute(series: BarSeries) -> Table:
        close_T = series.ohlcv_TC[:, 3]
        return Table(tuple(columns), np.column_stack([f(close_T) for f in columns.values()]))

    return Subject("mine", compute)


def after(close_T: Floats, bars: int) -> Floats:
    return np.concatenate([close_T[bars:], np.full(bars, np.nan)])


COUNTING = series_of(np.arange(100.0, 120.0))


def test_value_that_reads_two_bars_ahead_is_found_where_it_moves() -> None:
    subject = subject_of(fair=lambda x: x, ahead=lambda x: after(x, 2))

    findings = look(subject, COUNTING, [10, 15])

    assert [(f.column, f.check, f.kind) for f in findings] == [
        ("ahead", "poison", LEAK),
        ("ahead", "prefix", LEAK),
    ]
    poison, prefix = findings
    assert (poison.bars_ahead, poison.num_bars) == (2, 8)  # two bars, two cuts, two fills
    assert poison.at_ns == int(COUNTING.open_ns_T[8]) + MINUTE_NS
    assert (poison.was, math.isnan(poison.became)) == (110.0, True)
    assert (math.isnan(prefix.was), prefix.became) == (True, 110.0)


def test_last_digits_that_depend_on_the_length_are_no_leak() -> None:
    subject = subject_of(sum=lambda x: x * (1 + 1e-15 * len(x)))

    (finding,) = look(subject, COUNTING, [10])

    assert (finding.kind, finding.check) == (WARNING, "rounding")


def test_subject_that_refuses_poison_is_checked_without_it() -> None:
    def refusing(close_T: Floats) -> Floats:
        if np.isnan(close_T).any():
            raise ValueError("NaN")
        return after(close_T, 1)

    findings = look(subject_of(x=refusing), COUNTING, [10])

    assert [(f.column, f.check, f.kind) for f in findings] == [
        ("(all)", "poison with nan", WARNING),
        ("x", "poison", LEAK),
        ("x", "prefix", LEAK),
    ]


def test_subject_that_fails_on_good_bars_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="mine: expected columns for 20 bars, was ZeroDiv"):
        look(subject_of(x=lambda x: x / (1 // 0)), COUNTING, [10])


def test_no_cut_ends_where_an_hour_or_a_day_does() -> None:
    for timeframe in (Timeframe.S1, Timeframe.M1, Timeframe.H1):
        longer = [t for t in Timeframe if t.ns > timeframe.ns]
        cuts = cuts_of(2_000, timeframe, first_ns=0)

        assert len(cuts) == 12
        assert not any(cut * timeframe.ns % t.ns == 0 for cut in cuts for t in longer)


def test_average_settles_at_the_depth_its_weights_say() -> None:
    def exponential(close_T: Floats) -> Floats:
        value, out = close_T[0], []
        for close in close_T:
            value = 0.9 * value + 0.1 * close
            out.append(value)
        return np.array(out)

    series = series_of(100 + np.sin(np.arange(700)))
    subject = subject_of(ewm=exponential, sum=np.cumsum)

    ewm, total = warm_up(subject, series, depths=(20, 100, 300))

    assert (ewm.settled, ewm.short, ewm.is_path_dependent) == (100, 20, False)
    assert ewm.difference[100] < 0.9**100  # relative, and a sine moves by 1 %
    assert (total.settled, total.short, total.is_path_dependent) == (None, 300, True)
    assert [f.note.split(":")[0] for f in too_short(subject, series, [ewm, total])] == [
        "warm-up too short",
        "path dependent",
    ]


def test_column_that_says_nothing_yet_is_not_too_short() -> None:
    def patient(close_T: Floats) -> Floats:
        sums = np.cumsum(close_T)
        return np.where(np.arange(len(close_T)) < 400, np.nan, sums - sums + close_T)

    (warming,) = warm_up(subject_of(x=patient), series_of(np.arange(1.0, 701.0)), depths=(100, 500))

    assert (warming.settled, warming.short) == (500, None)


def test_next_return_is_suspicious_and_the_last_one_is_not() -> None:
    moves = np.random.default_rng(3).normal(size=500) / 100  # arithmetic: no market is meant
    close_T = 100 * np.exp(np.cumsum(moves))
    told = np.append(moves[1:], np.nan)
    table = Table(("last", "next", "half"), np.column_stack([moves, told, moves + told]))

    skilled = skills(table, close_T)

    assert [skill.is_suspicious for skill in skilled] == [False, True, True]
    assert skilled[0].curve[-1] == skilled[1].curve[0] == pytest.approx(1.0)
    assert [f.column for f in too_good("x", skilled, NOW_NS)] == ["next", "half"]


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ({-1: 1.0, 0: 0.15, 1: 0.03}, False),  # honest: nearly all comes with the bar
        ({-1: 0.55, 0: 0.50, 1: 0.10}, True),  # the bar was known before
        ({-1: 0.50, 0: 0.30, 1: 0.29}, False),  # slow, but it was known long before
        ({-1: 0.30, 0: 0.09, 1: 0.00}, False),  # below what is looked at
        ({-1: math.nan, 0: 0.50, 1: 0.10}, True),
    ],
)
def test_rule_of_suspicion(curve: dict[int, float], verdict: bool) -> None:
    assert is_suspicious(curve, 3_000) is verdict


def test_ranks_share_what_is_equal() -> None:
    a, b = np.array([1.0, 1, 2, 2] * 10), np.array([1.0, 2, 3, 4] * 10)

    value, count = correlation(a, b)

    assert count == 40
    assert value == pytest.approx(2 / math.sqrt(5))  # by hand: ranks 1.5 1.5 3.5 3.5 and 1 2 3 4


def labels_of(known: Callable[[Floats, int], Floats]) -> Labels:
    def compute(series: BarSeries, known_ns: int) -> Table:
        count = int(np.searchsorted(series.open_ns_T, known_ns))
        return Table(("y",), known(series.ohlcv_TC[:, 3], count)[:, None])

    return Labels("mine", compute)


def waiting(close_T: Floats, count: int) -> Floats:
    told = after(close_T, 2)
    told[max(0, count - 2) :] = np.nan
    return told


def asked(close_T: Floats, count: int, told: Floats | float) -> Floats:
    return np.where(np.arange(len(close_T)) < count, told, np.nan)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (waiting, []),
        (lambda x, n: asked(x, n, after(x, 2)), [("early", 2)]),
        (lambda x, n: asked(x, n, 1.0 * n), [("revised", 10), ("feature", 0)]),
        (lambda x, n: np.full(len(x), np.nan), [("unknown", 0)]),
    ],
)
def test_labels_are_known_when_their_outcome_is(
    known: Callable[[Floats, int], Floats], expected: list[tuple[str, int]]
) -> None:
    findings = look_at_labels(labels_of(known), COUNTING, [10, 15])

    assert [(f.check, f.bars_ahead) for f in findings] == expected
