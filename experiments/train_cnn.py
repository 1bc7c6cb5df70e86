"""Train the CNN on answered inferences, a round at a time, and keep the better one.

python -m experiments.train_cnn --home user_data --run 1 [--until 2024-08-09T00:04:00Z] \
    [--confirm-ns NS] [--trigger "ETH/USDT 1s L2 H"] [--champion ID] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alphapulse import logs
from alphapulse.config import Settings, load_settings
from alphapulse.domain.inference import Example
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.features.grid import iso
from alphapulse.learning.examples import answer_of
from alphapulse.learning.promotion import Verdict, least_blocks
from alphapulse.models.checkpoints import directory_of
from alphapulse.models.cnn import CNN
from alphapulse.models.fit import (
    split,
)
from alphapulse.models.network import use_one_thread
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.run import now
from experiments.answered import (
    Answered,
    Parts,
    answered,
    examples,
    forecasts_answered,
    parts,
    require_no_leak,
    weighted,
)
from experiments.challenger import BATCH_ROWS, EPOCHS, judge, learn, recipe, score
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
from experiments.tracking import tracked

READ_ROWS = 64  # inputs rebuilt between two signs of progress


def train_round(
    home: Path,
    *,
    run: int,
    until: str | None = None,
    confirm_ns: int | None = None,
    trigger: str = BY_HAND,
    champion: str | None = None,
) -> TrainingRound:
    """Hold one round on a run's answered inferences and return it with its verdict.

    It makes nothing live: whoever runs the cluster reads the verdict and does that.

    Args:
        home: folder of the run, the checkpoints and the registry.
        run: number of the run.
        until: what was not known at this instant is not used; None takes the newest decision.
        confirm_ns: which round of the run it is [ns UTC]; None takes the next that is free.
        trigger: what started it.
        champion: checkpoint id to beat; None takes the registered champion.

    Raises:
        AlphaPulseError: the round could not be held; it is marked failed, with the reason.
    """
    settings = load_settings(home)
    its_run = Home(home).run(run)
    until_ns = newest_decision(its_run) if until is None else instant_of(until)
    if confirm_ns is None:
        confirm_ns = next_confirmation(home, its_run.id, CNN.name, from_ns=until_ns)
    asked = TrainingRound(
        run=its_run.id,
        model=CNN.name,
        confirm_ns=confirm_ns,
        trigger=trigger,
        state=RoundState.RUNNING,
        champion=champion or "",
        started_at=now(),
    )
    curve: list[float] = []
    with conducted(home, asked) as under_way:
        _hold(under_way, home, settings, until_ns=until_ns, champion=champion, curve=curve)
    done = under_way.round
    params = recipe(settings.training.seed) | {"champion": done.champion, "trigger": trigger}
    with tracked(home, "cnn rounds", params, data=f"run {run} until {iso(until_ns)}") as mirror:
        for step, loss in enumerate(curve):
            mirror.log({"loss": loss}, step=step)
        mirror.log({k: v for k, v in done.figures.items() if isinstance(v, int | float)})
        mirror.tag(verdict=done.state.value, reason=done.reason, challenger=done.challenger)
    return done


def _hold(
    under_way: Conducted,
    home: Path,
    settings: Settings,
    *,
    until_ns: int,
    champion: str | None,
    curve: list[float],
) -> None:
    under_way.stage("reading answers")
    id = champion_of(home, CNN.name, champion)
    under_way.know(champion=id)
    best = CNN.load(directory_of(home, model=CNN.name, id=id))
    learned_ns = learned_until_ns(home, CNN.name, id, best.trained)
    history = InferenceHistory(Home(home), settings=settings.storage)
    try:
        known = asyncio.run(
            forecasts_answered(history, run=under_way.round.run, model=CNN.name, until_ns=until_ns)
        )
        found = parts(
            answered(known, until_ns=until_ns),
            learned_until_ns=learned_ns,
            settings=settings.learning,
        )
        require_no_leak(found, now_ns=until_ns, learned_until_ns=learned_ns)
        under_way.know(num_train=len(found.train), num_compared=len(found.compared))
        too_little = _too_little(found, settings)
        if too_little is not None:
            under_way.conclude(too_little)
            return
        step = under_way.stage("rebuilding inputs", of=len(found.train) + len(found.compared))
        shown = asyncio.run(_examples(history, found.train, step))
        compared = asyncio.run(_examples(history, found.compared, step))
    finally:
        history.close()
    _challenge(under_way, home, settings, best, found, shown, compared, curve)


def _too_little(found: Parts, settings: Settings) -> Verdict | None:
    """Return the rejection where no challenger could be judged, so that none is trained."""
    answers = {answer_of(outcome) for row in found.compared for outcome in row.outcomes}
    needed = least_blocks(settings.learning.promote_at)
    if len(answers) < needed:
        reason = (
            f"too little to compare on: {len(answers)} answers that the champion was not trained "
            f"on, at least {needed} can promote"
        )
    elif len(found.train) < settings.learning.min_examples:
        reason = (
            f"too little to learn from: {len(found.train)} examples answered before what is "
            f"compared on, wanted {settings.learning.min_examples}"
        )
    else:
        return None
    return Verdict(False, 1.0, 0.0, len(answers), reason)


async def _examples(
    history: InferenceHistory, rows: Sequence[Answered], step: Callable[[int], None]
) -> list[Example]:
    inputs = {}
    for i in range(0, len(rows), READ_ROWS):
        ids = [row.inference_id for row in rows[i : i + READ_ROWS]]
        inputs |= await history.inputs(ids)
        step(len(ids))
    return examples(rows, inputs)


def _challenge(
    under_way: Conducted,
    home: Path,
    settings: Settings,
    best: CNN,
    found: Parts,
    shown: list[Example],
    compared: list[Example],
    curve: list[float],
) -> None:
    use_one_thread()
    done = under_way.round
    older, _ = split(CNN.name, shown)
    steps = under_way.stage("training", of=EPOCHS * -(-len(older) // BATCH_ROWS))

    def on_step(loss: float) -> None:
        curve.append(loss)
        steps(1, loss=loss)

    challenger = learn(
        best,
        weighted(found.train, shown, np.nanmean(score(best, shown).loss_NF, axis=1)),
        seed=settings.training.seed,
        trained={
            "from": done.champion,
            "until_ns": found.until_ns,
            "num_examples": len(shown),
            "run": done.run,
            "confirm_ns": done.confirm_ns,
            **recipe(settings.training.seed),
        },
        on_step=on_step,
    )
    under_way.stage("comparing")
    verdict, figures = judge(
        found.compared,
        score(best, compared),
        score(challenger, compared),
        promote_at=settings.learning.promote_at,
    )
    answers = [(row.inference_id, row.known_ns) for row in found.train]
    under_way.enter(
        challenger,
        home=home,
        entry={
            "data_hash": hashlib.sha256(json.dumps(answers).encode()).hexdigest(),
            "config_hash": settings.training_hash,
            "created_event_ns": found.until_ns,
            "metrics": {"num_examples": len(shown), **figures, **verdict.figures},
        },
    )
    under_way.conclude(verdict, **figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one round from the command line and return the exit code; a rejection is no error."""
    parser = argparse.ArgumentParser(prog="python -m experiments.train_cnn", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of run and checkpoints")
    parser.add_argument("--run", type=int, required=True, help="number of the run")
    parser.add_argument("--until", help="instant of the round, ISO-8601 or ns, else the newest")
    parser.add_argument("--confirm-ns", type=int, help="which round of the run, else the next")
    parser.add_argument("--trigger", default=BY_HAND, help="what started it")
    parser.add_argument("--champion", help="checkpoint to beat, else the registered champion")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    given = parser.parse_args(arguments)
    logs.configure(given.home / "logs", process="train_cnn", session=f"round-{os.getpid()}")
    return told(
        lambda: train_round(
            given.home,
            run=given.run,
            until=given.until,
            confirm_ns=given.confirm_ns,
            trigger=given.trigger,
            champion=given.champion,
        ),
        as_json=given.json,
    )


if __name__ == "__main__":
    become_a_trainer()
    sys.exit(main())
