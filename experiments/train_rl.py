"""Train the policy: first by a teacher; then by replayed minutes (PPO) or stored answers (MARWIL).

python -m experiments.train_rl --home user_data --algorithm ppo --recording DIR [--iterations K]
python -m experiments.train_rl --home user_data --algorithm marwil --run 1 [--until T] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from alphapulse import logs
from alphapulse.config import Settings, Training, load_settings
from alphapulse.data.tape import content_hash
from alphapulse.domain.errors import AlphaPulseError, InvalidRequest
from alphapulse.domain.inference import Action
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.domain.market import Floats, Ints
from alphapulse.features.grid import iso
from alphapulse.interfaces import LearnReport
from alphapulse.learning.promotion import Verdict, compare, least_blocks
from alphapulse.learning.rewards import Costs, Rules
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.cnn import CNN
from alphapulse.models.network import owned
from alphapulse.models.policy import ACTIONS, PolicyNetwork
from alphapulse.models.rl import RL
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from experiments.answered import Parts, actions_answered, answered, parts, require_no_leak
from experiments.dataset import HELD_OUT, Dataset, Upstream
from experiments.env import (
    Minutes,
    ReplayEnv,
    candles_end_ns,
    collect_minutes,
    taught_until_ns,
)
from experiments.round import (
    BY_HAND,
    Conducted,
    as_dict,
    become_a_trainer,
    champion_of,
    conducted,
    instant_of,
    learned_until_ns,
    newest_decision,
    next_confirmation,
    now,
)
from experiments.stored import Stored, choices, demonstrations, stored
from experiments.tracking import tracked

# axes: N minute or decision, oldest first · X feature
FLAT_AND_LONG = (0, 1)
EPOCHS = 4


def train(dataset: Dataset, training: Training, upstream: Upstream) -> tuple[RL, LearnReport]:
    """Return a trained policy and its losses on the held-out part.

    Args:
        dataset: of `experiments.dataset.collect`.
        training: the seed.
        upstream: by (instant, symbol) the CNN's prediction, for the parts `rl` and `held_out`.
    """
    model = RL.fresh(seed=training.seed)
    shown = dataset.rows("rl", upstream, positions=FLAT_AND_LONG)
    model.fit(shown, seed=training.seed, epochs=EPOCHS)
    return model, model.report(shown, dataset.rows(HELD_OUT, upstream, positions=FLAT_AND_LONG))


# A round by rewards.
MINUTES = 600  # of candles that PPO replays, the newest
BLOCK = 10  # minutes of the replay that are one answer
BLOCK_S = 300  # seconds of decisions that are one: none settles later than that after its own
SCALE_R = 0.5  # difference of two blocks' results that counts as one whole step [R]
ITERATIONS = {"ppo": 8, "marwil": 10}
ALGORITHMS = tuple(ITERATIONS)


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
    """Return what an action brings where there is no book to walk."""
    trading = settings.trading
    costs = Costs.of(fee_bps=trading.fee_bps, half_spread_bps=trading.half_spread_bps)
    return Rules(costs, allow_short=trading.allow_short)


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

    Or the rejection, where there are too few minutes that the champion was not trained on.
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
            f"champion was not trained on, at least {needed} can promote",
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
    until_ns = int(minutes.at_N[cut]) - 1
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
        group_N=np.array([row.event_ns // (BLOCK_S * 10**9) for row in compared], dtype=np.int64),
        figures={
            "champion_utility_r": float(before_N.sum()),
            "challenger_utility_r": float(after_N.sum()),
            "flat_utility_r": 0.0,
        },
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


def train_round(
    home: Path,
    *,
    algorithm: str,
    recording: Path | None = None,
    run: int | None = None,
    until: str | None = None,
    confirm_ns: int | None = None,
    trigger: str = BY_HAND,
    champion: str | None = None,
    iterations: int | None = None,
    num_minutes: int = MINUTES,
) -> TrainingRound:
    """Hold one round of the policy and return it with its verdict; it makes nothing live.

    Args:
        home: folder of runs, checkpoints and registry.
        algorithm: `ppo`, which replays the candles of `recording`, or `marwil`, which learns from
            the settled decisions of `run`.
        recording: folder of the recording; PPO only.
        run: number of the run it belongs to; None takes the newest, where there is one.
        until: what was not known at this instant is not used; None takes the newest.
        confirm_ns: which round of the run it is [ns UTC]; None takes the next that is free.
        trigger: what started it.
        champion: checkpoint id to beat; None takes the registered champion.
        iterations: of learning; None takes the usual number.
        num_minutes: of candles that PPO replays.

    Raises:
        AlphaPulseError: the round could not be held; it is marked failed, with the reason.
    """
    settings = load_settings(home)
    place = Home(home)
    its_run = place.run(run) if run is not None else place.runs()[-1] if place.runs() else None
    if algorithm == "ppo":
        if recording is None:
            raise InvalidRequest("ppo: expected a recording to replay, was none; pass --recording")
        newest_ns = candles_end_ns(recording, settings)
    else:
        if its_run is None:
            raise InvalidRequest(f"marwil: expected a run in {home}, was none; start one with `up`")
        newest_ns = newest_decision(its_run)
    until_ns = newest_ns if until is None else instant_of(until)
    of_run = its_run.id if its_run else ""
    if confirm_ns is None:
        confirm_ns = next_confirmation(home, of_run, RL.name, from_ns=until_ns)
    asked = TrainingRound(
        run=of_run,
        model=RL.name,
        confirm_ns=confirm_ns,
        trigger=trigger,
        state=RoundState.RUNNING,
        champion=champion or "",
        started_at=now(),
    )
    wanted = iterations or ITERATIONS[algorithm]
    params = {"algorithm": algorithm, "iterations": wanted, "seed": settings.training.seed}
    where = f"{recording.name if recording else f'run {of_run}'} until {iso(until_ns)}"
    with conducted(home, asked) as under_way:
        id = champion_of(home, RL.name, champion)
        under_way.know(champion=id)
        best = RL.load(directory_of(home, model=RL.name, id=id))
        trained = {"from": id, "data": where, **params}
        if algorithm == "ppo" and recording is not None:
            lesson = _replayed(
                under_way, home, settings, best, recording, until_ns, num_minutes, wanted, trained
            )
        else:
            lesson = _answered(under_way, home, settings, best, until_ns, wanted, trained)
        _conclude(under_way, home, settings, lesson)
    done = under_way.round
    with tracked(home, "rl rounds", params | {"champion": done.champion}, data=where) as mirror:
        for step, value in enumerate([] if isinstance(lesson, Verdict) else lesson.curve):
            mirror.log({"return_r" if algorithm == "ppo" else "loss": value}, step=step)
        mirror.log({k: v for k, v in done.figures.items() if isinstance(v, int | float)})
        mirror.tag(verdict=done.state.value, reason=done.reason, challenger=done.challenger)
    return done


def _replayed(
    under_way: Conducted,
    home: Path,
    settings: Settings,
    best: RL,
    recording: Path,
    until_ns: int,
    num: int,
    iterations: int,
    trained: Mapping[str, Any],
) -> Lesson | Verdict:
    champion = under_way.round.champion
    cnn = CNN.load(directory_of(home, model=CNN.name, id=champion_of(home, CNN.name, None)))
    step = under_way.stage("replaying minutes", of=num)
    minutes = asyncio.run(
        collect_minutes(
            recording, settings, cnn, num=num, until_ns=until_ns, on_minute=lambda: step(1)
        )
    )
    learned_ns = learned_until_ns(home, RL.name, champion, best.trained)
    if "until_ns" not in best.trained and _was_first(home, settings, recording, champion):
        learned_ns = asyncio.run(taught_until_ns(recording, settings))
    steps = under_way.stage("training", of=iterations)
    return by_replay(
        best,
        directory_of(home, model=RL.name, id=champion),
        minutes,
        settings=settings,
        learned_ns=learned_ns,
        iterations=iterations,
        trained=trained,
        on_iteration=lambda earned: steps(1, loss=-earned),
    )


def _was_first(home: Path, settings: Settings, recording: Path, id: str) -> bool:
    """Return whether a checkpoint is of the first training on this recording and these settings."""
    origin = (content_hash(recording, settings.market.instruments), settings.training_hash)
    return any(
        entry.id == id and (entry.data_hash, entry.config_hash) == origin
        for entry in Registry(Home(home).registry_path).entries()
    )


def _answered(
    under_way: Conducted,
    home: Path,
    settings: Settings,
    best: RL,
    until_ns: int,
    iterations: int,
    trained: Mapping[str, Any],
) -> Lesson | Verdict:
    done = under_way.round
    learned_ns = learned_until_ns(home, RL.name, done.champion, best.trained)
    under_way.stage("reading answers")
    history = InferenceHistory(Home(home), settings=settings.storage)

    async def read() -> tuple[Parts, list[Stored], list[Stored]]:
        known = await actions_answered(history, run=done.run, model=RL.name, until_ns=until_ns)
        rows = answered(known, until_ns=until_ns)
        found = parts(rows, learned_until_ns=learned_ns, settings=settings.learning)
        if len(found.train) < settings.learning.min_examples:
            # an action takes up to 300 bars to settle: a short run has nothing left to compare on,
            # and its challenger is rejected, whatever it learned
            whole = rows[-settings.learning.max_examples :]
            found = Parts(whole, (), max([learned_ns, *(row.known_ns for row in whole)]))
        require_no_leak(found, now_ns=until_ns, learned_until_ns=learned_ns)
        return (
            found,
            await stored(history, done.run, found.train),
            await stored(history, done.run, found.compared),
        )

    try:
        found, train, compared = asyncio.run(read())
    finally:
        history.close()
    under_way.know(num_train=len(train), num_compared=len(compared))
    if len(train) < settings.learning.min_examples:
        return Verdict(
            False, 1.0, 0.0, 0,
            f"too little to learn from: {len(train)} settled decisions, wanted "
            f"{settings.learning.min_examples}",
        )  # fmt: skip
    steps = under_way.stage("training", of=iterations)
    return by_answers(
        best,
        directory_of(home, model=RL.name, id=done.champion),
        train,
        compared,
        settings=settings,
        until_ns=found.until_ns,
        iterations=iterations,
        trained=trained,
        on_iteration=lambda loss: steps(1, loss=loss),
    )


def _conclude(
    under_way: Conducted, home: Path, settings: Settings, lesson: Lesson | Verdict
) -> None:
    if isinstance(lesson, Verdict):
        under_way.conclude(lesson)
        return
    verdict = judge(lesson, promote_at=settings.learning.promote_at)
    under_way.know(num_train=lesson.num_train, num_compared=len(lesson.champion_N))
    under_way.enter(
        lesson.model,
        home=home,
        entry={
            "data_hash": hashlib.sha256(
                json.dumps(dict(lesson.model.trained)).encode()
            ).hexdigest(),
            "config_hash": settings.training_hash,
            "created_event_ns": lesson.until_ns,
            "metrics": {
                "num_examples": lesson.num_train,
                **lesson.figures,
                **verdict.figures,
            },
        },
    )
    under_way.conclude(verdict, **lesson.figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one round from the command line and return the exit code; a rejection is no error."""
    parser = argparse.ArgumentParser(prog="python -m experiments.train_rl", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of runs and checkpoints")
    parser.add_argument("--algorithm", choices=ALGORITHMS, required=True)
    parser.add_argument("--recording", type=Path, help="folder of the recording that ppo replays")
    parser.add_argument("--run", type=int, help="number of the run, else the newest")
    parser.add_argument("--until", help="instant of the round, ISO-8601 or ns, else the newest")
    parser.add_argument("--confirm-ns", type=int, help="which round of the run, else the next")
    parser.add_argument("--trigger", default=BY_HAND, help="what started it")
    parser.add_argument("--champion", help="checkpoint to beat, else the registered champion")
    parser.add_argument("--iterations", type=int, help="of learning, else the usual number")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    logs.configure(given.home / "logs", process="train_rl", session=f"round-{os.getpid()}")
    try:
        done = _with_ray(given)
    except AlphaPulseError as error:
        Console(stderr=True).print(f"{error.code}: {error}", highlight=False)
        return error.exit_code
    wall_s = time.monotonic() - began
    if given.json:
        sys.stdout.write(json.dumps(as_dict(done, wall_s=wall_s)) + "\n")
    else:
        sys.stdout.write(
            f"{done.state} {done.challenger or '-'} in {wall_s:.1f} s: {done.reason}\n"
        )
    return 0


def _with_ray(given: argparse.Namespace) -> TrainingRound:
    from experiments.small_cluster import cluster

    asked = dict(vars(given))
    del asked["json"]
    with cluster() if given.algorithm == "ppo" else nullcontext():  # a learner alone needs none
        return train_round(asked.pop("home"), **asked)


if __name__ == "__main__":
    become_a_trainer()
    sys.exit(main())
