"""Both teachers count alike, and decisions are one answer while they may settle together."""

from __future__ import annotations

import numpy as np
import pytest

from alphapulse.config import Settings, Training
from alphapulse.domain.inference import Action
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.learning import Inference, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import Timeframe
from alphapulse.learning.entries import HORIZON
from alphapulse.learning.outcomes import Settlement
from alphapulse.models.policy import ACTIONS, NUM_ACCOUNT_FIELDS, num_features
from experiments.env import Minutes, ReplayEnv
from experiments.lessons import answers_of, rules_of
from experiments.stored import Stored

MINUTE = Timeframe.M1.ns
START_NS = 28_000_000 * MINUTE
NUM = HORIZON + 2
R = 0.01
SETTINGS = Settings(training=Training(cost_bps=7.0))  # not what the account pays
BUY = ACTIONS.index(Action.BUY)


def decided(minute: int, timeframe: Timeframe = Timeframe.M1) -> Stored:
    """Return a decision of a minute, flat, whose bars never moved."""
    outcome = Outcome(
        inference_id="i", run="r", symbol="ETH/USDT", model="rl", event_ns=0, known_ns=0,
        timeframe=timeframe, level=0, unit=R, ended_ns=0, price=100.0, move=0.0, hit=0.0,
    )  # fmt: skip
    features_X = np.zeros(num_features(INPUT_SPEC), dtype=np.float32)
    return Stored("ETH/USDT", START_NS + minute * MINUTE, features_X, {}, outcome)


def settled(price_N: np.ndarray) -> Stored:
    """Return the decision of minute 1 while long, settled on bars that opened at `price_N`."""
    said = Inference(id="i", model="rl", version="v", action=Action.HOLD)
    decision = PastDecision(
        run="r", symbol="ETH/USDT", event_ns=START_NS + MINUTE, price=float(price_N[1]),
        unit=dict.fromkeys(Timeframe, R), inferences=(said,),
    )  # fmt: skip
    bars = [
        ShownBar(
            symbol="ETH/USDT", timeframe=Timeframe.M1, open_ns=START_NS + n * MINUTE,
            open=price_N[n], high=max(price_N[n : n + 2]), low=min(price_N[n : n + 2]),
            close=price_N[n + 1], flags=1, shown_ns=START_NS + (n + 1) * MINUTE,
        )
        for n in range(len(price_N) - 1)
    ]  # fmt: skip
    settlement = Settlement(cost_bps=SETTINGS.training.cost_bps)
    (outcome,) = settlement.take([bars[0], decision, *bars[1:]])
    features_X = np.zeros(num_features(INPUT_SPEC), dtype=np.float32)
    features_X[-NUM_ACCOUNT_FIELDS] = 1
    return Stored("ETH/USDT", decision.event_ns, features_X, {}, outcome)


def replayed(price_N: np.ndarray, action: Action) -> float:
    """Return what an action at minute 1 brought by replay, bought at minute 0 and held after it."""
    shape = (len(price_N), 1)
    log_NS = np.log(price_N).reshape(shape)
    minutes = Minutes(
        ("ETH/USDT",),
        START_NS + MINUTE * np.arange(len(price_N)),
        np.zeros((*shape, num_features(INPUT_SPEC)), dtype=np.float32),
        log_NS,
        log_NS,
        np.full(shape, R),
    )
    env = ReplayEnv(minutes, begin=0, end=len(price_N), rules=rules_of(SETTINGS))
    env.reset(options={"symbol": 0, "begin": 0})
    env.step(BUY)
    total, is_over, said = 0.0, False, action
    while not is_over:
        _, earned, _, is_over, _ = env.step(ACTIONS.index(said))
        total, said = total + earned, Action.HOLD
    return total


@pytest.mark.parametrize("move", [0.0, 0.004, -0.004])
@pytest.mark.parametrize("action", list(Action))
def test_replay_and_answers_say_the_same_of_a_held_position(move: float, action: Action) -> None:
    price_N = 100 * np.exp(np.linspace(0, move, NUM))
    price_N[0] = price_N[1]

    by_answers = settled(price_N).brought(action, rules_of(SETTINGS))

    assert by_answers == pytest.approx(replayed(price_N, action), abs=1e-9)


def test_a_held_long_that_goes_nowhere_is_not_taught_to_leave() -> None:
    still = settled(np.full(NUM, 100.0))

    stay, leave = (
        still.brought(action, rules_of(SETTINGS)) for action in (Action.HOLD, Action.SELL)
    )

    assert stay == pytest.approx(leave)
    assert stay == pytest.approx(-SETTINGS.training.cost_bps / 1e4 / R)


def test_decisions_are_one_answer_for_a_horizon_of_the_bars_they_settle_on() -> None:
    span = range(0, 3 * HORIZON, 30)  # minutes

    on_minutes = answers_of([decided(minute) for minute in span])
    on_seconds = answers_of([decided(minute, Timeframe.S1) for minute in span])

    assert len(np.unique(on_minutes)) in (3, 4)
    assert len(np.unique(on_seconds)) == len(span)
    assert np.bincount(on_minutes - on_minutes[0]).max() == HORIZON // 30
