"""The vote is the arithmetic its docstring says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alphapulse.domain.inference import Action, Forecast
from alphapulse.domain.market import Timeframe
from alphapulse.models.vote import vote

VOLATILITY_F = np.array([np.nan, 0.001, 0.01, 0.03])


def forecast(*, p_high: float, move: float, timeframe: Timeframe = Timeframe.H1) -> Forecast:
    return Forecast(timeframe, 1, p_high, 1 - p_high, 0, 2.0, 100.0, move, 0.5, 0.3)


def test_a_likely_high_above_cost_is_bought_for_its_expected_move() -> None:
    said = vote([forecast(p_high=0.9, move=2.0)], VOLATILITY_F, cost=0.001)

    assert said.action is Action.BUY
    assert said.utility_r == pytest.approx((0.8 * 2.0 * 0.01 - 0.002) / 0.01)
    assert said.confidence == 0.3
    assert said.p_buy / said.p_hold == pytest.approx(math.exp(said.utility_r / 0.25))


def test_a_likely_low_mirrors_a_likely_high() -> None:
    up = vote([forecast(p_high=0.9, move=2.0)], VOLATILITY_F, cost=0.001)
    down = vote([forecast(p_high=0.1, move=-2.0)], VOLATILITY_F, cost=0.001)

    assert down.action is Action.SELL
    assert (down.p_sell, down.p_buy) == pytest.approx((up.p_buy, up.p_sell))
    assert down.utility_r == pytest.approx(up.utility_r)


def test_a_move_smaller_than_two_costs_is_held_for_nothing() -> None:
    said = vote([forecast(p_high=0.9, move=0.2)], VOLATILITY_F, cost=0.001)

    assert said.action is Action.HOLD
    assert said.utility_r == 0.0
    assert said.p_buy + said.p_sell + said.p_hold == pytest.approx(1.0)


def test_a_swing_that_outlasts_the_horizon_has_no_vote() -> None:
    daily = forecast(p_high=0.99, move=3.0, timeframe=Timeframe.D1)

    assert vote([daily], VOLATILITY_F, cost=0.0).action is Action.HOLD
