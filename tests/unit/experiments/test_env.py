"""The replay shows what serving shows, and pays what an account kept beside it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Settings
from alphapulse.domain.errors import NoData
from alphapulse.domain.inference import Action
from alphapulse.learning.rewards import FLAT, Costs, Held, Rules
from alphapulse.models.cnn import CNN
from alphapulse.models.policy import ACTIONS, NUM_ACCOUNT_FIELDS
from experiments.env import Minutes, ReplayEnv, collect_minutes, taught_until_ns
from tests.unit.experiments.conftest import FIRST_TICK_NS, KEPT

MINUTE_NS = 60_000_000_000
NUM = 40
BUY, SELL, HOLD = (ACTIONS.index(action) for action in (Action.BUY, Action.SELL, Action.HOLD))
SPOT = Rules(Costs(0.0011), allow_short=False)
Policy = Callable[[int], int]


@pytest.fixture(scope="module")
def minutes(recordings: Path) -> Minutes:
    return asyncio.run(collect_minutes(recordings, Settings(), CNN.load(KEPT / "cnn"), num=NUM))


def env_of(minutes: Minutes, rules: Rules = SPOT) -> ReplayEnv:
    return ReplayEnv(minutes, begin=0, end=len(minutes), rules=rules)


def played(env: ReplayEnv, policy: Policy, symbol: int = 0) -> float:
    env.reset(options={"symbol": symbol, "begin": 0})
    total, is_over, n = 0.0, False, 0
    while not is_over:
        _, earned, _, is_over, _ = env.step(policy(n))
        total, n = total + earned, n + 1
    return total


def booked(minutes: Minutes, policy: Policy, rules: Rules, symbol: int = 0) -> float:
    """Return the sum over closed trades, each (exit - entry) in its own R, less two costs."""
    position, entry, unit, total = 0, 0.0, 1.0, 0.0
    for n in range(len(minutes)):
        wanted = ACTIONS[policy(n)] if n < len(minutes) - 1 else Action.SELL
        target = {Action.BUY: 1, Action.SELL: -1 if rules.allow_short else 0}.get(wanted, position)
        if n == len(minutes) - 1:
            target = 0
        price = minutes.log_fill_NS[n, symbol]
        if target != position:
            if position:
                total += (position * (price - entry) - 2 * rules.costs.side) / unit
            position, entry, unit = target, price, minutes.risk_NS[n, symbol]
    return float(total)


POLICIES: dict[str, Policy] = {
    "random": lambda n: int(np.random.default_rng(n).integers(3)),
    "always": lambda n: BUY,
    "churn": lambda n: BUY if n % 2 == 0 else SELL,
    "never": lambda n: HOLD,
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("allow_short", [False, True])
def test_rewards_sum_to_an_independent_ledger(
    minutes: Minutes, name: str, allow_short: bool
) -> None:
    rules = Rules(SPOT.costs, allow_short=allow_short)
    for symbol in (0, 1):
        sum_of_rewards = played(env_of(minutes, rules), POLICIES[name], symbol)

        assert sum_of_rewards == pytest.approx(
            booked(minutes, POLICIES[name], rules, symbol), abs=1e-9
        )


def test_a_ledger_that_forgets_the_last_exit_is_seen(minutes: Minutes) -> None:
    forgetful = booked(minutes, POLICIES["always"], SPOT) + SPOT.costs.side / minutes.risk_NS[0, 0]

    assert played(env_of(minutes), POLICIES["always"]) != pytest.approx(forgetful, abs=1e-9)


def test_never_trading_is_exactly_nothing_and_churning_costs(minutes: Minutes) -> None:
    assert played(env_of(minutes), POLICIES["never"]) == 0.0
    assert played(env_of(minutes), POLICIES["churn"]) < played(env_of(minutes), POLICIES["always"])


def test_dearer_trading_earns_less_for_every_policy(minutes: Minutes) -> None:
    for policy in POLICIES.values():
        earned = [
            played(env_of(minutes, Rules(Costs(side), allow_short=False)), policy)
            for side in (0.0, 0.0005, 0.002)
        ]

        assert earned == sorted(earned, reverse=True)


def test_an_observation_is_the_features_of_serving_with_what_is_held(minutes: Minutes) -> None:
    env = env_of(minutes)
    shown, _ = env.reset(options={"symbol": 1, "begin": 3})
    flat = minutes.features_NSX[3, 1]

    after, *_ = env.step(BUY)

    assert (shown == flat).all()
    assert shown.dtype == np.float32
    assert env.observation_space.contains(shown)
    assert (after[:-NUM_ACCOUNT_FIELDS] == minutes.features_NSX[4, 1, :-NUM_ACCOUNT_FIELDS]).all()
    moved = minutes.log_price_NS[4, 1] - minutes.log_fill_NS[3, 1]
    held = (1.0, moved / minutes.risk_NS[3, 1], 60 / 300, 0.0)
    assert after[-NUM_ACCOUNT_FIELDS:] == pytest.approx(held, abs=1e-6)


def test_a_decision_meets_the_next_open_and_not_the_close_it_was_shown(minutes: Minutes) -> None:
    env = env_of(minutes)
    env.reset(options={"symbol": 0, "begin": 0})

    env.step(BUY)

    assert env.held == Held(
        1, float(minutes.log_fill_NS[0, 0]), float(minutes.risk_NS[0, 0]), int(minutes.at_N[0])
    )


def test_episodes_are_seeded_and_stay_inside_their_minutes(minutes: Minutes) -> None:
    env = ReplayEnv(minutes, begin=5, end=30, rules=SPOT, length=10)
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert (first == again).all()

    for _ in range(50):
        env.reset()
        steps, is_over = 0, False
        while not is_over:
            _, _, _, is_over, _ = env.step(BUY)
            steps += 1
        assert steps == 10
        assert env.held == FLAT


def test_minutes_are_consecutive_and_end_before_the_first_tick(
    minutes: Minutes, recordings: Path
) -> None:
    assert np.diff(minutes.at_N).tolist() == [MINUTE_NS] * (NUM - 1)
    assert minutes.at_N[-1] + MINUTE_NS <= FIRST_TICK_NS
    assert (minutes.risk_NS > 0).all()
    assert asyncio.run(taught_until_ns(recordings, Settings())) < minutes.at_N[0]


def test_what_closes_after_the_instant_of_the_round_is_not_seen(
    minutes: Minutes, recordings: Path
) -> None:
    until_ns = int(minutes.at_N[-10])

    earlier = asyncio.run(
        collect_minutes(recordings, Settings(), CNN.load(KEPT / "cnn"), num=5, until_ns=until_ns)
    )

    assert earlier.at_N[-1] == until_ns - MINUTE_NS
    place = int(np.searchsorted(minutes.at_N, earlier.at_N[0]))
    assert (earlier.features_NSX == minutes.features_NSX[place : place + 5]).all()


def test_a_history_too_short_is_named(recordings: Path) -> None:
    with pytest.raises(NoData, match="ask for fewer"):
        asyncio.run(collect_minutes(recordings, Settings(), CNN.load(KEPT / "cnn"), num=10**6))
