"""Start the Ray head as a child and end it: nothing else restarts a dead control store."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from alphapulse.config import Settings
from alphapulse.domain.errors import ClusterError, PortTaken

START_S = 60.0  # a head that does not answer by then never will
STOP_S = 3.0  # what must survive is durable already
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# what RAY_SERVE_THROUGHPUT_OPTIMIZED would set, less what opens ports on every interface
SERVE_FLAGS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
}
PROCESS_FLAGS = {
    "OMP_NUM_THREADS": "1",  # the cores are shared by all processes
    "MKL_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own 15 would put decisions behind any trainer
}


def require_free(host: str, port: int, *, setting: str) -> None:
    """Raise PortTaken unless `port` can be bound on `host`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} on {host}: expected a free port, was taken ({error.strerror}); "
                f"end the process that holds it or choose another with ALPHAPULSE__{setting}"
            ) from None


def free_port() -> int:
    """Return a port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def authorize(home: Path) -> None:
    """Point this process and its children to the home's Ray token (0600, made at first use)."""
    path = home / "ray_token"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path.resolve())


class Head:
    """A Ray head that lives and dies with this process."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home = home
        self._file = home / "head.json"
        _end_leftover(self._file)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._log_path = home / "logs" / "ray_head.log"
        self._process = subprocess.Popen(
            _command(port, settings),
            stdin=subprocess.DEVNULL,
            stdout=self._log_path.open("ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, **SERVE_FLAGS, **PROCESS_FLAGS},
            start_new_session=True,  # Ctrl-C ends us first, and we end the head
            preexec_fn=die_with_parent,
        )
        _remember(self._file, self._process.pid)

    @property
    def pid(self) -> int:
        """Return the process id of the child."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the child lives."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Return once the control store accepts connections; else raises ClusterError."""
        host, port = self.address.split(":")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self.is_running:
                break
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.05)
        state = "did not answer" if self.is_running else f"ended with {self._process.returncode}"
        raise ClusterError(
            f"Ray head: expected it to answer at {self.address} within {START_S:.0f} s, "
            f"it {state}; see {self._log_path}"
        )

    def stop(self) -> None:
        """End the head and every process of it."""
        family = _family(self._process.pid)
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _kill(family)
        self._file.unlink(missing_ok=True)


def _command(port: int, settings: Settings) -> list[str]:
    cpus = settings.ray.num_cpus or os.cpu_count() or 1
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--no-monitor",  # nothing to autoscale on one machine
        f"--ray-client-server-port={free_port()}",  # Ray starts it in any case
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--num-cpus={cpus}",
        f"--object-store-memory={settings.ray.object_store_mb * 2**20}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={settings.server.dashboard_port}",
    ]


def die_with_parent() -> None:
    """Have the kernel end this child when its parent ends, however that ends."""
    ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)


def _remember(path: Path, pid: int) -> None:
    path.write_text(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}))


def _end_leftover(path: Path) -> None:
    """End the head that a killed `up` left behind, if the process is still that one."""
    if not path.exists():
        return
    written: Mapping[str, float] = json.loads(path.read_text())
    try:
        process = psutil.Process(int(written["pid"]))
    except psutil.NoSuchProcess:
        return
    if abs(process.create_time() - written["created"]) < 1:
        family = process.children(recursive=True)
        process.kill()
        _kill([process, *family])
