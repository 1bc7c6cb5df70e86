"""A reward is what was held times what it moved, less what changing it cost; flat is exactly 0."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import Action
from alphapulse.domain.learning import Outcome
from alphapulse.learning.rewards import (
    FLAT,
    Costs,
    Held,
    moved,
    reward,
    settled_reward,
    target_of,
)

COSTS = Costs(0.0011)
LONG = Held(position=1, entry=7.0, risk=0.01, since_ns=5)

Walk = list[tuple[int, float, float]]  # target position, move, risk
WALKS = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1]), st.floats(-0.02, 0.02), st.floats(0.002, 0.05)),
    max_size=60,
)


def earned(walk: Walk, costs: Costs = COSTS) -> float:
    """Return the sum of rewards of a walk that ends flat."""
    held, price, total = FLAT, 7.0, 0.0
    for n, (target, move, risk) in enumerate(walk):
        after = moved(held, target, at_ns=n, log_price=price, risk=risk)
        total += reward(held, after, move=move, costs=costs)
        held, price = after, price + move
    return total + reward(held, FLAT, move=0.0, costs=costs)


def booked(walk: Walk, costs: Costs = COSTS) -> float:
    """Return what an account of closed trades says of the same walk: entry, exit, two costs."""
    position, entry, unit, price, total = 0, 0.0, 1.0, 7.0, 0.0
    for target, move, risk in [*walk, (0, 0.0, 1.0)]:
        if target != position:
            if position:
                total += (position * (price - entry) - 2 * costs.side) / unit
            position, entry, unit = target, price, risk
        price += move
    return total


def with_a_bonus(before: Held, after: Held, *, move: float, costs: Costs) -> float:
    """Reward entering as such, as some frameworks do (the planted fault)."""
    return reward(before, after, move=move, costs=costs) + 25.0 * (before != after)


def test_never_trading_earns_exactly_nothing() -> None:
    assert earned([(0, move / 1000, 0.01) for move in range(-50, 50)]) == 0.0
    assert str(reward(FLAT, FLAT, move=0.3, costs=COSTS)) == "0.0"


def test_a_bonus_for_entering_would_be_seen() -> None:
    entered = moved(FLAT, 1, at_ns=1, log_price=7.0, risk=0.01)

    assert reward(FLAT, entered, move=0.0, costs=COSTS) < 0
    assert with_a_bonus(FLAT, entered, move=0.0, costs=COSTS) > 0


@given(WALKS)
def test_rewards_sum_to_what_an_account_of_closed_trades_says(walk: Walk) -> None:
    assert earned(walk) == pytest.approx(booked(walk), abs=1e-9)


@given(WALKS, st.floats(0, 0.01), st.floats(0, 0.01))
def test_higher_costs_never_earn_more(walk: Walk, one: float, more: float) -> None:
    assert earned(walk, Costs(one + more)) <= earned(walk, Costs(one)) + 1e-12


def test_the_risk_of_a_trade_is_that_of_its_entry() -> None:
    held = moved(FLAT, 1, at_ns=1, log_price=7.0, risk=0.01)

    still = moved(held, 1, at_ns=2, log_price=7.1, risk=0.05)

    assert still is held
    assert reward(held, still, move=0.005, costs=COSTS) == pytest.approx(0.5)
    assert held.result(7.02) == pytest.approx(2.0)


def test_turning_pays_for_both_sides_each_in_its_own_risk() -> None:
    short = moved(LONG, -1, at_ns=9, log_price=7.0, risk=0.02)

    assert reward(LONG, short, move=0.0, costs=Costs(0.001)) == pytest.approx(-0.1 - 0.05)


@pytest.mark.parametrize(
    ("action", "position", "allow_short", "target"),
    [
        (Action.BUY, 0, False, 1),
        (Action.HOLD, 1, False, 1),
        (Action.HOLD, 0, True, 0),
        (Action.SELL, 1, False, 0),
        (Action.SELL, 0, True, -1),
    ],
)
def test_an_action_asks_for_a_target_position(
    action: Action, position: int, allow_short: bool, target: int
) -> None:
    assert target_of(action, position, allow_short=allow_short) == target


def settled() -> Outcome:
    return Outcome(
        inference_id="i",
        run="r",
        symbol="ETH/USDT",
        model="rl",
        event_ns=1,
        known_ns=9,
        timeframe="1s",
        level=0,
        unit=0.01,
        ended_ns=8,
        price=2_300.0,
        move=0.4,
        hit=1.0,
        action="buy",
        reason="horizon",
        result=0.2,
        result_long=0.2,
        result_short=-0.6,
    )


def test_a_settled_action_brought_its_side_and_pays_for_the_sides_that_it_takes() -> None:
    changes = ((0, 0), (1, 0), (0, 1), (1, 1), (0, -1), (1, -1), (-1, -1))

    brought = [
        settled_reward(settled(), before=before, after=after, costs=Costs(0.001))
        for before, after in changes
    ]

    assert brought == pytest.approx([0.0, -0.1, 0.2, 0.3, -0.6, -0.7, -0.5])


@given(
    st.sampled_from([-1, 0, 1]),
    st.sampled_from([-1, 0, 1]),
    st.floats(-0.02, 0.02),
    st.floats(0, 0.01),
)
def test_a_settled_action_brought_what_rewards_step_by_step_say(
    before: int, after: int, move: float, side: float
) -> None:
    costs, paid = Costs(side), 2 * side / 0.01
    outcome = replace(settled(), result_long=move / 0.01 - paid, result_short=-move / 0.01 - paid)
    was = moved(FLAT, before, at_ns=1, log_price=7.0, risk=0.01)
    held = moved(was, after, at_ns=2, log_price=7.0, risk=0.01)

    stepwise = reward(was, held, move=move, costs=costs) + reward(held, FLAT, move=0, costs=costs)

    assert settled_reward(outcome, before=before, after=after, costs=costs) == pytest.approx(
        stepwise, abs=1e-9
    )


def test_staying_and_leaving_bring_the_same_where_the_price_does_not_move() -> None:
    still = replace(settled(), result_long=-0.2, result_short=-0.2)  # two sides of 0.1 R

    stay, leave = (
        settled_reward(still, before=1, after=after, costs=Costs(0.001)) for after in (1, 0)
    )

    assert stay == leave == pytest.approx(-0.1)


def test_negative_costs_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 or more"):
        Costs(-0.001)
