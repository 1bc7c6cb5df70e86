"""Bring a run up, watch over it, and take it down: the composition root."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live as LiveLine
from rich.text import Text

from actors.head import Head, authorize, require_free
from actors.monitor import Monitor, require_page_port
from actors.report import status_text, summary
from actors.source import Asked, open_run
from alphapulse import logs
from alphapulse.assembly import stopped_desk
from alphapulse.config import load_settings
from alphapulse.domain.errors import ClusterError
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home, Run

MAX_RESTARTS = 3  # of the head within one `up`
log = logs.get_logger("main")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What `alphapulse up` was asked for.

    Attributes:
        source: `auto`, `live` or `recording`.
        recording: folder given with --recording, or None.
        exchange: ccxt id given with --exchange, or None.
        speed: event time over wall time; 0 is as fast as it goes.
        for_s: wall seconds after which it ends by itself, or None.
        fresh: start the next run instead of continuing.
        dashboard: open the monitor too.
        training: whether rounds of training may be started.
    """

    home: Path
    source: str = "auto"
    recording: Path | None = None
    exchange: str | None = None
    speed: float = 0.0
    for_s: float | None = None
    fresh: bool = False
    dashboard: bool = True
    training: bool = True


class Up:
    """One `alphapulse up`, from the checks before it starts to the summary after its end."""

    def __init__(self, options: UpOptions, *, started_at_s: float) -> None:
        self._options = options
        self._started_at_s = started_at_s
        self._console = Console(stderr=True)
        self._home = Home(options.home)
        self._session = uuid.uuid4().hex[:12]
        self._settings = load_settings(self._home.path)
        if options.exchange is not None:
            market = dataclasses.replace(self._settings.market, exchanges=(options.exchange,))
            self._settings = dataclasses.replace(self._settings, market=market)
        self._stop_asked = False
        self._began_at_s = started_at_s
        self._recording: Path | None = None
        self._monitor: Monitor | None = None

    def run(self) -> dict[str, Any]:
        """Return the summary; raises the AlphaPulseError that prevented or ended the run."""
        # stdout is for the answer alone; Ray prints there what happens to its workers
        with contextlib.redirect_stdout(sys.stderr), self._home.lock():
            logs.configure(self._home.path / "logs", process="main", session=self._session)
            asked = Asked(
                source=self._options.source,
                recording=self._options.recording,
                fresh=self._options.fresh,
            )
            prepared, self._recording = open_run(self._home, self._settings, asked, say=self._say)
            if prepared.ended_ns is not None:
                self._say(
                    f"run {prepared.number} of this recording has ended: nothing left to replay; "
                    "`alphapulse up --fresh` starts the next"
                )
                return self._summary(prepared, asyncio.run(self._account_of(prepared)), {}, {})
            self._require_ports()
            return asyncio.run(self._supervise(prepared))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _require_ports(self) -> None:
        server = self._settings.server
        require_free(server.host, server.http_port, setting="SERVER__HTTP_PORT")
        if not self._settings.ray.address and not os.environ.get("RAY_ADDRESS"):
            require_free("127.0.0.1", server.dashboard_port, setting="SERVER__DASHBOARD_PORT")
        if self._options.dashboard:
            require_page_port(server)

    async def _supervise(self, run: Run) -> dict[str, Any]:
        """Keep the run on a cluster until it ends; a head that dies is replaced."""
        self._listen()
        if self._options.dashboard:
            control = Control(self._home.control_path)
            self._monitor = Monitor(
                self._home.path, self._settings.server, control, api_url=self._api_url()
            )
        try:
            return await self._replacing_heads(run)
        finally:
            if self._monitor is not None:
                self._monitor.stop()

    async def _replacing_heads(self, run: Run) -> dict[str, Any]:
        for _ in range(MAX_RESTARTS + 1):
            try:
                return await self._on_cluster(run)
            except HeadDied as error:
                if self._stop_asked:
                    return self._summary(run, await self._account_of(run), {}, {})
                log.error("head died", **logs.describe(error), remedy="none: it is being restarted")
                self._say("the Ray head died: starting another and going on")
        raise ClusterError(
            f"Ray head: expected to stay up, died {MAX_RESTARTS + 1} times; "
            f"see {self._home.path / 'logs' / 'ray_head.log'}"
        )

    async def _on_cluster(self, run: Run) -> dict[str, Any]:
        address = self._settings.ray.address or os.environ.get("RAY_ADDRESS", "")
        head = None
        if not address:
            authorize(self._home.path)
            head = Head(self._home.path, self._settings)
        try:
            importlib.import_module("actors.session")  # takes a second, while the head starts
            if head is not None:
                log.info("head started", pid=head.pid)
                await asyncio.to_thread(head.wait)
                log.info("head answers", address=head.address)
            return await self._with_head(run, head, address)
        finally:
            if head is not None:
                head.stop()

    async def _with_head(self, run: Run, head: Head | None, address: str) -> dict[str, Any]:
        session_module = importlib.import_module("actors.session")
        cluster = importlib.import_module("alphapulse.cluster")
        where = head.address if head is not None else address
        await asyncio.to_thread(cluster.connect, where)
        self._listen()
        log.info("joined the cluster", address=where)
        session = session_module.Session(self._launch(run), self._graph_args(run))
        try:
            await session.start()
            self._listen()
            log.info("ready")
            self._announce(run, where)
            with self._status_line() as show:
                await self._watch(session, head, show)
            ended = await session.end(say=self._say, stop_asked=lambda: self._stop_asked)
            if head is None:
                session.remove()
            return self._summary(run, *ended)
        except Exception as error:
            if head is not None and not head.is_running:
                raise HeadDied(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            cluster.disconnect()

    async def _watch(self, session: Any, head: Head | None, show: Callable[..., None]) -> None:
        """Return when the run has ended; raises HeadDied as soon as the head is gone."""
        running = asyncio.ensure_future(session.run(stop_asked=self._stop_due, show=show))
        while not running.done():
            if self._monitor is not None:
                self._monitor.keep()
            await asyncio.wait([running], timeout=1.0)
            if head is not None and not head.is_running:
                running.cancel()
                raise HeadDied("the control store or the node's daemon is gone")
        await running

    def _listen(self) -> None:
        """Take Ctrl-C and `down` as a wish to end; Ray's own handlers, set at each join, abort."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ask_stop)

    def _ask_stop(self) -> None:
        self._stop_asked = True

    def _stop_due(self) -> bool:
        limit = self._options.for_s
        return self._stop_asked or (limit is not None and time.time() - self._began_at_s >= limit)

    def _launch(self, run: Run) -> Any:
        launch = importlib.import_module("actors.launch")
        return launch.Launch(
            home=str(self._home.path),
            session=self._session,
            recording=str(self._recording or ""),
            venue="" if self._recording else run.manifest.recording,
            run=run.id,
            run_number=run.number,
            checkpoints=dict(run.manifest.checkpoints),
            speed=self._options.speed,
            training=self._options.training,
            settings=self._settings,
        )

    def _graph_args(self, run: Run) -> dict[str, Any]:
        return {
            "home": str(self._home.path),
            "session": self._session,
            "run": {
                "id": run.id,
                "number": run.number,
                "recording": run.manifest.recording,
                "off": self._off(),
            },
            "settings": self._settings,
            "checkpoints": dict(run.manifest.checkpoints),
        }

    def _off(self) -> list[str]:
        """Return the processes this `up` was told to leave out."""
        asked = {"training": self._options.training, "dashboard": self._options.dashboard}
        return [name for name, is_there in asked.items() if not is_there]

    def _api_url(self) -> str:
        server = self._settings.server
        return f"http://{server.host}:{server.http_port}/api/v1"

    def _announce(self, run: Run, address: str) -> None:
        server, base = self._settings.server, self._api_url()
        urls = {"api": base, "docs": f"{base}/docs", "ray": address}
        if self._monitor is not None:
            urls = {"monitor": self._monitor.url} | urls
        if not (self._settings.ray.address or os.environ.get("RAY_ADDRESS")):
            urls["ray dashboard"] = f"http://127.0.0.1:{server.dashboard_port}"
        self._home.announce({"urls": urls, "run": run.id, "pid": os.getpid()})
        self._say(f"run {run.number} ({run.id})")
        for name, url in urls.items():
            self._say(f"  {name}: {url}")
        self._say(f"  token: {self._home.path / 'token'}")
        self._began_at_s = time.time()

    @contextlib.contextmanager
    def _status_line(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        with LiveLine(console=self._console, auto_refresh=False, transient=True) as line:
            yield lambda status: line.update(Text(status_text(status)), refresh=True)

    async def _account_of(self, run: Run) -> dict[str, Any]:
        """Return what the ledger of a run says that nobody works on any more."""
        if not (run.path / "ledger.sqlite").exists():
            return {}
        desk = await stopped_desk(run, self._settings)
        return desk.summary()

    def _summary(
        self, run: Run, trader: dict[str, Any], feed: dict[str, Any], learning: dict[str, Any]
    ) -> dict[str, Any]:
        errors = logs.read_errors(self._home.path / "logs", session=self._session)
        return summary(
            run,
            trader=trader,
            feed=feed,
            learning=learning,
            num_errors=sum(row.count for row in errors),
            started_at_s=self._started_at_s,
        )


class HeadDied(ClusterError):
    """The Ray head this process started is gone."""
