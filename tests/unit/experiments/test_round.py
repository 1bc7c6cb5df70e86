"""A round ends with what is true: who answers stays champion, and who conducted it can be found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.learning.promotion import Verdict
from alphapulse.models.checkpoints import Entry, Registry
from alphapulse.models.rl import RL
from alphapulse.models.rounds import Rounds
from experiments.round import NICE, conducted

ASKED = TrainingRound(
    run="r", model="rl", confirm_ns=1, trigger="", state=RoundState.RUNNING, champion="before"
)
ENTRY = {"data_hash": "d", "config_hash": "c", "created_event_ns": 1, "metrics": {}}


@pytest.mark.parametrize(("promoted", "role"), [(True, "challenger"), (False, "rejected")])
def test_a_verdict_makes_nobody_champion(tmp_path: Path, promoted: bool, role: str) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.register(Entry(id="before", model="rl", role="champion", **ENTRY))  # type: ignore[arg-type]

    with conducted(tmp_path, ASKED) as under_way:
        under_way.enter(RL.fresh(seed=1), home=tmp_path, entry=ENTRY)
        under_way.conclude(Verdict(promoted, 1.0, 0.0, 0, "because"))

    roles = {entry.id: entry.role for entry in registry.entries()}
    assert roles == {"before": "champion", under_way.round.challenger: role}
    state = RoundState.PROMOTED if promoted else RoundState.REJECTED
    assert under_way.round.state is state


def test_a_round_begun_by_hand_says_which_process_it_is(tmp_path: Path) -> None:
    with conducted(tmp_path, ASKED) as under_way:
        under_way.conclude(Verdict(False, 1.0, 0.0, 0, "because"))

    (kept,) = Rounds(tmp_path / "registry.sqlite").all()
    created_s = int(psutil.Process().create_time())
    assert kept.job == f"process {os.getpid()} {created_s} on {socket.gethostname()}"


@pytest.mark.parametrize("already", [0, NICE])
def test_a_trainer_is_as_nice_as_it_should_be_and_no_nicer(already: int) -> None:
    told = "import os, experiments.round as r; r.become_a_trainer(); print(os.nice(0))"
    command = ["nice", "-n", str(already), sys.executable, "-c", told]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert int(done.stdout) == min(19, max(NICE, os.nice(0) + already))
