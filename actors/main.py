"""Bring a run up, watch over it, and take it down: the composition root."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live as LiveLine
from rich.table import Table
from rich.text import Text

from actors.head import Head, authorize, require_free
from alphapulse import logs
from alphapulse.config import load_settings
from alphapulse.domain.errors import ClusterError, NoData
from alphapulse.domain.inference import MODELS
from alphapulse.storage.home import Home, Run

POLL_S = 0.5  # between two looks at the trader
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
        as_json: print the summary as JSON, and nothing else, on stdout.
    """

    home: Path
    source: str = "auto"
    recording: Path | None = None
    exchange: str | None = None
    speed: float = 0.0
    for_s: float | None = None
    fresh: bool = False
    dashboard: bool = True
    as_json: bool = False


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
            market = dataclasses.replace(self._settings.market, exchange=options.exchange)
            self._settings = dataclasses.replace(self._settings, market=market)
        self._stop_asked = False
        self._began_at_s = started_at_s
        self._recording: Path | None = None

    def run(self) -> dict[str, Any]:
        """Return the summary; raises the AlphaPulseError that prevented or ended the run."""
        with self._home.lock():
            logs.configure(self._home.path / "logs", process="main", session=self._session)
            recording = self._choose_source()
            prepared = self._prepare(recording)
            if prepared.ended_ns is not None:
                self._say(
                    f"run {prepared.number} of this recording has ended: nothing left to replay; "
                    "`alphapulse up --fresh` starts the next"
                )
                return self._summary(prepared, {}, {})
            self._require_ports()
            return asyncio.run(self._supervise(prepared))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _choose_source(self) -> Path | None:
        """Return the recording to replay, None for the live venue; raises NoData without either."""
        options, market = self._options, self._settings.market
        roots = [self._home.path / "market"]
        if options.source != "recording" and options.recording is None:
            live = importlib.import_module("alphapulse.data.live")
            exchange = market.exchange
            if asyncio.run(live.reachable(exchange, timeout_s=self._settings.feed.probe_s)):
                self._say(f"source: live {exchange}")
                return None
            if options.source == "live":
                raise NoData(
                    f"{exchange}: expected an answer within {self._settings.feed.probe_s:g} s, "
                    "was none; check the network, or replay with --source recording --recording DIR"
                )
        tape = importlib.import_module("alphapulse.data.tape")
        found: Path = tape.find_recording(
            options.recording, market.instruments, os.environ, roots=roots
        )
        self._say(f"source: recording {found}")
        return found

    def _prepare(self, recording: Path | None) -> Run:
        settings, instruments = self._settings, self._settings.market.instruments
        self._recording = recording
        if recording is None:
            checkpoints = self._champions() or self._first_checkpoints(self._downloaded())
            name, names = settings.market.exchange, ",".join(settings.market.symbols)
            content = hashlib.sha256(f"{name}|{names}".encode()).hexdigest()
        else:
            tape = importlib.import_module("alphapulse.data.tape")
            checkpoints = self._first_checkpoints(recording)
            name, content = recording.name, tape.content_hash(recording, instruments)
        return self._home.open_run(
            source="live" if recording is None else "recording",
            recording=name,
            content_hash=content,
            settings=settings,
            checkpoints=checkpoints,
            fresh=self._options.fresh,
        )

    def _champions(self) -> dict[str, str]:
        """Return the id of every model's champion, nothing unless all of them have one."""
        registry = importlib.import_module("alphapulse.models.checkpoints").Registry
        found = {model: registry(self._home.registry_path).champion(model) for model in MODELS}
        return {} if None in found.values() else found

    def _downloaded(self) -> Path:
        """Return a recording of the venue's closed candles, fetched now."""
        download = importlib.import_module("alphapulse.data.download")
        live = importlib.import_module("alphapulse.data.live")
        market, feed = self._settings.market, self._settings.feed
        self._say(f"first start: fetching the closed candles of {market.exchange}")
        venue = live.Live(market.exchange, market.instruments, history_bars=feed.live_history_bars)
        folder = self._home.path / "market" / f"{market.exchange}-candles"
        found: Path = asyncio.run(download.download_candles(venue, market.instruments, folder))
        return found

    def _first_checkpoints(self, recording: Path) -> dict[str, str]:
        """Return the ids of the first checkpoints, trained now if there are none for the data."""
        checkpoints = importlib.import_module("alphapulse.models.checkpoints")
        tape = importlib.import_module("alphapulse.data.tape")
        content = tape.content_hash(recording, self._settings.market.instruments)
        registry = checkpoints.Registry(self._home.registry_path)
        found: dict[str, str] | None = registry.find_first(content, self._settings.hash)
        if found is None:
            self._say("first start: training the first checkpoints on the history of the recording")
            command = [sys.executable, "-m", "experiments.first_training"]
            command += ["--home", str(self._home.path), "--recording", str(recording)]
            ended = subprocess.run(command, stdout=sys.stderr, check=False)
            found = registry.find_first(content, self._settings.hash)
            if ended.returncode != 0 or found is None:
                raise ClusterError(
                    f"first training: expected checkpoints, it ended with {ended.returncode}; "
                    "its own message stands above"
                )
        return found

    def _require_ports(self) -> None:
        server = self._settings.server
        require_free(server.host, server.http_port, setting="SERVER__HTTP_PORT")
        if not self._settings.ray.address and not os.environ.get("RAY_ADDRESS"):
            require_free("127.0.0.1", server.dashboard_port, setting="SERVER__DASHBOARD_PORT")

    async def _supervise(self, run: Run) -> dict[str, Any]:
        """Keep the run on a cluster until it ends; a head that dies is replaced."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ask_stop)
        for _ in range(MAX_RESTARTS + 1):
            try:
                return await self._on_cluster(run)
            except HeadDied as error:
                if self._stop_asked:
                    return self._summary(run, {}, {})
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
            return await self._with_head(run, head, address)
        except Exception as error:
            if head is not None and not head.is_running:
                raise HeadDied(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            if head is not None:
                head.stop()

    async def _with_head(self, run: Run, head: Head | None, address: str) -> dict[str, Any]:
        # imported here, while the head starts: ray and its friends take a second
        session_module = importlib.import_module("actors.session")
        cluster = importlib.import_module("alphapulse.cluster")
        if head is not None:
            await asyncio.to_thread(head.wait)
        await asyncio.to_thread(cluster.connect, address or head.address)
        session = session_module.Session(self._launch(run), self._graph_args(run))
        try:
            await session.start()
            self._announce(run, address or head.address)
            with self._status_line() as show:
                await self._watch(session, head, show)
            status, feed = await session.end()
            if head is None:
                session.remove()
            return self._summary(run, status, feed)
        finally:
            cluster.disconnect()

    async def _watch(self, session: Any, head: Head | None, show: Callable[..., None]) -> None:
        """Return when the run has ended; raises HeadDied as soon as the head is gone."""
        running = asyncio.ensure_future(session.run(stop_asked=self._stop_due, show=show))
        while not running.done():
            await asyncio.wait([running], timeout=1.0)
            if head is not None and not head.is_running:
                running.cancel()
                raise HeadDied("the control store or the node's daemon is gone")
        await running

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
            run=run.id,
            run_number=run.number,
            speed=self._options.speed,
            settings=self._settings,
        )

    def _graph_args(self, run: Run) -> dict[str, Any]:
        directory_of = importlib.import_module("alphapulse.models.checkpoints").directory_of
        return {
            "home": str(self._home.path),
            "session": self._session,
            "run": {"id": run.id, "number": run.number, "recording": run.manifest.recording},
            "symbols": self._settings.market.symbols,
            "checkpoints": {
                name: str(directory_of(self._home.path, model=name, id=id_))
                for name, id_ in run.manifest.checkpoints.items()
            },
        }

    def _announce(self, run: Run, address: str) -> None:
        server = self._settings.server
        base = f"http://{server.host}:{server.http_port}/api/v1"
        urls = {"api": base, "docs": f"{base}/docs", "ray": address}
        if not (self._settings.ray.address or os.environ.get("RAY_ADDRESS")):
            urls["ray dashboard"] = f"http://127.0.0.1:{server.dashboard_port}"
        self._home.announce({"urls": urls, "run": run.id, "pid": os.getpid()})
        self._say(f"run {run.number} ({run.id})")
        for name, url in urls.items():
            self._say(f"  {name}: {url}")
        self._say(f"  token: {self._home.path / 'token'}")
        if self._options.dashboard:
            self._say("  monitor: not built yet (see CHANGELOG.md); the API shows it all")
        self._began_at_s = time.time()

    @contextlib.contextmanager
    def _status_line(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        with LiveLine(console=self._console, auto_refresh=False, transient=True) as line:
            yield lambda status: line.update(Text(status_text(status)), refresh=True)

    def _summary(self, run: Run, trader: dict[str, Any], feed: dict[str, Any]) -> dict[str, Any]:
        errors = logs.read_errors(self._home.path / "logs", session=self._session)
        first = trader.get("first_at_s")
        return {
            "source": run.manifest.source,
            "recording": run.manifest.recording,
            "run": run.id,
            "from": iso(trader.get("from_ns")),
            "to": iso(trader.get("to_ns")),
            "events": feed.get("events", 0),
            "bars": feed.get("bars", {}),
            "decisions": trader.get("decisions", {}),
            "inferences": trader.get("inferences", {}),
            "incomplete": trader.get("incomplete", 0),
            "errors": sum(row.count for row in errors),
            "first_decision_s": None if first is None else round(first - self._started_at_s, 2),
            "wall_s": round(time.time() - self._started_at_s, 2),
            "decision_ms": trader.get("decision_ms", {"p50": None, "p99": None}),
        }


class HeadDied(ClusterError):
    """The Ray head this process started is gone."""


def iso(ts_ns: int | None) -> str | None:
    """Return `ts_ns` [ns UTC] as ISO-8601 Z, None for None."""
    if ts_ns is None:
        return None
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")


def status_text(status: dict[str, Any]) -> str:
    """Return the one line that says where the run is."""
    parts = [
        f"{symbol} {iso(latest['event_ns'])} {latest['action']} {latest['confidence']:.2f}"
        for symbol, latest in status["latest"].items()
    ]
    made = sum(sum(actions.values()) for actions in status["decisions"].values())
    p50 = status["decision_ms"]["p50"]
    parts.append(f"{made} decisions" + (f", {p50:.0f} ms each" if p50 is not None else ""))
    if status["pending"]:
        parts.append(f"{status['pending']} records wait for the store")
    return "  ".join(parts)


def summary_table(summary: dict[str, Any]) -> Table:
    """Return the summary for people."""
    table = Table(title="run summary", show_header=False)
    for key, value in summary.items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict) else str(value))
    return table
