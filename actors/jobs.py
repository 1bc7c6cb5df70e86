"""Submit training to the cluster as Ray jobs, niced, and say how they ended."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys

import psutil
from ray.job_submission import JobStatus, JobSubmissionClient

from actors.launch import Launch
from alphapulse.domain.learning import TrainingRound

NICE = "nice -n 10"  # decisions keep their latency


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
        return await asyncio.to_thread(lambda: self._connected().submit_job(entrypoint=entrypoint))

    async def ended(self, job: str) -> str | None:
        """Return how a job ended, None while it has not."""
        return await asyncio.to_thread(self._ended, job)

    def _ended(self, job: str) -> str | None:
        if job.startswith("process "):  # begun by hand: `process PID on HOST`
            _, pid, _, host = job.split()
            gone = host == socket.gethostname() and not psutil.pid_exists(int(pid))
            return "its process is gone" if gone else None
        try:
            info = self._connected().get_job_info(job)
        except RuntimeError as error:  # a cluster that does not know it: it went with its head
            return f"its cluster is gone: {str(error).splitlines()[0]}"
        if not info.status.is_terminal():
            return None
        if info.status is JobStatus.SUCCEEDED:
            return "its process ended without a verdict"
        return f"its process ended: {info.status.value} {info.message or ''}".strip()

    def _connected(self) -> JobSubmissionClient:
        if self._client is None:
            port = self._launch.settings.server.dashboard_port
            address = os.environ.get("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{port}")
            self._client = JobSubmissionClient(address)
        return self._client
