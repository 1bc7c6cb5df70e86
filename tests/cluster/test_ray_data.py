"""Ray Data reads the lake on any node of a cluster, in a folder and in an object store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.upkeep import Upkeep
from tests.flows.object_store import BUCKET, aws, object_store
from tests.unit.storage.lake.lakes import journal_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# As in docs/lake.md. The node of the driver has no CPU, so that the other one reads.
READER = """
import json, sys
import ray
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
cluster.add_node(num_cpus=1, object_store_memory=100 * 1024**2)
ray.init(address=cluster.address, log_to_driver=False)
from alphapulse.storage.lake.object_store import storage_options
uri = sys.argv[1]
stored = ray.data.read_delta(f"{uri}/inferences", storage_options=storage_options(uri))
here = ray.get_runtime_context().get_node_id()
def seen(batch):
    import ray
    elsewhere = ray.get_runtime_context().get_node_id() != here
    return {"id": batch["id"], "symbol": batch["symbol"], "p_buy": batch["p_buy"],
            "elsewhere": [elsewhere] * len(batch["id"])}
print(json.dumps(stored.map_batches(seen).take_all()))
ray.shutdown()
cluster.shutdown()
"""


def read(uri: str, environ: dict[str, str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short, for its sockets
        alone = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}  # other clusters go on
        ended = subprocess.run(
            [sys.executable, "-c", READER, uri],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environ, **alone},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("[{")]
    assert lines, ended.stdout + ended.stderr
    rows: list[dict[str, Any]] = json.loads(lines[-1])
    return rows


def moved(lake: Lake, folder: Path) -> list[tuple[str, str, float]]:
    """Move a journal to the lake, keep it up, and return what every inference is to be."""
    journal: Journal = journal_of(folder / "journal.sqlite", seconds=20, batches=4)
    lake.take(journal, writer=journal.name())
    upkeep = Upkeep(Lake(lake.uri))
    while upkeep.step(everything=True):
        pass
    rows = journal.fetch("SELECT id, symbol, p_buy FROM inferences", {})
    journal.close()
    return sorted(rows)


def assert_read_elsewhere(
    rows: list[dict[str, Any]], expected: list[tuple[str, str, float]]
) -> None:
    assert sorted((row["id"], row["symbol"], row["p_buy"]) for row in rows) == expected
    assert all(row["elsewhere"] for row in rows)


def test_a_folder_is_read_on_any_node(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    expected = moved(lake, tmp_path)

    assert_read_elsewhere(read(lake.uri, {}), expected)


def test_an_object_store_is_read_on_any_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store() as endpoint:
        for name, value in aws(endpoint).items():
            monkeypatch.setenv(name, value)
        lake = Lake(f"s3://{BUCKET}/lake")
        expected = moved(lake, tmp_path)

        rows = read(lake.uri, aws(endpoint))

    assert_read_elsewhere(rows, expected)
