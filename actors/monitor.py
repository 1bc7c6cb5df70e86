"""Run the monitor's page as a child: started, watched, ended as people wish; nobody needs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from actors.head import die_with_parent, require_free
from alphapulse import logs
from alphapulse.config import Server
from alphapulse.dashboard.launch import command, environment
from alphapulse.storage.control import Control

HOST = "127.0.0.1"  # whatever the API listens on: the page acts for whoever reaches it
STOP_S = 5.0
log = logs.get_logger("main")


class Monitor:
    """The page's process; one that died is started again, unless people want it stopped."""

    def __init__(self, home: Path, server: Server, control: Control, *, api_url: str) -> None:
        self._home, self._server, self._control = home, server, control
        self._api_url = api_url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return where the page is."""
        return f"http://{HOST}:{self._server.monitor_port}"

    def keep(self) -> None:
        """Start the page if it is wanted and not there, end it if it is not wanted."""
        is_running = self._process is not None and self._process.poll() is None
        if self._control.is_wanted("dashboard"):
            if not is_running:
                self._start()
        elif is_running:
            self.stop()

    def stop(self) -> None:
        """End the page, if it is there."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> None:
        if self._process is not None:
            log.warning("monitor ended by itself", returncode=self._process.returncode)
        server = self._server
        with (self._home / "logs" / "monitor.log").open("ab") as out:
            self._process = subprocess.Popen(
                command(self._home, self._api_url, HOST, server.monitor_port),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(self._home, self._api_url, os.environ),
                start_new_session=True,  # Ctrl-C ends us first, and we end the page
                preexec_fn=die_with_parent,
            )
        log.info("monitor started", pid=self._process.pid, url=self.url)


def require_page_port(server: Server) -> None:
    """Raise PortTaken unless the page's port is free."""
    require_free(HOST, server.monitor_port, setting="SERVER__MONITOR_PORT")
