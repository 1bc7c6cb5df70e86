"""Mirror what was tried in MLflow: SQLite and local files, nothing over a network.

The registry is the truth; a mirror that cannot be written stops no training.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphapulse import logs
from alphapulse.storage.run import source_commit

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

# Read by mlflow when it is imported, which takes a second: only where something is tracked.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
MAX_BATCH = 1_000  # metrics MLflow takes in one call
_log = logs.get_logger("tracking")


class Tracked:
    """One run of an experiment; its metrics are written when it ends."""

    def __init__(self) -> None:
        self._metrics: list[tuple[str, float, int, int]] = []
        self._tags: dict[str, str] = {}

    def log(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Take note of numbers by name at a step; what is not finite is left out."""
        now_ms = round(time.time() * 1000)
        self._metrics += [
            (name, float(value), now_ms, step)
            for name, value in metrics.items()
            if abs(value) < float("inf")
        ]

    def tag(self, **tags: str) -> None:
        """Add tags, such as the verdict."""
        self._tags |= tags

    def metrics(self) -> list[Metric]:
        """Return the numbers as MLflow takes them."""
        from mlflow.entities import Metric

        return [Metric(*metric) for metric in self._metrics]

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags added."""
        return dict(self._tags)


@contextmanager
def tracked(
    home: Path, experiment: str, params: Mapping[str, Any], *, data: str
) -> Iterator[Tracked]:
    """Mirror what happens inside as one run of `experiment`, under HOME/mlflow.

    ```python
    with tracked(home, "cnn rounds", {"rate": 1e-3}, data="run 1 until ...") as run:
        run.log({"loss": 0.7}, step=1)
    ```

    The body runs first and does not wait for MLflow, whose first start in a home takes seconds.
    An error of the body ends the run as failed and is raised; one of MLflow is logged.

    Args:
        home: whose mirror it is.
        experiment: name.
        params: settings of the run.
        data: range of the data behind it, as a tag; the commit is the other one.
    """
    run, began_ms, status = Tracked(), round(time.time() * 1000), "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        tags = {"commit": source_commit(), "data": data, **run.tags}
        try:
            with _no_warnings():
                _write(home, experiment, params, run, began_ms=began_ms, status=status, tags=tags)
        except Exception as error:  # whatever MLflow or its database say, the work is done
            _log.warning("run not mirrored", experiment=experiment, **logs.describe(error))


def client(home: Path) -> MlflowClient:
    """Return the client of the mirror of `home`, made now if there is none."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with _no_warnings():
        return _client(home)


def _client(home: Path) -> MlflowClient:
    from mlflow import MlflowClient

    (home / "mlflow").mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{(home / 'mlflow' / 'mlflow.db').resolve()}")


def count(home: Path, experiment: str) -> int:
    """Return how many runs an experiment has been given so far."""
    mirror = client(home)
    with _no_warnings():
        found = mirror.get_experiment_by_name(experiment)
        if found is None:
            return 0
        return len(mirror.search_runs([found.experiment_id], max_results=50_000))


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # mlflow 3.17 uses what SQLAlchemy 2.1 is going to drop; nothing we could do about it
        warnings.simplefilter("ignore")
        yield


def _write(
    home: Path,
    experiment: str,
    params: Mapping[str, Any],
    run: Tracked,
    *,
    began_ms: int,
    status: str,
    tags: Mapping[str, str],
) -> None:
    from mlflow.exceptions import MlflowException

    mirror = client(home)
    artifacts = (home / "mlflow" / "artifacts").resolve().as_uri()
    try:
        id = mirror.create_experiment(experiment, artifact_location=artifacts)
    except MlflowException:  # it is there, or another process has just made it
        id = mirror.get_experiment_by_name(experiment).experiment_id
    begun = mirror.create_run(id, start_time=began_ms, tags=dict(tags), run_name=tags["data"])
    started = begun.info.run_id
    for name, value in params.items():
        mirror.log_param(started, name, value)
    metrics = run.metrics()
    for i in range(0, len(metrics), MAX_BATCH):
        mirror.log_batch(started, metrics=metrics[i : i + MAX_BATCH])
    mirror.set_terminated(started, status=status)
