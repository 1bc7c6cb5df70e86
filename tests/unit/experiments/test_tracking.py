"""The mirror holds what was tried, quietly; and where it cannot, the work goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse import logs
from alphapulse.storage.run import source_commit
from experiments.tracking import client, tracked


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def runs_of(home: Path, experiment: str) -> list[object]:
    mirror = client(home)
    found = mirror.get_experiment_by_name(experiment)
    return list(mirror.search_runs([found.experiment_id]))


def test_a_run_is_mirrored_with_params_metrics_and_where_it_came_from(home: Path) -> None:
    with tracked(home, "cnn rounds", {"rate": 5e-4, "epochs": 2}, data="run 1") as run:
        for step, loss in enumerate((0.9, 0.7, float("nan"))):
            run.log({"loss": loss}, step=step)
        run.tag(verdict="rejected")

    (kept,) = runs_of(home, "cnn rounds")
    assert kept.data.params == {"rate": "0.0005", "epochs": "2"}  # type: ignore[attr-defined]
    assert kept.data.metrics == {"loss": 0.7}  # type: ignore[attr-defined]
    tags = kept.data.tags  # type: ignore[attr-defined]
    assert (tags["commit"], tags["data"], tags["verdict"]) == (source_commit(), "run 1", "rejected")
    assert kept.info.status == "FINISHED"  # type: ignore[attr-defined]
    assert kept.info.artifact_uri.startswith((home / "mlflow" / "artifacts").as_uri())  # type: ignore[attr-defined]
    assert (home / "mlflow" / "mlflow.db").exists()


def test_a_fault_inside_is_raised_and_its_run_marked_failed(home: Path) -> None:
    with pytest.raises(ValueError, match="diverged"), tracked(home, "x", {}, data="d"):
        raise ValueError("diverged")

    (kept,) = runs_of(home, "x")
    assert kept.info.status == "FAILED"  # type: ignore[attr-defined]


def test_a_mirror_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    logs.configure(tmp_path / "logs", process="test", session="test")
    (tmp_path / "mlflow").write_text("a file where the folder should be")

    with tracked(tmp_path, "x", {}, data="d") as run:
        run.log({"loss": 1.0})

    told = (tmp_path / "logs" / "test.jsonl").read_text().splitlines()
    assert json.loads(told[-1])["event"] == "run not mirrored"


def test_nothing_is_printed_and_no_library_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from experiments.tracking import tracked\n"
        "assert 'mlflow' not in sys.modules\n"
        f"with tracked(pathlib.Path({str(tmp_path)!r}), 'x', {{}}, data='d') as run:\n"
        "    assert 'mlflow' not in sys.modules\n"
        "    run.log({'loss': 1.0})\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("", "")
