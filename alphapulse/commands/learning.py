"""Train, sweep, and choose the checkpoint that answers."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from alphapulse.commands.options import (
    DEFAULT_HOME,
    Algorithm,
    HomeOption,
    JsonOption,
    ModelName,
    RecordingOption,
    Trained,
)
from alphapulse.commands.printing import print_answer


def train(
    model: Annotated[Trained, typer.Argument(help="Which model to train.")],
    algorithm: Annotated[Algorithm, typer.Option(help="Of rl only.")] = Algorithm.PPO,
    recording: RecordingOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Train a challenger now and compare it: a job of the running cluster, else in this process."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.train(home, model.value, algorithm.value, recording), as_json)


def sweep(
    model: Annotated[Trained, typer.Argument(help="Which model's training to search.")],
    trials: Annotated[int, typer.Option(min=1, help="How many configurations.")] = 4,
    recording: RecordingOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Search training settings with Tune: a job of the running cluster, else a small one here."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.sweep(home, model.value, trials, recording), as_json)


def list_models(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show every checkpoint with its role, and which one answers in the running `up`."""
    print_answer(importlib.import_module("alphapulse.client").read_models(home), as_json)


def promote(
    checkpoint: Annotated[str, typer.Argument(help="Id of a registered checkpoint.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "promoted by hand",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let a checkpoint answer: from the next decision of the running `up` on."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.promote(home, checkpoint, reason), as_json)


def rollback(
    model: Annotated[ModelName, typer.Argument(help="Which model.")] = ModelName.CNN,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "rolled back by hand",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let the checkpoint before answer again, from the next decision of the running `up` on."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.rollback(home, model.value, reason), as_json)
