"""Which training settings serve best? Search them with Tune and keep the best as a challenger.

python -m experiments.sweep cnn|rl --home user_data --recording DIR [--trials 4] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alphapulse import logs
from alphapulse.config import Settings, load_settings
from alphapulse.data.tape import content_hash
from alphapulse.domain.errors import AlphaPulseError, Unavailable
from alphapulse.interfaces import LearnReport
from alphapulse.models.checkpoints import Entry, Registry, directory_of
from alphapulse.models.cnn import CNN
from alphapulse.models.network import use_one_thread
from alphapulse.models.rl import RL
from alphapulse.storage.home import Home
from experiments import first_cnn
from experiments.dataset import HELD_OUT, Dataset, collect
from experiments.env import Minutes, ReplayEnv, collect_minutes
from experiments.lessons import greedy, rules_of
from experiments.round import become_a_trainer, champion_of, step_aside
from experiments.small_cluster import cluster
from experiments.tracking import count, tracked

if TYPE_CHECKING:
    from ray.tune import ResultGrid

# Few enough that four trials take about a minute on two cores.
NUM_TRAIN, NUM_HELD_OUT = 560, 160  # of the first training's instants, both symbols together
NUM_MINUTES = 300  # of the policy's replay
CPUS_A_TRIAL, AT_ONCE = 0.5, 2
GRACE = 2  # reports before a trial may be stopped
MAX_REPORTS = 6
SAVED = "model"  # folder of the trained model in what a trial leaves
Found = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Searched:
    """What is searched, and over what.

    Attributes:
        trial: trains with one configuration; it reports `loss` as it goes.
        space: what to choose from, by name.
        data: handed to every trial, kept once for all.
        until_ns: newest instant of the data [ns UTC].
    """

    trial: Callable[..., None]
    space: Mapping[str, Any]
    data: Mapping[str, Any]
    until_ns: int


def cnn_trial(config: Mapping[str, Any], *, dataset: Dataset, settings: Settings) -> None:
    """Train the CNN as the first training does, with another rate, decay and number of passes.

    Its loss is that on the held-out part, in shares of the base rate's, mean of all heads.
    """
    from ray import tune

    step_aside()
    use_one_thread()
    training = replace(settings.training, epochs=config["epochs"])

    def told(network: Any) -> None:
        tune.report({"loss": against_base(first_cnn.held_out_report(network, dataset))})

    model, done = first_cnn.train(
        dataset, training, rate=config["rate"], decay=config["decay"], on_epoch=told
    )
    _leave(model, {"loss": against_base(done)})


def against_base(report: LearnReport) -> float:
    """Return the held-out losses in shares of the base rates', mean of all heads."""
    shares = [loss / report.base_rate_loss[head] for head, loss in report.held_out_loss.items()]
    return float(np.mean(shares))


def rl_trial(
    config: Mapping[str, Any], *, minutes: Minutes, settings: Settings, checkpoint: str
) -> None:
    """Train the policy by replay with another rate, entropy and number of passes.

    Its loss is what its choices did not bring on the newer minutes [R a symbol and hour].
    """
    from ray import tune

    from experiments.rllib import train_ppo

    step_aside()
    use_one_thread()
    rules = rules_of(settings)
    cut = round(len(minutes) * (1 - settings.learning.held_out_share))
    env = ReplayEnv(minutes, begin=cut, end=len(minutes), rules=rules)

    def loss_of(network: Any) -> float:
        symbols = range(len(minutes.symbols))
        brought = np.concatenate([greedy(network, env, s, cut) for s in symbols])
        return 0.0 - 60 * float(brought.mean())

    network = train_ppo(
        Path(checkpoint),
        lambda: ReplayEnv(minutes, begin=0, end=cut, rules=rules),
        seed=settings.training.seed,
        iterations=MAX_REPORTS - 1,
        rate=config["rate"],
        entropy=config["entropy"],
        epochs=config["epochs"],
        on_iteration=lambda _, network: tune.report({"loss": loss_of(network)}),
    )
    _leave(RL(network, trained={"from": Path(checkpoint).name}), {"loss": loss_of(network)})


def _leave(model: CNN | RL, metrics: Mapping[str, float]) -> None:
    """Report the last metrics with the trained model; only a trial that was not stopped does."""
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / SAVED)
        tune.report(dict(metrics), checkpoint=tune.Checkpoint.from_directory(folder))


def _searched(model: str, home: Path, recording: Path, settings: Settings) -> Searched:
    from ray import tune

    if model == CNN.name:
        training = replace(settings.training, num_train=NUM_TRAIN, num_held_out=NUM_HELD_OUT)
        few = replace(settings, training=training)
        dataset = asyncio.run(collect(recording, few))
        space = {
            "rate": tune.loguniform(5e-4, 8e-3),
            "decay": tune.loguniform(1e-3, 1e-1),
            "epochs": tune.choice([2, 4, MAX_REPORTS - 1]),
        }
        data = {"dataset": dataset, "settings": few}
        return Searched(cnn_trial, space, data, dataset.parts[HELD_OUT].cut_ns)
    cnn = CNN.load(directory_of(home, model=CNN.name, id=champion_of(home, CNN.name, None)))
    minutes = asyncio.run(collect_minutes(recording, settings, cnn, num=NUM_MINUTES))
    checkpoint = directory_of(home, model=RL.name, id=champion_of(home, RL.name, None)).resolve()
    space = {
        "rate": tune.loguniform(2e-4, 2e-2),
        "entropy": tune.choice([0.0, 0.003, 0.03]),
        "epochs": tune.choice([2, 4, 8]),
    }
    data = {"minutes": minutes, "settings": settings, "checkpoint": str(checkpoint)}
    return Searched(rl_trial, space, data, int(minutes.at_N[-1]))


