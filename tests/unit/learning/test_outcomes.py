"""Forecasts and actions are settled by what the bars after them did, never before it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import Action, Forecast
from alphapulse.domain.learning import Inference, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import SECOND_NS, BarSeries, PivotKind, Timeframe
from alphapulse.learning.entries import HORIZON
from alphapulse.learning.outcomes import Settlement

START_S = 1_722_988_800  # 2024-08-07T00:00:00Z
R = 0.01
COST_BPS = 10.0
PAID = 2 * COST_BPS / 1e4 / R
Events = Sequence[ShownBar | PastDecision]

# Highs of the pivots file's vector V7, each bar 1.5 high; of level 2 it has H3=16@6 L6=9.7@9
# H7=19@10 L10=10.7@13 H11=17@14 (kind, bar = price @ confirming bar).
HIGHS = (1, 3, 2, 6, 2.1, 4, 1.2, 9, 3, 5, 2.2, 7, 2.3, 4.1, 1.1, 2.5, 0.5)
SHAPES = [
    (h + 8.5, h + 10, h + 8.5, h + 10) if i % 2 else (h + 10, h + 10, h + 8.5, h + 8.5)
    for i, h in enumerate(HIGHS)
]


def at(second: int) -> int:
    return (START_S + second) * SECOND_NS


def bar(second: int, shape: Sequence[float], **changed: Any) -> ShownBar:
    """Return the bar of a second, shown at its end, from its open, high, low and close."""
    open_, high, low, close = shape
    made = ShownBar(
        symbol="ETH/USDT",
        timeframe=Timeframe.S1,
        open_ns=at(second),
        open=open_,
        high=high,
        low=low,
        close=close,
        flags=1,
        shown_ns=at(second + 1),
    )
    return replace(made, **changed)


def calm(seconds: range, price: float = 100.0) -> list[ShownBar]:
    return [bar(second, (price,) * 4) for second in seconds]


def forecast(**said: Any) -> Forecast:
    """Return a forecast on 1s of level 2: a high, at once, at the present price."""
    fields: dict[str, Any] = {"p_high": 0.9, "p_low": 0.1, "bars_ahead": 0.0, "move": 0.0}
    fields |= {"price": 0.0, "pivot_ns": 0, "p_done": 0.5, "confidence": 0.5}
    return Forecast(timeframe=Timeframe.S1, level=2, **(fields | said))


def decided(
    second: int,
    action: Action = Action.HOLD,
    *,
    model: str = "rl",
    price: float = 100.0,
    unit: float = R,
    forecasts: tuple[Forecast, ...] = (),
) -> PastDecision:
    inference = Inference(
        id=f"{model}-{second}", model=model, version="v", action=action, forecasts=forecasts
    )
    units = dict.fromkeys(Timeframe, unit)
    return PastDecision(
        run="run",
        symbol="ETH/USDT",
        event_ns=at(second),
        price=price,
        unit=units,
        inferences=(inference,),
    )


def settle(events: Events) -> tuple[list[Outcome], Settlement]:
    settlement = Settlement(cost_bps=COST_BPS)
    return settlement.take(events), settlement


def entered(action: Action, after: Events) -> Outcome:
    """Return the outcome of an action at second 1, entered at 100, given all that follows."""
    (outcome, *_), _ = settle([*calm(range(1)), decided(1, action), *after])
    return outcome


# --- actions ---------------------------------------------------------------------------------


def test_a_long_is_left_at_its_stop_and_the_short_beside_it_at_the_horizon() -> None:
    dip = [*calm(range(1, 4)), bar(4, (100, 100, 98.9, 100))]

    outcome = entered(Action.BUY, [*dip, *calm(range(5, 301), 99.0)])

    assert (outcome.reason, outcome.ended_ns, outcome.known_ns) == ("stop", at(5), at(301))
    assert outcome.price == pytest.approx(100 * math.exp(-R))
    assert (outcome.move, outcome.hit) == (-1.0, 0.0)
    assert outcome.result == outcome.result_long == pytest.approx(-1 - PAID)
    assert outcome.result_short == pytest.approx(-math.log(0.99) / R - PAID)
    assert (outcome.timeframe, outcome.level, outcome.unit, outcome.action) == ("1s", 0, R, "buy")


def test_a_short_is_left_at_its_stop() -> None:
    spike = bar(1, (100, 101.1, 100, 100))

    outcome = entered(Action.SELL, [spike, *calm(range(2, 301))])

    assert (outcome.reason, outcome.ended_ns, outcome.move) == ("stop", at(2), 1.0)
    assert outcome.price == pytest.approx(100 * math.exp(R))
    assert outcome.result == outcome.result_short == pytest.approx(-1 - PAID)
    assert outcome.result_long == pytest.approx(-PAID)


def test_a_low_just_above_the_stop_is_no_stop() -> None:
    near = 100 * math.exp(-R) + 1e-9

    outcome = entered(Action.BUY, [bar(1, (100, 100, near, 100)), *calm(range(2, 301))])

    assert outcome.reason == "horizon"


def test_a_side_is_left_at_the_close_of_the_300th_bar() -> None:
    outcome = entered(Action.BUY, [*calm(range(1, 300)), bar(300, (100, 100.5, 100, 100.5))])

    assert (HORIZON, outcome.reason, outcome.ended_ns) == (300, "horizon", at(301))
    assert outcome.price == 100.5
    assert outcome.result == pytest.approx(math.log(1.005) / R - PAID)
    assert outcome.hit == 1.0


@pytest.mark.parametrize(("action", "against"), [("buy", Action.SELL), ("sell", Action.BUY)])
def test_a_side_is_left_when_the_same_model_says_the_opposite(action: str, against: Action) -> None:
    close = bar(2, (100, 100.2, 99.8, 100.1))
    events = [*calm(range(1, 2)), close, decided(3, against), *calm(range(3, 303))]

    outcome = entered(Action(action), events)

    assert (outcome.reason, outcome.ended_ns, outcome.price) == ("reversal", at(3), 100.1)
    assert outcome.move == pytest.approx(math.log(1.001) / R)


def test_neither_another_model_nor_the_same_word_nor_the_inference_itself_is_a_reversal() -> None:
    events = [
        *calm(range(1, 2)),
        decided(2, Action.SELL, model="moe"),
        *calm(range(2, 3)),
        decided(3, Action.BUY),
        *calm(range(3, 301)),
    ]

    outcome = entered(Action.BUY, events)

    assert outcome.reason == "horizon"


def test_the_stop_goes_before_the_reversal_of_the_same_bar() -> None:
    events = [bar(1, (100, 100, 98.9, 99.5)), decided(2, Action.SELL), *calm(range(2, 302))]

    outcome = entered(Action.BUY, events)

    assert (outcome.reason, outcome.move) == ("stop", -1.0)


def test_what_a_model_says_at_the_end_of_the_horizon_changes_nothing() -> None:
    (outcome, *_), _ = settle(
        [*calm(range(1)), decided(1, Action.BUY), *calm(range(1, 301)), decided(301, Action.SELL)]
    )

    assert outcome.reason == "horizon"


def test_holding_earns_nothing_and_says_how_the_last_side_ended() -> None:
    outcome = entered(Action.HOLD, [bar(1, (100, 100, 98.9, 99)), *calm(range(2, 301), 99.0)])

    assert (outcome.result, outcome.reason, outcome.ended_ns) == (0.0, "horizon", at(301))
    assert math.isnan(outcome.hit)
    assert outcome.result_long == pytest.approx(-1 - PAID)


def test_a_missing_bar_makes_void_what_was_open_and_leaves_what_had_ended() -> None:
    dip = bar(1, (100, 100, 98.9, 99))
    events = [dip, *calm(range(2, 5)), *calm(range(7, 9))]

    long, short = entered(Action.BUY, events), entered(Action.SELL, events)

    assert (long.reason, long.result, long.known_ns) == ("stop", pytest.approx(-1 - PAID), at(8))
    assert math.isnan(long.result_short)
    assert (short.reason, short.ended_ns, short.known_ns) == ("void", at(5), at(8))
    assert all(math.isnan(x) for x in (short.result, short.hit, short.price, short.move))


def test_an_action_is_void_if_its_first_bar_is_missing_and_not_for_an_older_one() -> None:
    events = [*calm(range(1)), decided(1), decided(2), *calm(range(2, 302))]

    outcomes, _ = settle(events)

    assert [(o.event_ns, o.reason) for o in outcomes] == [(at(1), "void"), (at(2), "horizon")]


def test_an_action_waits_for_its_last_bar() -> None:
    events = [*calm(range(1)), decided(1, Action.BUY), *calm(range(1, 300))]

    outcomes, settlement = settle(events)

    assert outcomes == []
    assert settlement.num_pending == {"forecasts": 0, "actions": 1}
    assert len(settlement.take(calm(range(300, 301)))) == 1
    assert settlement.num_pending == {"forecasts": 0, "actions": 0}


def test_a_bar_that_came_late_counts_at_its_time_and_is_known_when_it_came() -> None:
    late = [bar(second, (100,) * 4, shown_ns=at(4)) for second in (1, 2, 3)]
    late[0] = replace(late[0], low=98.9)
    actions = [decided(1, Action.BUY), decided(2, Action.SELL), decided(3, Action.BUY)]

    outcomes, _ = settle([*calm(range(1)), *actions, *late, *calm(range(4, 303))])

    first, second, third = sorted(outcomes, key=lambda outcome: outcome.event_ns)
    assert (first.reason, first.ended_ns, first.known_ns) == ("stop", at(2), at(4))
    assert (second.reason, second.ended_ns) == ("reversal", at(3))
    assert third.reason == "horizon"


def test_minutes_decide_where_a_symbol_has_no_seconds() -> None:
    length = Timeframe.M1.ns
    minutes = [
        replace(b, timeframe=Timeframe.M1, open_ns=at(60 * n), shown_ns=at(60 * n) + length)
        for n, b in enumerate(calm(range(301)))
    ]

    (outcome,), _ = settle([minutes[0], decided(60), *minutes[1:]])

    assert (outcome.timeframe, outcome.ended_ns) == ("1m", at(60 * 301))


def test_what_has_no_unit_is_counted_and_not_settled() -> None:
    unknown = decided(1, unit=math.nan, forecasts=(forecast(),))

    outcomes, settlement = settle([*calm(range(1)), unknown, *calm(range(1, 400))])

    assert outcomes == []
    assert settlement.counters()["without_unit"] == 2
    assert settlement.num_pending == {"forecasts": 0, "actions": 0}


# --- forecasts -------------------------------------------------------------------------------


def around(second: int, said: Forecast, shapes: Sequence[Sequence[float]] = SHAPES) -> list[Any]:
    """Return the bars of `shapes` with a forecast made at a second, at the price 10."""
    bars = [bar(n, shape) for n, shape in enumerate(shapes)]
    made = decided(second, price=10.0, unit=0.5, forecasts=(said,))
    return [*bars[:second], made, *bars[second:]]


def forecasts_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.level > 0]


def test_a_forecast_is_answered_by_the_first_pivot_at_or_after_it() -> None:
    outcomes, _ = settle(around(3, forecast()))

    (outcome,) = forecasts_of(outcomes)
    assert (outcome.kind, outcome.ended_ns, outcome.price) == ("H", at(3), 16.0)
    assert (outcome.bars, outcome.p_done) == (0.0, 0.0)
    assert outcome.move == pytest.approx(math.log(1.6) / 0.5)
    assert (outcome.unit, outcome.timeframe, outcome.level) == (0.5, "1s", 2)
    assert outcome.known_ns == at(10)  # H3 was confirmed by bar 6, L6 by bar 9


def test_a_pivot_in_the_past_that_is_not_confirmed_yet_is_told() -> None:
    outcomes, _ = settle(around(5, forecast()))

    (outcome,) = forecasts_of(outcomes)
    assert (outcome.kind, outcome.ended_ns, outcome.bars) == ("L", at(6), 1.0)
    assert outcome.p_done == 1.0  # H3 was confirmed by bar 6
    assert outcome.known_ns == at(11)  # H7 was confirmed by bar 10


def test_a_forecast_waits_until_both_kinds_are_confirmed() -> None:
    whole = around(3, forecast())
    settlement = Settlement(cost_bps=COST_BPS)

    before = settlement.take(whole[:10])  # up to bar 8: H3 is confirmed and could be taken
    pending = settlement.num_pending["forecasts"]
    after = settlement.take(whole[10:11])

    assert (before, pending, len(after)) == ([], 1, 1)


@pytest.mark.parametrize(
    ("said", "hit"),
    [
        ({"bars_ahead": 2.0, "move": 0.94}, 1.0),
        ({"bars_ahead": 2.0, "move": 0.94, "p_high": 0.4, "p_low": 0.6}, 0.0),
        ({"bars_ahead": 2.01, "move": 0.94}, 0.0),
        ({"bars_ahead": 0.0, "move": 1.45}, 0.0),
        ({"bars_ahead": 0.0, "move": 1.43}, 1.0),
    ],
)
def test_a_hit_is_kind_and_time_and_price(said: dict[str, float], hit: float) -> None:
    outcomes, _ = settle(around(3, forecast(**said)))

    assert forecasts_of(outcomes)[0].hit == hit


def test_what_waits_when_a_bar_is_missing_is_void_and_counted() -> None:
    whole = around(3, forecast())
    without = [e for e in whole if not (isinstance(e, ShownBar) and e.open_ns == at(8))]

    outcomes, settlement = settle(without)

    assert forecasts_of(outcomes) == []
    assert settlement.counters()["void_forecasts"] == 1
    assert settlement.num_pending["forecasts"] == 0


def test_the_bars_before_the_run_give_the_structure_and_no_pivots_of_their_own() -> None:
    rows = np.array([[*shape, 1.0] for shape in SHAPES[:5]])
    opens = np.array([at(n) for n in range(5)], np.int64)
    seed = BarSeries("ETH/USDT", Timeframe.S1, opens, rows)
    bars = [bar(n, shape) for n, shape in enumerate(SHAPES)]
    settlement, alone = Settlement(cost_bps=COST_BPS), Settlement(cost_bps=COST_BPS)
    settlement.seed(seed)

    settlement.take([replace(b, shown_ns=max(b.shown_ns, at(5))) for b in bars])
    alone.take(bars)

    found = settlement.pivots()
    assert found == tuple(p for p in alone.pivots() if p.confirm_ns > at(5))
    assert [(p.kind, p.pivot_ns) for p in found if p.level == 2][:2] == [
        (PivotKind.HIGH, at(3)),
        (PivotKind.LOW, at(6)),
    ]
    assert settlement.pivots() == ()


def test_a_seed_that_knows_more_than_the_first_instant_is_refused() -> None:
    rows = np.array([[*shape, 1.0] for shape in SHAPES[:5]])
    opens = np.array([at(n) for n in range(5)], np.int64)
    settlement = Settlement(cost_bps=COST_BPS)
    settlement.seed(BarSeries("ETH/USDT", Timeframe.S1, opens, rows))

    with pytest.raises(InvalidRequest, match="had closed by the first instant"):
        settlement.take([bar(3, SHAPES[3])])


def test_a_decision_that_comes_after_its_bars_has_no_outcome() -> None:
    outcomes, settlement = settle([*calm(range(5)), decided(2), *calm(range(5, 400))])

    assert outcomes == []
    assert settlement.counters()["late"] == 1


# --- laws ------------------------------------------------------------------------------------

STEPS = st.tuples(
    st.integers(-3, 3),  # close against the close before
    st.integers(0, 2),  # high above both
    st.integers(0, 2),  # low below both
    st.sampled_from([*Action, None]),
    st.integers(0, 24).map(lambda n: n != 0),  # whether the bar is there
)


def walk(steps: Sequence[tuple[Any, ...]]) -> list[ShownBar | PastDecision]:
    events: list[ShownBar | PastDecision] = []
    price = 100.0
    for second, (step, above, below, action, is_there) in enumerate(steps):
        if action is not None:
            events.append(decided(second, action, price=price, unit=0.03, forecasts=(forecast(),)))
        close = price + step
        shape = (price, max(price, close) + above, min(price, close) - below, close)
        if is_there:
            events.append(bar(second, shape))
        price = close
    return events


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=90), cut=st.integers(0, 200))
def test_a_prefix_gives_a_prefix_of_the_outcomes_known_by_then(
    steps: list[tuple[Any, ...]], cut: int
) -> None:
    events = walk(steps)
    settlement = Settlement(cost_bps=COST_BPS)

    first = settlement.take(events[:cut])
    seen_ns = max((e.shown_ns if isinstance(e, ShownBar) else e.event_ns for e in events[:cut]),
                  default=0)  # fmt: skip
    rest = settlement.take(events[cut:])

    assert repr(first + rest) == repr(settle(events)[0])  # NaN is like NaN
    assert all(o.event_ns <= o.known_ns <= seen_ns for o in first)
    assert all(o.known_ns >= seen_ns for o in rest)
    assert all(o.ended_ns <= o.known_ns for o in first + rest)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=90))
def test_each_forecast_and_action_is_settled_once_or_accounted_for(
    steps: list[tuple[Any, ...]],
) -> None:
    events = walk(steps)

    outcomes, settlement = settle(events)

    keys = [(o.inference_id, o.timeframe, o.level, o.version) for o in outcomes]
    assert len(keys) == len(set(keys))
    num = sum(isinstance(e, PastDecision) for e in events)
    count = settlement.counters()
    assert count["settled_forecasts"] + count["pending_forecasts"] + count["void_forecasts"] == num
    assert count["settled_actions"] + count["pending_actions"] == num
