"""Submit training to the cluster as Ray jobs, niced, and say how they ended."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import Callable
from typing import Any

import psutil
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from actors.launch import Launch
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.learning import TrainingRound

NICE = "nice -n 10"  # decisions keep their latency
CLOCK_S = 3.0  # when a process began is told by the clock, which may have been set since


class Jobs:
    """The jobs of one run, by the job server of the cluster it works on."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._client: JobSubmissionClient | None = None

    async def submit(self, round: TrainingRound, *, until_ns: int) -> str:
        """Submit the training of a round and return the id of its job.

        Args:
            round: what it is for.
            until_ns: newest event time it may know [ns UTC].
        """
        words = [sys.executable, "-m", f"experiments.train_{round.model}"]
        words += ["--home", self._launch.home, "--run", str(self._launch.run_number)]
        words += ["--until", str(until_ns), "--confirm-ns", str(round.confirm_ns)]
        words += ["--trigger", round.trigger, "--champion", round.champion]
        entrypoint = f"{NICE} {shlex.join(words)}"
        return str(await self._ask(lambda client: client.submit_job(entrypoint=entrypoint)))

    async def ended(self, job: str) -> str | None:
        """Return how a job ended, None while it has not; raises Unavailable if nobody answers.

        A round begun by hand has the job `process PID CREATED on HOST`.
        """
        if job.startswith("process "):
            _, pid, created, _, host = job.split()
            return None if _lives(int(pid), int(created), host) else "its process is gone"
        info = await self._ask(lambda client: _info_of(client, job))
        if info is None:  # it went with the head that knew it
            return "its cluster is gone"
        if not info.status.is_terminal():
            return None
        if info.status is JobStatus.SUCCEEDED:
            return "its process ended without a verdict"
        return f"its process ended: {info.status.value} {info.message or ''}".strip()

    async def _ask(self, question: Callable[[JobSubmissionClient], Any]) -> Any:
        try:
            return await asyncio.to_thread(lambda: question(self._connected()))
        except (RuntimeError, OSError) as error:  # ray raises RuntimeError for every answer but 200
            raise Unavailable(
                f"job server: expected an answer, was {type(error).__name__}: "
                f"{str(error).splitlines()[0]}; it is asked again"
            ) from error

    def _connected(self) -> JobSubmissionClient:
        if self._client is None:
            port = self._launch.settings.server.dashboard_port
            address = os.environ.get("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{port}")
            self._client = JobSubmissionClient(address)
        return self._client


def _info_of(client: JobSubmissionClient, job: str) -> JobDetails | None:
    """Return what the job server knows of a job, None if it does not know it."""
    return next((info for info in client.list_jobs() if info.submission_id == job), None)


def _lives(pid: int, created_s: int, host: str) -> bool:
    if host != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(pid).create_time() - created_s) < CLOCK_S
    except psutil.NoSuchProcess:
        return False
