"""The policy learns from rewards: choices move, knowledge stays, and the same gate decides."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alphapulse.config import load_settings
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import MODELS, Action
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.learning import RoundState
from alphapulse.learning.rewards import Costs, Rules
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.cnn import CNN
from alphapulse.models.network import owned
from alphapulse.models.policy import ACTIONS
from alphapulse.models.rl import RL
from alphapulse.models.rounds import Rounds
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from experiments.answered import actions_answered, answered
from experiments.env import taught_until_ns
from experiments.lessons import Lesson, judge
from experiments.stored import Demonstration, Stored, choices, demonstrations, stored
from experiments.train_rl import train_round
from tests.unit.experiments.conftest import FIRST_TICK_NS, AnsweredRun

SPOT = Rules(Costs(0.0011), allow_short=False)
BUY, SELL, HOLD = (ACTIONS.index(action) for action in (Action.BUY, Action.SELL, Action.HOLD))


@pytest.fixture(scope="module")
def settled(kept_run: AnsweredRun) -> list[Stored]:
    home, settings = Home(kept_run.home), load_settings(kept_run.home)
    history = InferenceHistory(home, settings=settings.storage)

    async def read() -> list[Stored]:
        run, until_ns = home.run(1).id, kept_run.last_ns
        known = await actions_answered(history, run=run, model="rl", until_ns=until_ns)
        return await stored(history, run, answered(known, until_ns=until_ns)[:60], spec=INPUT_SPEC)

    found = asyncio.run(read())
    history.close()
    return found


@pytest.fixture(scope="module")
def checkpoint(kept_run: AnsweredRun) -> Path:
    return directory_of(kept_run.home, model="rl", id=kept_run.champions["rl"])


def lesson(gain: float, *, num_blocks: int = 18) -> Lesson:
    random = np.random.default_rng(4)
    before_N = random.normal(-0.1, 0.3, 2 * num_blocks)
    return Lesson(
        model=RL.fresh(seed=1),
        until_ns=1,
        num_train=1,
        curve=(),
        champion_N=before_N,
        challenger_N=before_N + random.normal(gain, 0.1, 2 * num_blocks),
        group_N=np.tile(np.arange(num_blocks), 2),
        figures={},
    )


def test_more_earned_is_promoted_less_or_the_same_rejected() -> None:
    better, same, worse = (judge(lesson(gain), promote_at=20.0) for gain in (0.4, 0.0, -0.4))

    assert better.promoted
    assert better.num_blocks == 18
    assert (same.promoted, worse.promoted) == (False, False)
    assert worse.mean_difference < 0


def test_stored_decisions_are_what_the_models_saw_and_said(settled: list[Stored]) -> None:
    assert len(settled) == 60
    for row in settled:
        assert set(row.actions) == set(MODELS)
        assert row.actions["rl"] == row.outcome.action
        assert row.brought(Action.HOLD, SPOT) == 0.0
        assert row.brought(Action.SELL, SPOT) == 0.0
        assert row.brought(Action.BUY, SPOT) == row.outcome.result_long
        assert np.isfinite(row.features_X).all()


def test_demonstrations_show_every_model_with_what_it_would_have_brought(
    settled: list[Stored],
) -> None:
    shown = demonstrations(settled, SPOT)

    assert len(shown) == 2 * len(MODELS)
    assert sum(len(d.action_N) for d in shown) == 3 * len(settled)
    for told in shown:
        assert (told.reward_N[told.action_N != BUY] == 0).all()


def taught(settled: list[Stored], *, brought: float) -> list[Demonstration]:
    """Return demonstrations of buying and holding in turn, where buying brings `brought`."""
    features_NX = np.stack([row.features_X for row in settled] * 4)
    action_N = np.where(np.arange(len(features_NX)) % 2 == 0, BUY, HOLD)
    noise_N = np.random.default_rng(1).normal(0, abs(brought) / 4, len(action_N))
    reward_N = np.where(action_N == BUY, brought + noise_N, 0.0)
    return [Demonstration(features_NX, action_N, reward_N)]


def odds(network: torch.nn.Module, settled: list[Stored]) -> float:
    """Return how much likelier buying is than holding, mean of the logits' difference."""
    with torch.inference_mode():
        logits = network(owned(np.stack([row.features_X for row in settled])))[0]
    return float((logits[:, BUY] - logits[:, HOLD]).mean())


@pytest.mark.slow
def test_what_brought_more_becomes_likelier_and_what_brought_less_does_not(
    settled: list[Stored], checkpoint: Path
) -> None:
    from experiments.rllib import train_marwil

    good, bad = (
        odds(train_marwil(checkpoint, taught(settled, brought=b), seed=7, passes=20), settled)
        for b in (0.4, -0.4)
    )

    assert good > bad + 0.2


