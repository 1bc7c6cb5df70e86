"""Laws of the Williams structure: nothing repaints, up mirrors down, levels nest."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Pivot, PivotKind, Timeframe
from alphapulse.features.pivots import NUM_LEVELS, WilliamsStructure
from tests.flows.rescanned import rescan

Shape = tuple[float, float, float, float]  # open, high, low, close
TF = Timeframe.M1
LEVELS = range(1, NUM_LEVELS + 1)
OTHER = {PivotKind.HIGH: PivotKind.LOW, PivotKind.LOW: PivotKind.HIGH}


def shape_of(number: int) -> Shape:
    """Return a bar of few price steps, so that equal prices, inside and outside bars are common."""
    number, low = divmod(number, 12)
    number, height = divmod(number, 6)
    close, open_ = divmod(number, 7)
    open_ %= height + 2
    close = (open_ + 1 + close % (height + 1)) % (height + 2)  # never the open
    return low + float(open_), low + height + 1.0, float(low), low + float(close)


def on_a_ruler(bars: list[Shape], step: int) -> list[Shape]:
    """Raise bar i as the mark i of a ruler is long: every other peak is one of a level more."""
    lengths = [(i & -i).bit_length() * step for i in range(1, len(bars) + 1)]
    return [
        (open_ + length, high + length, low + length, close + length)
        for length, (open_, high, low, close) in zip(lengths, bars, strict=True)
    ]


SHAPES = st.integers(0, 12 * 6 * 7 * 7 - 1).map(shape_of)
# as drawn; and so that all levels are reached, by highs (a positive step) or by lows
BARS = st.lists(SHAPES, max_size=60) | st.builds(
    on_a_ruler, st.lists(SHAPES, min_size=100, max_size=140), st.sampled_from([-20, 20])
)


def walk(bars: Sequence[Shape], structure: WilliamsStructure | None = None) -> list[list[Pivot]]:
    structure = structure or WilliamsStructure("ETH/USDT", TF)
    return [structure.update(i * TF.ns, *bar) for i, bar in enumerate(bars)]


def flat(events: list[list[Pivot]]) -> list[Pivot]:
    return [pivot for confirmed in events for pivot in confirmed]


def same(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether the numbers are equal, NaN to NaN."""
    return all(x == y or (x != x and y != y) for x, y in zip(a, b, strict=True))


@given(BARS, st.integers(0, 140))
def test_longer_history_leaves_earlier_pivots_untouched(bars: list[Shape], cut: int) -> None:
    assert walk(bars)[:cut] == walk(bars[:cut])


def test_the_ruler_reaches_every_level() -> None:
    flat_bars = [(1.0, 2.0, 1.0, 2.0)] * 140

    for kind, step in ((PivotKind.HIGH, 20), (PivotKind.LOW, -20)):
        pivots = flat(walk(on_a_ruler(flat_bars, step)))
        assert {p.level for p in pivots if p.kind is kind} == set(LEVELS)


@given(BARS)
def test_mirrored_prices_swap_highs_and_lows(bars: list[Shape]) -> None:
    plain, mirrored = WilliamsStructure("ETH/USDT", TF), WilliamsStructure("ETH/USDT", TF)
    pivots = flat(walk(bars, plain))

    swapped = flat(walk([(-o, -low, -high, -c) for o, high, low, c in bars], mirrored))

    assert swapped == [replace(p, kind=OTHER[p.kind], price=-p.price) for p in pivots]
    by_level = [mirrored.context[3 * i : 3 * i + 3] for i in range(NUM_LEVELS)]
    unswapped = [x for trend, high, low in by_level for x in (-trend, low, high)]
    assert same(unswapped, plain.context[:-2])
    assert same([-x for x in mirrored.context[-2:]], plain.context[-2:])


@given(BARS, st.integers(-6, 6), st.integers(-1_000, 1_000))
def test_scale_and_shift_move_nothing_but_the_prices(
    bars: list[Shape], power: int, shift: int
) -> None:
    def moved(price: float) -> float:
        return (price + shift) * 2.0**power  # exact, for prices of whole steps

    pivots = flat(walk([(moved(o), moved(h), moved(low), moved(c)) for o, h, low, c in bars]))

    assert pivots == [replace(p, price=moved(p.price)) for p in flat(walk(bars))]


@given(BARS, st.data())
def test_a_restart_from_a_snapshot_changes_nothing(bars: list[Shape], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(bars)))
    whole, before, after = (WilliamsStructure("ETH/USDT", TF) for _ in range(3))
    walk(bars[:cut], whole)
    walk(bars[:cut], before)
    walk(bars[::-1], after)  # what it saw before is to be forgotten
    assert len(after.context) == 3 * NUM_LEVELS + 2

    after.restore(json.loads(json.dumps(before.snapshot(), allow_nan=False)))

    for i in range(cut, len(bars)):
        assert repr(after.state) == repr(whole.state)
        assert repr(after.context) == repr(whole.context)
        assert after.update(i * TF.ns, *bars[i]) == whole.update(i * TF.ns, *bars[i])
    assert repr(after.context) == repr(whole.context)
    assert after.snapshot() == whole.snapshot()


