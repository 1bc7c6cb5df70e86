"""Train the policy by replayed minutes (PPO) or stored answers (MARWIL), and keep the better one.

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
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from alphapulse import logs
from alphapulse.config import Settings, load_settings
from alphapulse.data.tape import content_hash
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.features.grid import iso
from alphapulse.learning.promotion import Verdict
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.cnn import CNN
from alphapulse.models.rl import RL
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.run import now
from experiments.answered import Parts, actions_answered, answered, parts, require_no_leak
from experiments.env import (
    candles_end_ns,
    collect_minutes,
    taught_until_ns,
)
from experiments.lessons import Lesson, by_answers, by_replay, judge
from experiments.round import (
    BY_HAND,
    Conducted,
    become_a_trainer,
    champion_of,
    conducted,
    instant_of,
    learned_until_ns,
    newest_decision,
    next_confirmation,
    told,
)
from experiments.stored import Stored, stored
from experiments.tracking import tracked

MINUTES = 600  # of candles that PPO replays, the newest
ITERATIONS = {"ppo": 8, "marwil": 10}
ALGORITHMS = tuple(ITERATIONS)


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
    champion, reads = under_way.round.champion, champion_of(home, CNN.name, None)
    cnn = CNN.load(directory_of(home, model=CNN.name, id=reads))
    step = under_way.stage("replaying minutes", of=num)
    minutes = asyncio.run(
        collect_minutes(
            recording, settings, cnn, num=num, until_ns=until_ns, on_minute=lambda: step(1)
        )
    )
    # a forecast on minutes that the CNN has learned from is no fair input to compare on
    learned_ns = max(
        _learned_ns(home, settings, recording, model, id)
        for model, id in ((best, champion), (cnn, reads))
    )
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


def _learned_ns(home: Path, settings: Settings, recording: Path, model: RL | CNN, id: str) -> int:
    if "until_ns" not in model.trained and _was_first(home, settings, recording, id):
        return asyncio.run(taught_until_ns(recording, settings))
    return learned_until_ns(home, model.name, id, model.trained)


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
            await stored(history, done.run, found.train, spec=best.spec),
            await stored(history, done.run, found.compared, spec=best.spec),
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
    logs.configure(given.home / "logs", process="train_rl", session=f"round-{os.getpid()}")
    return told(lambda: _with_ray(given), as_json=given.json)


def _with_ray(given: argparse.Namespace) -> TrainingRound:
    from experiments.small_cluster import cluster

    asked = dict(vars(given))
    del asked["json"]
    with cluster() if given.algorithm == "ppo" else nullcontext():  # a learner alone needs none
        return train_round(asked.pop("home"), **asked)


if __name__ == "__main__":
    become_a_trainer()
    sys.exit(main())
