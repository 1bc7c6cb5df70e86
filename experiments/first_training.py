"""Train the first checkpoints on the bars before the first decision, once a recording and settings.

python -m experiments.first_training --home user_data --recording DIR [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from alphapulse.config import Settings, load_settings
from alphapulse.data.tape import content_hash
from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.inference import Prediction
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import Entry, Registry, directory_of
from alphapulse.models.network import seed_all
from experiments import first_cnn, first_moe, first_rl
from experiments.dataset import HELD_OUT, Dataset, collect

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class FirstTraining:
    """What the first training made, or found.

    Attributes:
        checkpoints: id by model.
        reports: losses by model; as they were registered, if nothing had to be trained.
        trained: whether it trained now.
        wall_s: how long that took [s].
    """

    checkpoints: Mapping[str, str]
    reports: Mapping[str, LearnReport]
    trained: bool
    wall_s: float


def train_first(home: Path, recording: Path, *, quiet: bool = True) -> FirstTraining:
    """Return the first checkpoints of `home` for `recording`, trained now unless they are there.

    They are saved under HOME/checkpoints and registered as champions. The same recording and
    settings give the same ids on every machine of one kind: seeded, one thread, deterministic.

    Args:
        home: folder of settings, checkpoints and registry.
        recording: folder of the recording.
        quiet: whether to draw no progress bar on stderr.

    Raises:
        NoData: too short a history before the first tick.
        InvalidRecording: no complete input in it.
    """
    began = time.monotonic()
    settings = load_settings(home)
    data_hash = content_hash(recording, settings.market.instruments)
    registry = Registry(home / "registry.sqlite")
    found = registry.find_first(data_hash, settings.training_hash)
    if found and all(directory_of(home, model=m, id=id).is_dir() for m, id in found.items()):
        reports = {e.model: _report_of(e) for e in registry.entries() if found[e.model] == e.id}
        return FirstTraining(found, reports, trained=False, wall_s=time.monotonic() - began)
    with _progress(quiet) as begin:
        dataset, models = _train(recording, settings, begin)
    checkpoints = {}
    for name, (model, report) in models.items():
        checkpoints[name] = model.save(directory_of(home, model=name, id=model.version))
        metrics = {
            "num_examples": report.num_examples,
            "held_out_loss": dict(report.held_out_loss),
            "base_rate_loss": dict(report.base_rate_loss),
        }
        registry.register(
            Entry(
                id=checkpoints[name],
                model=name,
                role="champion",
                data_hash=data_hash,
                config_hash=settings.training_hash,
                created_event_ns=dataset.parts[HELD_OUT].cut_ns,
                metrics=metrics,
            )
        )
    reports = {name: report for name, (_, report) in models.items()}
    return FirstTraining(checkpoints, reports, trained=True, wall_s=time.monotonic() - began)


def _train(
    recording: Path, settings: Settings, begin: Callable[[str, int], Step]
) -> tuple[Dataset, dict[str, tuple[Model, LearnReport]]]:
    training = settings.training
    seed_all(training.seed)
    total = (training.num_train + training.num_held_out) // 2
    dataset = asyncio.run(collect(recording, settings, on_instant=begin("reading history", total)))
    steps = first_cnn.num_steps(dataset, training)
    cnn, of_cnn = first_cnn.train(dataset, training, begin("training cnn", steps))
    said: dict[tuple[int, int], dict[str, Prediction]] = {}
    _ask(cnn, dataset, ("rl", "moe", HELD_OUT), said, begin)
    rl, of_rl = first_rl.train(dataset, training, said)
    _ask(rl, dataset, ("moe", HELD_OUT), said, begin)
    moe, of_moe = first_moe.train(dataset, training, said)
    return dataset, {"cnn": (cnn, of_cnn), "rl": (rl, of_rl), "moe": (moe, of_moe)}


def _ask(
    model: Model,
    dataset: Dataset,
    parts: Sequence[str],
    said: dict[tuple[int, int], dict[str, Prediction]],
    begin: Callable[[str, int], Step],
) -> None:
    """Add what `model` predicts for every row of `parts`, flat, to `said`."""
    chosen = [dataset.parts[name] for name in parts]
    rows = [(n, s) for part in chosen for n in range(part.begin, part.end) for s in (0, 1)]
    step = begin(f"asking {model.name}", len(rows))
    for n, s in rows:
        known = said.setdefault((n, s), {})
        known[model.name] = model.predict(dataset.input(n, s), upstream=known)
        step()


def _report_of(entry: Entry) -> LearnReport:
    return LearnReport(**entry.metrics)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int], Step]]:
    columns = (TextColumn("{task.description:>16}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:

        def begin(what: str, total: int) -> Step:
            task = bar.add_task(what, total=total)
            return lambda: bar.advance(task)

        yield begin


def as_json(done: FirstTraining) -> dict[str, object]:
    """Return what was made as plain values, ready for JSON."""
    return {
        "trained": done.trained,
        "wall_s": round(done.wall_s, 2),
        "checkpoints": dict(done.checkpoints),
        "losses": {
            model: {
                head: {"held_out": loss, "base_rate": report.base_rate_loss[head]}
                for head, loss in report.held_out_loss.items()
            }
            for model, report in done.reports.items()
        },
        "num_examples": {model: report.num_examples for model, report in done.reports.items()},
    }


def _print(done: FirstTraining) -> None:
    table = Table(title="held-out loss of the first checkpoints", title_justify="left")
    for column in ("model", "head", "held out", "base rate", "better"):
        table.add_column(column)
    for model, report in done.reports.items():
        for head, loss in report.held_out_loss.items():
            base = report.base_rate_loss[head]
            better = "yes" if loss < base else "no"
            table.add_row(
                f"{model} {done.checkpoints[model]}", head, f"{loss:.4f}", f"{base:.4f}", better
            )
    Console().print(table)
    Console().print(f"{'trained' if done.trained else 'found'} in {done.wall_s:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.first_training", description=__doc__
    )
    parser.add_argument(
        "--home", type=Path, required=True, help="folder of settings and checkpoints"
    )
    parser.add_argument("--recording", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    try:
        done = train_first(given.home, given.recording, quiet=given.json)
    except AlphaPulseError as error:
        Console(stderr=True).print(f"{error.code}: {error}", highlight=False)
        return error.exit_code
    if given.json:
        sys.stdout.write(json.dumps(as_json(done)) + "\n")
    else:
        _print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