def test_a_snapshot_of_another_stream_is_refused() -> None:
    snapshot = WilliamsStructure("ETH/USDT", TF).snapshot()

    for other in (
        WilliamsStructure("BTC/USDT", TF),
        WilliamsStructure("ETH/USDT", Timeframe.H1),
        WilliamsStructure("ETH/USDT", TF, levels=3),
    ):
        with pytest.raises(StoreError, match="expected a snapshot of"):
            other.restore(snapshot)


@given(BARS)
def test_all_levels_are_those_found_by_scanning_the_whole(bars: list[Shape]) -> None:
    walked = {
        (p.level, p.kind.value, p.pivot_ns // TF.ns, p.price, p.confirm_ns // TF.ns - 1)
        for p in flat(walk(bars))
    }

    found = rescan([(i * TF.ns, *bar) for i, bar in enumerate(bars)], levels=NUM_LEVELS)

    assert walked == set(found)


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
def test_pivots_of_a_level_are_confirmed_in_order(bars: list[Shape]) -> None:
    pivots = flat(walk(bars))

    for level in LEVELS:
        confirms = [p.confirm_ns for p in pivots if p.level == level]
        assert confirms == sorted(confirms)


@given(BARS)
def test_short_term_pivots_alternate(bars: list[Shape]) -> None:
    kinds = [p.kind for p in flat(walk(bars)) if p.level == 1]

    assert all(a is not b for a, b in pairwise(kinds))


@given(BARS)
def test_state_is_the_newest_pivot_of_each_kind(bars: list[Shape]) -> None:
    structure = WilliamsStructure("ETH/USDT", TF)
    pivots = flat(walk(bars, structure))

    for level in LEVELS:
        known = [p for p in pivots if p.level == level]
        highs = [p.price for p in known if p.kind is PivotKind.HIGH]
        lows = [p.price for p in known if p.kind is PivotKind.LOW]
        high, low, leg = structure.state[3 * level - 3 : 3 * level]
        assert highs[-1:] == ([high] if high == high else [])
        assert lows[-1:] == ([low] if low == low else [])
        legs = [-1 if p.kind is PivotKind.HIGH else 1 for p in known]
        assert legs[-1:] == ([leg] if leg == leg else [])


@given(BARS)
def test_context_is_what_the_bars_and_pivots_tell(bars: list[Shape]) -> None:
    structure = WilliamsStructure("ETH/USDT", TF)
    pivots = flat(walk(bars, structure))

    for level in LEVELS:
        trend, since_high, since_low = structure.context[3 * level - 3 : 3 * level]
        highs = [p for p in pivots if p.level == level and p.kind is PivotKind.HIGH]
        lows = [p for p in pivots if p.level == level and p.kind is PivotKind.LOW]
        newest = [p[-1].pivot_ns // TF.ns if p else math.nan for p in (highs, lows)]
        assert same([since_high, since_low], [len(bars) - 1 - bar for bar in newest])
        if len(highs) < 2 or len(lows) < 2:
            assert math.isnan(trend)
            continue
        steps = [b.price - a.price for a, b in (highs[-2:], lows[-2:])]
        assert trend == (1 if min(steps) > 0 else -1 if max(steps) < 0 else 0)
    price, direction = structure.context[-2:]
    if direction == direction:
        newest_pivot = next((p for p in reversed(pivots) if p.level == 1), None)
        since = bars[newest_pivot.pivot_ns // TF.ns :] if newest_pivot else bars
        assert price == (max(b[1] for b in since) if direction > 0 else min(b[2] for b in since))
        assert direction == structure.state[2] or newest_pivot is None
    else:
        assert math.isnan(price)
        assert not pivots


@given(BARS, BARS)
def test_a_segment_knows_nothing_of_the_one_before(before: list[Shape], after: list[Shape]) -> None:
    structure = WilliamsStructure("ETH/USDT", TF)
    state = structure.state
    walk(before, structure)

    structure.reset()
    structure.reset()

    expected = flat(walk(after))
    segment_id = int(bool(before))  # a reset that forgets nothing begins nothing
    assert flat(walk(after, structure)) == [replace(p, segment_id=segment_id) for p in expected]
    assert structure.state is state


def test_segments_are_counted_on_after_a_restart() -> None:
    before, after = WilliamsStructure("ETH/USDT", TF), WilliamsStructure("ETH/USDT", TF)
    for _ in range(3):
        before.update(0, 1.0, 2.0, 1.0, 2.0)
        before.reset()

    after.restore(before.snapshot())
    after.reset()

    assert after.segment_id == before.segment_id == 3
