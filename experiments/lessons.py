"""A challenger of the policy: taught by rewards, and its choices paid beside the champion's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alphapulse.config import Settings
from alphapulse.domain.inference import Action
from alphapulse.domain.market import Floats, Ints, Timeframe
from alphapulse.learning.entries import HORIZON
from alphapulse.learning.promotion import Verdict, compare, least_blocks
from alphapulse.learning.rewards import Costs, Rules
from alphapulse.models.network import owned
from alphapulse.models.policy import ACTIONS, PolicyNetwork
from alphapulse.models.rl import RL
from experiments.env import (
    Minutes,
    ReplayEnv,
)
from experiments.stored import Stored, choices, demonstrations

# axes: N minute or decision, oldest first · S symbol
BLOCK = 10  # minutes of the replay that are one answer
SCALE_R = 0.5  # difference of two blocks' results that counts as one whole step [R]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a challenger was made of.

    Attributes:
        model: the challenger.
        until_ns: newest instant it knows something of [ns UTC].
        num_train: decisions or minutes it learned from.
        curve: return or loss after each iteration.
        champion_N: what the champion's choices brought on the compared rows [R].
        challenger_N: the same of the challenger.
        group_N: which of them are one answer.
        figures: beside the gate's.
    """

    model: RL
    until_ns: int
    num_train: int
    curve: Sequence[float]
    champion_N: Floats
    challenger_N: Floats
    group_N: Ints
    figures: Mapping[str, Any]


def rules_of(settings: Settings) -> Rules:
    """Return what an action brings, by replay as by answers: those are settled with this cost."""
    costs = Costs(settings.training.cost_bps / 1e4)
    return Rules(costs, allow_short=settings.trading.allow_short)


def greedy(network: PolicyNetwork, env: ReplayEnv, symbol: int, begin: int) -> Floats:
    """Return the rewards of always taking the likeliest action, from `begin` to the end."""
    shown, _ = env.reset(options={"symbol": symbol, "begin": begin})
    earned, is_over = [], False
    with torch.inference_mode():
        while not is_over:
            action = int(network(owned(shown)[None])[0].argmax())
            shown, brought, _, is_over, _ = env.step(action)
            earned.append(brought)
    return np.array(earned)


def by_replay(
    best: RL,
    checkpoint: Path,
    minutes: Minutes,
    *,
    settings: Settings,
    learned_ns: int,
    iterations: int,
    trained: Mapping[str, Any],
    on_iteration: Callable[[float], None],
) -> Lesson | Verdict:
    """Return a challenger made by PPO on the older minutes, and both replayed on the newer ones.

    Or the rejection, where there are too few minutes that the champions were not trained on.

    Args:
        best: the champion.
        checkpoint: its folder.
        minutes: with the forecasts of the CNN's champion.
        settings: of learning and costs.
        learned_ns: newest instant that either champion knows something of, and so the challenger
            too [ns UTC].
        iterations: of PPO.
        trained: what the challenger's layout says of how it was made.
        on_iteration: called after each with the mean return of an episode [R].
    """
    cut = round(len(minutes) * (1 - settings.learning.held_out_share))
    cut = max(cut, int(np.searchsorted(minutes.at_N, learned_ns, side="right")))
    num_blocks, needed = (
        (len(minutes) - cut - 1) // BLOCK,
        least_blocks(settings.learning.promote_at),
    )
    if num_blocks < needed or cut < BLOCK:
        return Verdict(
            False, 1.0, 0.0, max(num_blocks, 0),
            f"too little to compare on: {max(num_blocks, 0)} times {BLOCK} minutes that the "
            f"champions were not trained on, at least {needed} can promote",
        )  # fmt: skip
    from experiments.rllib import train_ppo  # brings Ray, which the first training does without

    rules = rules_of(settings)
    curve: list[float] = []

    def told(earned: float, _: PolicyNetwork) -> None:
        curve.append(earned)
        on_iteration(earned)

    network = train_ppo(
        checkpoint,
        lambda: ReplayEnv(minutes, begin=0, end=cut, rules=rules),
        seed=settings.training.seed,
        iterations=iterations,
        on_iteration=told,
    )
    until_ns = int(minutes.at_N[cut]) - 1  # at or after `learned_ns`: the cut is
    challenger = RL(network, spec=best.spec, trained={**trained, "until_ns": until_ns})
    env = ReplayEnv(minutes, begin=cut, end=len(minutes), rules=rules)
    symbols = range(len(minutes.symbols))
    before_SN = np.array([greedy(best.network, env, s, cut) for s in symbols])
    after_SN = np.array([greedy(challenger.network, env, s, cut) for s in symbols])
    block_N = np.arange(before_SN.shape[1]) // BLOCK
    return Lesson(
        model=challenger,
        until_ns=until_ns,
        num_train=cut * len(minutes.symbols),
        curve=curve,
        champion_N=_summed(before_SN, block_N),
        challenger_N=_summed(after_SN, block_N),
        group_N=np.tile(np.unique(block_N), len(minutes.symbols)),
        figures={
            "champion_utility_r": float(before_SN.sum()),
            "challenger_utility_r": float(after_SN.sum()),
            "flat_utility_r": 0.0,
            "long_utility_r": sum(_long(env, s, cut) for s in symbols),
        },
    )


