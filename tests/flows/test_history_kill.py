"""What the history acknowledged survives kills at any moment, and disks that fail meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.history_faults.faulting import can_run_apart
from tests.flows.history_faults.planted import PLANTS
from tests.flows.history_faults.tallying import DEFECTS

ROOT = Path(__file__).parents[2]
LONGEST_S = 600
pytestmark = pytest.mark.slow


def kill(kills: int, *options: str) -> dict[str, Any]:
    """Return the figures of so many kills."""
    command = [sys.executable, "-m", "tests.flows.history_faults", f"--kills={kills}", "--json"]
    ended = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S
    )
    assert ended.stdout, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == any(figures[name] for name in DEFECTS), ended.stderr
    return figures


def assert_nothing_wrong(figures: dict[str, Any]) -> None:
    assert {name: figures[name] for name in DEFECTS} == dict.fromkeys(DEFECTS, 0), figures["said"]


def test_what_was_acknowledged_survives_fifty_kills() -> None:
    figures = kill(50, "--seed=20240806")

    assert_nothing_wrong(figures)
    assert figures["inside_a_commit_or_compaction"] >= 15
    assert figures["decisions_acknowledged"] > 500
    assert figures["batches"] >= 10


@pytest.mark.parametrize("error", ["enospc", "eio"])
def test_what_was_acknowledged_survives_calls_that_fail(error: str) -> None:
    figures = kill(30, f"--disk={error}", "--seed=20240807")

    assert_nothing_wrong(figures)
    assert figures["refused"] > 100
    assert sum(count for name, count in figures.items() if name.startswith("faults_")) > 100
    assert figures["recoveries"] > 4


def test_what_was_acknowledged_survives_a_disk_without_room() -> None:
    if not can_run_apart():
        pytest.skip("needs the right to mount a file system (unshare --user --mount)")

    figures = kill(25, "--disk=full", "--seed=20240808")

    assert_nothing_wrong(figures)
    assert figures["refused"] > 100
    assert figures["recoveries"] > 4


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_planted_in_the_history_is_seen(plant: str) -> None:
    _, defects = PLANTS[plant]

    figures = kill(150, f"--plant={plant}")

    assert any(figures[defect] for defect in defects)
