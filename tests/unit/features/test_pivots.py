"""Laws of the Williams structure: nothing repaints, up mirrors down, levels nest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.market import BarSeries, Pivot, PivotKind, Timeframe
from alphapulse.features.pivots import WilliamsStructure

LoadSeries = Callable[[str, Timeframe], BarSeries]
Shape = tuple[float, float, float, float]  # open, high, low, close
TF = Timeframe.M1


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """A bar of few price steps, so that equal prices, inside and outside bars are common."""
    low, height = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    open_ = draw(st.integers(low, low + height))
    close = draw(st.integers(low, low + height).filter(lambda c: c != open_))
    return float(open_), float(low + height), float(low), float(close)


BARS = st.lists(shapes(), max_size=120)


def walk(bars: Sequence[Shape], structure: WilliamsStructure | None = None) -> list[list[Pivot]]:
    structure = structure or WilliamsStructure("ETH/USDT", TF)
    return [structure.update(i * TF.ns, *bar) for i, bar in enumerate(bars)]


def flat(events: list[list[Pivot]]) -> list[Pivot]:
    return [pivot for confirmed in events for pivot in confirmed]


@given(BARS, st.integers(0, 120))
def test_longer_history_leaves_earlier_pivots_untouched(bars: list[Shape], cut: int) -> None:
    assert walk(bars)[:cut] == walk(bars[:cut])


@given(BARS)
def test_mirrored_prices_swap_highs_and_lows(bars: list[Shape]) -> None:
    mirrored = [(-open_, -low, -high, -close) for open_, high, low, close in bars]

    swapped = [
        (
            p.level,
            PivotKind.LOW if p.kind is PivotKind.HIGH else PivotKind.HIGH,
            p.pivot_ns,
            -p.price,
        )
        for p in flat(walk(mirrored))
    ]

    assert [(p.level, p.kind, p.pivot_ns, p.price) for p in flat(walk(bars))] == swapped


@given(BARS)
def test_every_higher_pivot_is_one_of_the_level_below(bars: list[Shape]) -> None:
    pivots = flat(walk(bars))

    places = {(p.level, p.kind, p.pivot_ns, p.price) for p in pivots}

    assert all((p.level - 1, p.kind, p.pivot_ns, p.price) in places for p in pivots if p.level > 1)


@given(BARS)
def test_pivots_become_known_at_the_close_of_their_bar_and_in_order(bars: list[Shape]) -> None:
    for i, confirmed in enumerate(walk(bars)):
        assert all(p.confirm_ns == (i + 1) * TF.ns for p in confirmed)
        assert all(p.pivot_ns <= i * TF.ns for p in confirmed)


@given(BARS)
def test_short_term_pivots_alternate(bars: list[Shape]) -> None:
    kinds = [p.kind for p in flat(walk(bars)) if p.level == 1]

    assert all(a is not b for a, b in pairwise(kinds))


@given(BARS)
def test_state_is_the_newest_pivot_of_each_kind(bars: list[Shape]) -> None:
    structure = WilliamsStructure("ETH/USDT", TF)
    pivots = flat(walk(bars, structure))

    for level in (1, 2, 3):
        known = [p for p in pivots if p.level == level]
        highs = [p.price for p in known if p.kind is PivotKind.HIGH]
        lows = [p.price for p in known if p.kind is PivotKind.LOW]
        high, low, leg = structure.state[3 * level - 3 : 3 * level]
        assert highs[-1:] == ([high] if high == high else [])
        assert lows[-1:] == ([low] if low == low else [])
        legs = [-1 if p.kind is PivotKind.HIGH else 1 for p in known]
        assert legs[-1:] == ([leg] if leg == leg else [])


@given(BARS, BARS)
def test_reset_forgets_everything(before: list[Shape], after: list[Shape]) -> None:
    structure = WilliamsStructure("ETH/USDT", TF)
    walk(before, structure)

    structure.reset()

    assert walk(after, structure) == walk(after)


@pytest.mark.parametrize("symbol", ["ETH/USDT", "BTC/USDT"])
@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_recorded_pivots_never_repaint(
    load_series: LoadSeries, symbol: str, timeframe: Timeframe
) -> None:
    series = load_series(symbol, timeframe).last(5_000)
    bars = [tuple(row) for row in series.ohlcv_TC[:, :4].tolist()]
    cut = len(bars) // 2

    first, copied = WilliamsStructure(symbol, timeframe), None
    events = []
    for i, bar in enumerate(bars):
        if i == cut:
            copied = copy.deepcopy(first)
        events.append(first.update(int(series.open_ns_T[i]), *bar))

    assert copied is not None
    again = [copied.update(int(series.open_ns_T[i]), *bars[i]) for i in range(cut, len(bars))]
    assert again == events[cut:]
    assert {p.level for p in flat(events)} == {1, 2, 3}
    for level in (1, 2, 3):
        confirms = [p.confirm_ns for p in flat(events) if p.level == level]
        assert confirms == sorted(confirms)
