"""A retention that is killed at any step has lost and doubled nothing once it is run again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from alphapulse.config import Storage
from alphapulse.storage.home import Home
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.pruning import Pruning
from tests.unit.storage.records import SYMBOLS
from tests.unit.storage.retention.past import bits, everything, in_lake, made, seconds, stored

REMOVING = ("begun", "removing", "removed inferences", "removed from journals", "removed rows")
ARCHIVING = ("archived packages", "archived rows", "verified", "removed packages",
             "removed examples")  # fmt: skip
PRUNER = """
import os, signal, sys
from pathlib import Path
from alphapulse.config import Storage
from alphapulse.storage.home import Home
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.pruning import Pruning
path, settings, fatal = Path(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
def step(name):
    if name == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
Pruning(Home(path), lake=Lake(str(path / "lake")), settings=settings, step=step).prune()
"""


@pytest.mark.parametrize(
    ("fatal", "archive"),
    [*((step, "") for step in (*REMOVING, *ARCHIVING)), *((step, "none") for step in REMOVING)],
)
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, fatal: str, archive: str
) -> None:
    made(tmp_path)
    settings = Storage(
        max_decisions=8, audit_share=0.0, archive_uri=archive, disk_free_pct=0.0, disk_free_gb=0.0
    )
    before = everything(tmp_path)

    killed = subprocess.run(
        [sys.executable, "-c", PRUNER, str(tmp_path), repr(settings), fatal], check=False
    )
    Pruning(Home(tmp_path), lake=Lake(str(tmp_path / "lake")), settings=settings).prune()

    assert killed.returncode == -signal.SIGKILL
    kept = {symbol: [8, 9, 10, 11] for symbol in SYMBOLS}
    assert seconds(stored(tmp_path, "packages")) == kept
    if not archive:
        assert everything(tmp_path) == before
        assert max(Counter(bits(in_lake(tmp_path / "archive", "rows"))).values()) == 1
    assert not (tmp_path / "retention" / "round.json").exists()
