"""Before anything starts: which source, which checkpoints, which run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alphapulse.config import Settings
from alphapulse.data.tape import content_hash, find_recording
from alphapulse.domain.errors import ClusterError, NoData
from alphapulse.domain.inference import MODELS
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.models.checkpoints import Registry
from alphapulse.storage.home import Home, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asked for.

    Attributes:
        source: `auto`, `live` or `recording`.
        recording: folder given with --recording, or None.
        fresh: start the next run instead of continuing.
    """

    source: str
    recording: Path | None
    fresh: bool


def open_run(
    home: Home, settings: Settings, asked: Asked, *, say: Callable[[str], None]
) -> tuple[Run, Path | None]:
    """Return the run to work on and the recording behind it (None: the live venue).

    Trains the first checkpoints if the home has none for the data. Raises NoData without a venue
    and without a recording, ClusterError if the first training fails.
    """
    market = settings.market
    venue, recording = _choose(home, settings, asked)
    say(f"source: {f'recording {recording}' if recording else f'live {venue}'}")
    if recording is not None:
        checkpoints = _first_checkpoints(home, settings, recording, say=say)
        name, content = recording.name, content_hash(recording, market.instruments)
    else:
        checkpoints = _champions(home)
        if not checkpoints:
            say(f"first start: fetching the closed candles of {venue}")
            candles = asyncio.run(_download(home, settings, venue))
            checkpoints = _first_checkpoints(home, settings, candles, say=say)
        name, watched = venue, ",".join(market.symbols)
        content = hashlib.sha256(f"{name}|{watched}".encode()).hexdigest()
    run = home.open_run(
        source="recording" if recording else "live",
        recording=name,
        content_hash=content,
        settings=settings,
        checkpoints=checkpoints,
        fresh=asked.fresh,
    )
    _tell_what_stays_behind(home, run, say=say)
    return run, recording


def _tell_what_stays_behind(home: Home, run: Run, *, say: Callable[[str], None]) -> None:
    """Say it if the run before a new one is halted: its account ends there."""
    before = home.runs_path / str(run.number - 1)
    if (run.path / "ledger.sqlite").exists() or not (before / "ledger.sqlite").exists():
        return
    reader = LedgerReader(before / "ledger.sqlite")
    if any(halt.cleared_ns is None for halt in reader.halts()):
        say(f"run {run.number} starts a new paper account; run {run.number - 1} stays halted")


def _choose(home: Home, settings: Settings, asked: Asked) -> tuple[str, Path | None]:
    """Return the live venue, or the recording: of the two one is empty."""
    market, probe_s = settings.market, settings.feed.probe_s
    if asked.source == "live" or (asked.source == "auto" and asked.recording is None):
        from alphapulse.data.live import first_reachable  # ccxt takes half a second

        venues, url = _venues(home, settings, asked), market.exchange_url
        venue = asyncio.run(first_reachable(venues, timeout_s=probe_s, url=url))
        if venue is not None:
            return venue, None
        if asked.source == "live":
            raise NoData(
                f"{', '.join(venues)}: expected an answer within {probe_s:g} s, was none; "
                "check the network, or replay with --source recording --recording DIR"
            )
    roots = [home.path / "market"]
    return "", find_recording(asked.recording, market.instruments, os.environ, roots=roots)


def _venues(home: Home, settings: Settings, asked: Asked) -> tuple[str, ...]:
    """Return the venues to try in order; a run that goes on keeps its own."""
    runs = home.runs()
    if runs and not asked.fresh:
        newest = runs[-1].manifest
        if newest.source == "live" and newest.config_hash == settings.hash:
            return (newest.recording,)
    return settings.market.exchanges


def _champions(home: Home) -> dict[str, str]:
    """Return the id of every model's champion, nothing unless all of them have one."""
    registry = Registry(home.registry_path)
    found = {model: registry.champion(model) for model in MODELS}
    return {model: id for model, id in found.items() if id} if all(found.values()) else {}


async def _download(home: Home, settings: Settings, venue: str) -> Path:
    from alphapulse.data.download import download_candles
    from alphapulse.data.live import Live

    market, feed = settings.market, settings.feed
    live = Live(venue, market.instruments, feed, url=market.exchange_url)
    folder = home.path / "market" / f"{venue}-candles"
    return await download_candles(live, market.instruments, folder)


def _first_checkpoints(
    home: Home, settings: Settings, recording: Path, *, say: Callable[[str], None]
) -> dict[str, str]:
    """Return the ids of the first checkpoints of a recording, trained now if there are none."""
    registry = Registry(home.registry_path)
    content = content_hash(recording, settings.market.instruments)
    found = registry.find_first(content, settings.training_hash)
    if found is None:
        say("first start: training the first checkpoints on the history of the recording")
        command = [sys.executable, "-m", "experiments.first_training"]
        command += ["--home", str(home.path), "--recording", str(recording)]
        ended = subprocess.run(command, stdout=sys.stderr, check=False)
        found = registry.find_first(content, settings.training_hash)
        if ended.returncode != 0 or found is None:
            raise ClusterError(
                f"first training: expected checkpoints, it ended with {ended.returncode}; "
                "its own message stands above"
            )
    return found