def _summed(earned_SN: Floats, block_N: Ints) -> Floats:
    """Return what each symbol and block brought, symbol by symbol."""
    return np.concatenate([np.bincount(block_N, weights=earned_N) for earned_N in earned_SN])


def _long(env: ReplayEnv, symbol: int, begin: int) -> float:
    env.reset(options={"symbol": symbol, "begin": begin})
    total, is_over = 0.0, False
    while not is_over:
        _, brought, _, is_over, _ = env.step(ACTIONS.index(Action.BUY))
        total += brought
    return total


def by_answers(
    best: RL,
    checkpoint: Path,
    train: Sequence[Stored],
    compared: Sequence[Stored],
    *,
    settings: Settings,
    until_ns: int,
    iterations: int,
    trained: Mapping[str, Any],
    on_iteration: Callable[[float], None],
) -> Lesson | Verdict:
    """Return a challenger made by MARWIL of stored decisions, and both judged on the newer ones.

    What all models said is shown, each with what it would have brought: a policy that only ever
    held has nothing else to learn from.
    """
    rules = rules_of(settings)
    shown = demonstrations(train, rules)
    if not shown or np.ptp(np.concatenate([d.reward_N for d in shown])) == 0:
        return Verdict(False, 1.0, 0.0, 0, "nothing to learn: every action brought the same")
    from experiments.rllib import train_marwil  # brings Ray

    curve: list[float] = []

    def told(loss: float) -> None:
        curve.append(loss)
        on_iteration(loss)

    network = train_marwil(
        checkpoint,
        shown,
        seed=settings.training.seed,
        passes=iterations,
        on_pass=told,
    )
    challenger = RL(network, spec=best.spec, trained={**trained, "until_ns": until_ns})
    before_N, after_N = (
        np.array([row.brought(action, rules) for row, action in zip(compared, said, strict=True)])
        for said in (choices(best, compared), choices(challenger, compared))
    )
    return Lesson(
        model=challenger,
        until_ns=until_ns,
        num_train=len(train),
        curve=curve,
        champion_N=before_N,
        challenger_N=after_N,
        group_N=answers_of(compared),
        figures={
            "champion_utility_r": float(before_N.sum()),
            "challenger_utility_r": float(after_N.sum()),
            "flat_utility_r": 0.0,
        },
    )


def answers_of(rows: Sequence[Stored]) -> Ints:
    """Return which decisions are one answer, int64 (N,): those within one horizon of their bars."""
    return np.array(
        [row.event_ns // (HORIZON * Timeframe(row.outcome.timeframe).ns) for row in rows],
        dtype=np.int64,
    )


def judge(lesson: Lesson, *, promote_at: float) -> Verdict:
    """Return the gate's verdict: a loss is what the choices did not bring, in R."""
    return compare(
        -lesson.champion_N,
        -lesson.challenger_N,
        lesson.group_N,
        promote_at=promote_at,
        scale=SCALE_R,
    )
