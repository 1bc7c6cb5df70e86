"""Laws of the pivot points, and that only a whole closed session ever gives some."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import BarSeries, Timeframe
from alphapulse.features.pivot_points import (
    DAY_NS,
    SESSION_LEVELS,
    WEEK_NS,
    PivotPoints,
    SessionLevels,
)

LoadSeries = Callable[[str, Timeframe], BarSeries]
Bar = tuple[int, float, float, float]  # open_ns, high, low, close
HOUR = Timeframe.H1.ns
MONDAY_NS = 4 * DAY_NS  # 1970-01-05
STREAMS = [(s, tf) for s in ("ETH/USDT", "BTC/USDT") for tf in list(Timeframe)[1:]]
NAMES = (
    "p r1 r2 r3 s1 s2 s3 fib_r1 fib_r2 fib_r3 fib_s1 fib_s2 fib_s3 cam_r1 cam_r2 cam_r3 cam_r4 "
    "cam_s1 cam_s2 cam_s3 cam_s4 woodie_p woodie_r1 woodie_r2 woodie_s1 woodie_s2"
)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[float, float, float]:
    low, span = draw(st.integers(1, 10**6)), draw(st.integers(2, 10**6))
    return float(low + span), float(low), float(low + draw(st.integers(1, span - 1)))


@given(sessions())
def test_levels_are_ordered_around_the_pivot_point(session: tuple[float, float, float]) -> None:
    high, low, close = session
    for points in (PivotPoints.classic(high, low, close), PivotPoints.fibonacci(high, low, close)):
        names = ("s3", "s2", "s1", "p", "r1", "r2", "r3")
        assert all(a < b for a, b in pairwise(getattr(points, name) for name in names))

    camarilla = PivotPoints.camarilla(high, low, close)
    rising = [getattr(camarilla, name) for name in ["s4", "s3", "s2", "s1", "r1", "r2", "r3", "r4"]]
    assert all(a < b for a, b in pairwise([*rising[:4], close, *rising[4:]]))


@given(sessions())
def test_levels_lie_as_far_above_as_below(session: tuple[float, float, float]) -> None:
    high, low, close = session

    for points in (PivotPoints.classic(high, low, close), PivotPoints.woodie(high, low, close)):
        assert points.r2 - points.p == pytest.approx(high - low, abs=1e-6)
        assert points.p - points.s2 == pytest.approx(high - low, abs=1e-6)
        assert points.r1 + points.s1 == pytest.approx(4 * points.p - high - low)


def hours(first: int, last: int, *, without: tuple[int, ...] = ()) -> list[Bar]:
    """Return the bars of 1h from number `first` to before `last`, hour by hour a step higher."""
    return [
        (i * HOUR, 110.0 + i, 90.0 + i, 105.0 + i) for i in range(first, last) if i not in without
    ]


def states(bars: list[Bar], timeframe: Timeframe = Timeframe.H1) -> list[list[float]]:
    levels = SessionLevels(timeframe)
    found = []
    for bar in bars:
        levels.update(*bar)
        found.append(levels.state.copy())
    return found


def known(found: list[list[float]]) -> list[bool]:
    assert all(len({math.isnan(number) for number in state}) == 1 for state in found)
    return [not math.isnan(state[0]) for state in found]


def test_names_of_the_session_levels_are_fixed() -> None:
    assert " ".join(SESSION_LEVELS) == NAMES


def test_levels_are_those_of_the_day_before_from_its_end_on() -> None:
    found = states(hours(0, 50))

    assert known(found) == [False] * 24 + [True] * 26
    for day in (1, 2):
        high, low, close = 110.0 + 24 * day - 1, 90.0 + 24 * (day - 1), 105.0 + 24 * day - 1
        expected = PivotPoints.classic(high, low, close)
        assert found[24 * day][:3] == [expected.p, expected.r1, expected.r2]
        woodie = PivotPoints.woodie(high, low, close)
        assert found[24 * day][-5:] == [woodie.p, woodie.r1, woodie.r2, woodie.s1, woodie.s2]


def test_a_forming_session_changes_no_level() -> None:
    found = states(hours(0, 48))

    assert all(state == found[24] for state in found[24:])


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        (hours(1, 72), [False] * 47 + [True] * 24),
        (hours(0, 72, without=(5,)), [False] * 47 + [True] * 24),
        (hours(0, 72, without=(23,)), [False] * 47 + [True] * 24),
        (hours(0, 72, without=(24,)), [False] * 24 + [True] * 23 + [False] * 24),
        (hours(0, 96, without=tuple(range(24, 48))), [False] * 48 + [True] * 24),
    ],
    ids=["begins late", "a bar missing", "the last missing", "the first missing", "no day between"],
)
def test_a_session_that_is_not_whole_gives_no_levels(bars: list[Bar], expected: list[bool]) -> None:
    assert known(states(bars)) == expected


def test_the_session_of_days_is_the_week_from_monday() -> None:
    days = [(MONDAY_NS + i * DAY_NS, 110.0 + i, 90.0 + i, 105.0 + i) for i in range(-2, 16)]

    found = states(days, Timeframe.D1)

    assert known(found) == [False] * 9 + [True] * 9
    assert found[9][0] == PivotPoints.classic(116.0, 90.0, 111.0).p


@given(st.integers(0, 80), st.sets(st.integers(0, 79), max_size=3))
def test_peek_tells_the_next_state_and_a_restart_changes_nothing(cut: int, gone: set[int]) -> None:
    bars = hours(0, 80, without=tuple(gone))
    whole, saved = SessionLevels(Timeframe.H1), SessionLevels(Timeframe.H1)
    for bar in bars[:cut]:
        whole.update(*bar)
        saved.update(*bar)
    restarted = SessionLevels(Timeframe.H1)
    restarted.restore(json.loads(json.dumps(saved.snapshot(), allow_nan=False)))

    for bar in bars[cut:]:
        peeked = whole.peek(bar[0])
        whole.update(*bar)
        restarted.update(*bar)
        assert repr(peeked) == repr(whole.state) == repr(restarted.state)
    assert restarted.snapshot() == whole.snapshot()


def test_a_snapshot_of_another_timeframe_is_refused() -> None:
    with pytest.raises(StoreError, match="expected a snapshot of"):
        SessionLevels(Timeframe.M1).restore(SessionLevels(Timeframe.H1).snapshot())


@pytest.mark.parametrize(("symbol", "timeframe"), STREAMS)
def test_recorded_levels_are_those_of_whole_sessions(
    load_series: LoadSeries, symbol: str, timeframe: Timeframe
) -> None:
    series = load_series(symbol, timeframe)
    length_ns, first_ns = (WEEK_NS, MONDAY_NS) if timeframe is Timeframe.D1 else (DAY_NS, 0)
    session_T = (series.open_ns_T - first_ns) // length_ns
    bars = [
        (open_ns, high, low, close)
        for open_ns, (high, low, close) in zip(
            series.open_ns_T.tolist(), series.ohlcv_TC[:, 1:4].tolist(), strict=True
        )
    ]

    found = np.array(states(bars, timeframe))

    num_known = 0
    for session in np.unique(session_T).tolist():
        of_it_T, before_T = session_T == session, session_T == session - 1
        if before_T.sum() < length_ns // timeframe.ns:
            assert np.isnan(found[of_it_T]).all()
            continue
        num_known += 1
        before_TC = series.ohlcv_TC[before_T]
        high, low, close = before_TC[:, 1].max(), before_TC[:, 2].min(), before_TC[-1, 3]
        expected = PivotPoints.camarilla(high, low, close)
        names = ["r1", "r2", "r3", "r4", "s1", "s2", "s3", "s4"]
        at = SESSION_LEVELS.index("cam_r1")
        assert (found[of_it_T, at : at + 8] == [getattr(expected, n) for n in names]).all()
    assert num_known > 25
