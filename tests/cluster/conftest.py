"""Run `alphapulse up` as a user does, each in a home and on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ALPHAPULSE = str(Path(sys.executable).with_name("alphapulse"))
FIRST_DECISION_S = 120  # a shared machine may be slow; the benchmark holds the goal
RUN_S = 420
# The first gate only ever sells, and rarely surely: on a venue that permits shorts, with thresholds
# at their lowest and stops that seconds reach, it enters and is stopped out all the time.
EAGER = {
    "ALPHAPULSE__DECISION__ENTRY_THRESHOLD": "0",
    "ALPHAPULSE__DECISION__EXIT_THRESHOLD": "0",
    "ALPHAPULSE__TRADING__ALLOW_SHORT": "true",
    "ALPHAPULSE__RISK__STOP_R": "0.005",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class UpProcess:
    """One `alphapulse up` in the background."""

    def __init__(
        self,
        home: Path,
        recording: Path,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        training: bool = False,
        dashboard: bool = False,
    ) -> None:
        self.home = home
        self.port, self.jobs_port, self.page_port = free_port(), free_port(), free_port()
        self.environ = {
            **os.environ,
            "ALPHAPULSE__SERVER__HTTP_PORT": str(self.port),
            "ALPHAPULSE__SERVER__DASHBOARD_PORT": str(self.jobs_port),
            "ALPHAPULSE__SERVER__MONITOR_PORT": str(self.page_port),
            **(settings or {}),
        }
        self.command = [ALPHAPULSE, "up", "--recording", str(recording), "--home", str(home)]
        self.command += ["--json", *arguments]
        self.command += [] if training else ["--no-training"]
        self.command += [] if dashboard else ["--no-dashboard"]
        self.process = subprocess.Popen(
            self.command,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def pages(self) -> list[psutil.Process]:
        """Return the processes of the monitor's page that live."""
        found = []
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
                if "streamlit" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Return exit code, summary and what stood on stderr once it has ended by itself."""
        out, err = self.process.communicate(timeout=RUN_S)
        assert out.startswith("{"), f"{self.process.returncode}: expected JSON, was {out!r}: {err}"
        return self.process.returncode, json.loads(out), err

    def interrupt(self) -> tuple[int, dict[str, Any], str]:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def kill_everything(self) -> None:
        family = self.family
        for process in [psutil.Process(self.process.pid), *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.process.communicate()

    def get(self, path: str, *, token: bool = True) -> httpx.Response:
        return self.request("GET", path, token=token)

    def request(self, method: str, path: str, *, token: bool = True, **more: Any) -> httpx.Response:
        given = (self.home / "token").read_text().strip() if token else ""
        return httpx.request(
            method,
            f"http://127.0.0.1:{self.port}/api/v1/{path}",
            headers={"Authorization": f"Bearer {given}"} if token else {},
            timeout=30,
            **more,
        )

    def alphapulse(self, *words: str) -> dict[str, Any]:
        """Return what a command answers that is given in the home of this `up`."""
        asked = [ALPHAPULSE, *words, "--json", "--home", str(self.home)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, env=self.environ)
        assert done.returncode == 0, f"{words}: {done.returncode}: {done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def wait_until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the trader's status as soon as `reached` says so."""
        status = self.wait_for(lambda status: reached(status["trader"]))
        trader: dict[str, Any] = status["trader"]
        return trader

    def wait_for(
        self, reached: Callable[[dict[str, Any]], bool], *, within_s: float = FIRST_DECISION_S
    ) -> dict[str, Any]:
        """Return the whole status as soon as `reached` says so."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()[1]
            try:
                answer = self.get("status")
            except (httpx.HTTPError, FileNotFoundError):
                answer = None
            if answer is not None and answer.status_code == 200:
                status: dict[str, Any] = answer.json()
                if reached(status):
                    return status
            time.sleep(0.1)
        raise AssertionError(f"not reached within {within_s} s")


def num_decisions(trader: dict[str, Any]) -> int:
    return sum(sum(actions.values()) for actions in trader["decisions"].values())


@pytest.fixture(scope="session")
def start_up(recordings: Path) -> Iterator[Callable[..., UpProcess]]:
    started: list[UpProcess] = []

    def start(home: Path, *arguments: str, **more: Any) -> UpProcess:
        started.append(UpProcess(home, recordings, *arguments, **more))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.kill_everything()


@pytest.fixture(scope="session")
def trained(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the first checkpoints and nothing else."""
    home = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "experiments.first_training", "--home", str(home)]
    subprocess.run([*command, "--recording", str(recordings)], check=True, capture_output=True)
    return home


@pytest.fixture(scope="session")
def new_home(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        home = tmp_path_factory.mktemp(name)
        shutil.copytree(trained, home, dirs_exist_ok=True)
        return home

    return make


@pytest.fixture(scope="session")
def whole(
    start_up: Callable[..., UpProcess], new_home: Callable[[str], Path]
) -> tuple[Path, dict[str, Any]]:
    """The home and the summary of one uninterrupted, eager run over the whole recording."""
    home = new_home("whole")
    code, summary, err = start_up(home, "--speed", "max", settings=EAGER).end()
    assert code == 0, err
    return home, summary