def test_weights_of_what_was_done_have_spread(settled: list[Stored]) -> None:
    from experiments.rllib import BETA, advantage_norm

    shown = demonstrations(settled, SPOT)
    advantage_N = np.concatenate([d.reward_N for d in shown])
    advantage_N = advantage_N - advantage_N.mean()

    def spread(norm: float) -> float:
        weight_N = np.exp(BETA * advantage_N / np.sqrt(norm))
        return float(weight_N.std() / weight_N.mean())

    assert spread(advantage_norm(shown)) > 0.3
    assert spread(100.0) < 0.05  # RLlib's own start: plain imitation


def test_a_marwil_round_leaves_a_challenger_that_values_entries_as_before(
    answered_run: AnsweredRun,
) -> None:
    home = answered_run.home

    done = train_round(home, algorithm="marwil", run=1, iterations=3)

    assert done.state in (RoundState.PROMOTED, RoundState.REJECTED)
    assert Rounds(home / "registry.sqlite").all() == [done]
    before, after = (
        RL.load(directory_of(home, model="rl", id=id)) for id in (done.champion, done.challenger)
    )
    was, is_now = before.network.state_dict(), after.network.state_dict()
    assert [name for name in was if not torch.equal(was[name], is_now[name])] == ["action.weight"]
    assert after.trained["from"] == done.champion
    assert after.trained["until_ns"] <= answered_run.last_ns
    roles = {e.id: e.role for e in Registry(home / "registry.sqlite").entries()}
    assert roles[done.challenger] == "rejected"


def test_same_seed_makes_the_same_challenger(answered_run: AnsweredRun) -> None:
    one = train_round(answered_run.home, algorithm="marwil", run=1, iterations=1, confirm_ns=1)
    same = train_round(answered_run.home, algorithm="marwil", run=1, iterations=1, confirm_ns=2)

    assert one.challenger == same.challenger


def test_each_algorithm_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="pass --recording"):
        train_round(tmp_path, algorithm="ppo")
    with pytest.raises(InvalidRequest, match="expected a run"):
        train_round(tmp_path, algorithm="marwil")


def test_choices_are_those_the_policy_serves(settled: list[Stored], checkpoint: Path) -> None:
    model = RL.load(checkpoint)

    chosen = choices(model, settled)

    assert chosen == [row.actions["rl"] for row in settled]
    assert choices(model, []) == []
    assert replace(settled[0], symbol="X").symbol == "X"


def test_ppo_compares_on_no_minute_that_the_cnn_may_have_learned_from(
    answered_run: AnsweredRun, recordings: Path
) -> None:
    home, path = answered_run.home, answered_run.home / "registry.sqlite"
    registry, num = Registry(path), 40
    first = train_round(home, algorithm="ppo", recording=recordings, num_minutes=num, confirm_ns=1)
    known = CNN.load(directory_of(home, model="cnn", id=answered_run.champions["cnn"]))
    known.trained = {"until_ns": FIRST_TICK_NS}
    id = known.save(directory_of(home, model="cnn", id=known.version))
    (entry,) = (e for e in registry.entries() if e.id == answered_run.champions["cnn"])
    registry.register(replace(entry, id=id))

    after = train_round(home, algorithm="ppo", recording=recordings, num_minutes=num, confirm_ns=2)

    assert first.reason.startswith("too little to compare on: 1 times 10 minutes")
    assert after.reason.startswith("too little to compare on: 0 times 10 minutes")
    assert (after.state, after.challenger) == (RoundState.REJECTED, "")


@pytest.mark.ray
@pytest.mark.slow
def test_the_ppo_command_trains_judges_and_prints_its_round(
    answered_run: AnsweredRun, recordings: Path
) -> None:
    words = ["--home", str(answered_run.home), "--algorithm", "ppo", "--iterations", "2"]
    command = [sys.executable, "-m", "experiments.train_rl", *words]

    done = subprocess.run(
        [*command, "--recording", str(recordings), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )

    told = json.loads(done.stdout)
    assert told["state"] in ("promoted", "rejected")
    assert told["challenger"]
    assert told["figures"]["num_blocks"] >= 9
    assert told["figures"]["flat_utility_r"] == 0.0
    kept = RL.load(directory_of(answered_run.home, model="rl", id=told["challenger"]))
    assert kept.trained["algorithm"] == "ppo"
    taught_ns = asyncio.run(taught_until_ns(recordings, load_settings(answered_run.home)))
    assert taught_ns <= kept.trained["until_ns"] < FIRST_TICK_NS