def sweep(home: Path, recording: Path, *, model: str, trials: int) -> dict[str, Any]:
    """Return the trials, best first, and the challenger the best one became; needs a running Ray.

    It is registered, never promoted: what it was chosen on is no evidence that it is better.

    Args:
        home: folder of checkpoints and registry.
        recording: folder of the recording.
        model: `cnn` or `rl`.
        trials: configurations to try.

    Raises:
        AlphaPulseError: no data, or no trial came to its end.
    """
    settings = load_settings(home)
    searched = _searched(model, home, recording, settings)
    place = home / "sweeps" / f"{model}-{os.getpid()}"
    try:
        grid = _fit(searched, place, trials=trials, seed=settings.training.seed)
        found = _mirrored(grid, home, model, searched, where=recording.name)
        best = _kept(grid, home, recording, model, searched, settings)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"model": model, "trials": found, "best": found[0], "challenger": best}


def _fit(searched: Searched, place: Path, *, trials: int, seed: int) -> ResultGrid:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    trainable = tune.with_resources(
        tune.with_parameters(searched.trial, **searched.data), {"cpu": CPUS_A_TRIAL}
    )
    tuner = tune.Tuner(
        trainable,
        param_space=dict(searched.space),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=trials,
            max_concurrent_trials=AT_ONCE,
            scheduler=ASHAScheduler(max_t=MAX_REPORTS, grace_period=GRACE),
            search_alg=BasicVariantGenerator(random_state=seed),
        ),
        run_config=tune.RunConfig(
            name=place.name, storage_path=str(place.parent.resolve()), verbose=0
        ),
    )
    with redirect_stdout(io.StringIO()):  # Tune greets on stdout, which is for the answer
        return tuner.fit()


def _mirrored(grid: ResultGrid, home: Path, model: str, searched: Searched, *, where: str) -> Found:
    """Return the trials as plain values, best first, each numbered over all sweeps of the home."""
    experiment = f"{model} sweep"
    before = count(home, experiment)
    found: Found = []
    for number, result in enumerate(grid, start=before + 1):
        told = result.metrics_dataframe
        history = [] if told is None else told["loss"].tolist()
        config = {name: result.config[name] for name in searched.space}
        trial = {
            "trial": number,
            **config,
            "loss": history[-1] if history else float("inf"),
            "reports": len(history),
            "finished": result.checkpoint is not None,
            "error": str(result.error or ""),
        }
        found.append(trial)
        with tracked(home, experiment, config | {"trial": number}, data=where) as mirror:
            for step, loss in enumerate(history):
                mirror.log({"loss": loss}, step=step)
            mirror.tag(finished=str(trial["finished"]))
    return sorted(found, key=lambda trial: (not trial["finished"], trial["loss"]))


def _kept(
    grid: ResultGrid,
    home: Path,
    recording: Path,
    model: str,
    searched: Searched,
    settings: Settings,
) -> str:
    finished = [result for result in grid if result.checkpoint is not None]
    if not finished:
        told = "; ".join(str(result.error).splitlines()[-1] for result in grid if result.error)
        raise Unavailable(f"sweep of {model}: expected a trial to finish, was none: {told}")
    best = min(finished, key=lambda result: result.metrics["loss"])
    kind = CNN if model == CNN.name else RL
    with best.checkpoint.as_directory() as folder:
        kept = kind.load(Path(folder) / SAVED)
    config = {name: best.config[name] for name in searched.space}
    # before its id is first asked for, which is made of this too
    kept.trained = {**kept.trained, "until_ns": searched.until_ns, "sweep": config}
    id = kept.save(directory_of(home, model=model, id=kept.version))
    origin = content_hash(recording, settings.market.instruments)
    Registry(Home(home).registry_path).register(
        Entry(
            id=id,
            model=model,
            role="challenger",
            data_hash=hashlib.sha256(f"sweep {origin} {id}".encode()).hexdigest(),
            config_hash=settings.training_hash,
            created_event_ns=searched.until_ns,
            metrics={"loss": best.metrics["loss"], **config},
        )
    )
    return id


def _print(done: Mapping[str, Any]) -> None:
    table = Table(title=f"trials of {done['model']}, best first", title_justify="left")
    names = list(done["best"])
    for name in names:
        table.add_column(name)
    for trial in done["trials"]:
        values = [trial[name] for name in names]
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)
    Console().print(f"challenger {done['challenger']} in {done['wall_s']} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sweep", description=__doc__)
    parser.add_argument("model", choices=(CNN.name, RL.name))
    parser.add_argument("--home", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--recording", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--trials", type=int, default=4, help="configurations to try")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    logs.configure(given.home / "logs", process="sweep", session=f"sweep-{os.getpid()}")
    try:
        with cluster():
            done = sweep(given.home, given.recording, model=given.model, trials=given.trials)
    except AlphaPulseError as error:
        Console(stderr=True).print(f"{error.code}: {error}", highlight=False)
        return error.exit_code
    done["wall_s"] = round(time.monotonic() - began, 1)
    if given.json:
        sys.stdout.write(json.dumps(done) + "\n")
    else:
        _print(done)
    return 0


if __name__ == "__main__":
    become_a_trainer()
    sys.exit(main())
