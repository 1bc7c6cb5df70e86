"""A sweep tries settings, counts its trials, and keeps the best as a challenger, no more."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from alphapulse.interfaces import LearnReport
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.loading import load_model
from experiments import sweep
from experiments.tracking import client, count
from tests.unit.experiments.conftest import AnsweredRun


def swept(home: Path, recordings: Path, model: str, trials: int) -> dict[str, Any]:
    words = [model, "--home", str(home), "--recording", str(recordings), "--trials", str(trials)]
    command = [sys.executable, "-m", "experiments.sweep", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (answer,) = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(answer)
    return told


def test_losses_are_in_shares_of_the_base_rates() -> None:
    report = LearnReport(9, {"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 2.0})

    assert sweep.against_base(report) == 1.0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "rl"])
def test_the_best_of_a_sweep_becomes_a_challenger_and_every_trial_is_counted(
    answered_run: AnsweredRun, recordings: Path, model: str
) -> None:
    home = answered_run.home

    told = swept(home, recordings, model, trials=2)

    finished = [trial for trial in told["trials"] if trial["finished"]]
    assert sorted(trial["trial"] for trial in told["trials"]) == [1, 2]
    assert told["best"] == min(finished, key=lambda trial: trial["loss"])
    registry = Registry(home / "registry.sqlite")
    assert registry.champion(model) == answered_run.champions[model]
    assert {e.id: e.role for e in registry.entries()}[told["challenger"]] == "challenger"
    kept = load_model(directory_of(home, model=model, id=told["challenger"]))
    assert kept.version == told["challenger"]
    assert kept.trained["sweep"]["rate"] == told["best"]["rate"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert count(home, f"{model} sweep") == 2
        mirror = client(home)
        experiment = mirror.get_experiment_by_name(f"{model} sweep")
        runs = mirror.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["trial"] for run in runs) == ["1", "2"]
    assert not any((home / "sweeps").iterdir())
