"""A round is failed only where its process is gone, never because somebody did not answer."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import psutil
import pytest

from actors.jobs import Jobs
from alphapulse.domain.errors import Unavailable
from tests.unit.actors.launches import a_launch

CREATED = int(psutil.Process().create_time())
HERE = socket.gethostname()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("job", "is_gone"),
    [
        (f"process {os.getpid()} {CREATED} on {HERE}", False),
        (f"process {os.getpid()} {CREATED - 1} on {HERE}", False),  # the clock was set
        (f"process {os.getpid()} {CREATED - 9} on {HERE}", True),  # the number was given again
        (f"process {os.getpid()} {CREATED} on another-{HERE}", True),
    ],
)
def test_round_begun_by_hand_lives_as_long_as_its_process(
    tmp_path: Path, job: str, is_gone: bool
) -> None:
    ended = asyncio.run(Jobs(a_launch(tmp_path)).ended(job))

    assert ended == ("its process is gone" if is_gone else None)


def test_job_server_that_does_not_answer_fails_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    jobs = Jobs(a_launch(tmp_path, jobs_port=free_port()))

    with pytest.raises(Unavailable, match="job server: expected an answer"):
        asyncio.run(jobs.ended("raysubmit_1"))
