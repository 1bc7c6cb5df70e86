"""Examine what `up` needs, one finding a line, with a remedy for each fault."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alphapulse.config import Settings, load_settings
from alphapulse.data.tape import find_recording
from alphapulse.domain.errors import AlphaPulseError, ConfigError
from alphapulse.models.checkpoints import Registry
from alphapulse.storage.home import Home

MIN_FREE_BYTES = 2 * 2**30  # of the disk that holds the home
MIN_MEMORY_BYTES = 4 * 2**30  # head, actors and replicas use about 4 GB (RAY.md section 12)


def examine(home: Path, recording: Path | None) -> list[dict[str, Any]]:
    """Return the findings as rows `name, ok, found, remedy`; a fault has a remedy."""
    try:
        settings = load_settings(home)
    except ConfigError as error:
        return [
            _row("configuration", False, str(error), "correct HOME/config.toml or the environment")
        ]
    checks: list[Callable[[], Iterator[dict[str, Any]]]] = [
        _versions,
        lambda: _machine(home),
        lambda: _source(home, recording, settings),
        lambda: _home(home, settings),
    ]
    return [row for check in checks for row in check()]


def _row(name: str, ok: bool, found: str, remedy: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy}


def _versions() -> Iterator[dict[str, Any]]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield _row("python", sys.version_info >= (3, 11), found, "use Python 3.11 to 3.13")
    for package in ("ray", "torch", "deltalake", "duckdb", "TA-Lib", "ccxt"):
        try:
            yield _row(package, True, importlib.metadata.version(package), "")
        except importlib.metadata.PackageNotFoundError:
            yield _row(package, False, "not installed", "run `make setup`")


def _machine(home: Path) -> Iterator[dict[str, Any]]:
    existing = next(p for p in (home.absolute(), *home.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    yield _row(
        "disk", free >= MIN_FREE_BYTES, f"{free / 2**30:.1f} GiB free", "free 2 GiB on this disk"
    )
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield _row(
        "memory",
        memory >= MIN_MEMORY_BYTES,
        f"{memory / 2**30:.1f} GiB free",
        "free 4 GiB of memory",
    )


def _source(home: Path, recording: Path | None, settings: Settings) -> Iterator[dict[str, Any]]:
    try:
        found = find_recording(
            recording, settings.market.instruments, os.environ, roots=[home / "market"]
        )
    except AlphaPulseError as error:
        yield _row("recording", False, str(error), "give --recording DIR, or reach a venue")
    else:
        yield _row("recording", True, str(found), "")


def _home(home: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    place = Home(home)
    holder = place.holder()
    yield _row(
        "home", True, f"{home}: " + (f"in use by process {holder}" if holder else "free"), ""
    )
    registry = place.path / "registry.sqlite"
    entries = Registry(registry).entries() if registry.exists() else ()
    text = ", ".join(f"{e.model} {e.id}" for e in entries if e.role == "champion")
    yield _row("checkpoints", True, text or "none yet: trained at the first start", "")
    if holder is not None:
        return
    for name, port in (
        ("server.http_port", settings.server.http_port),
        ("server.dashboard_port", settings.server.dashboard_port),
    ):
        with socket.socket() as probe:
            taken = probe.connect_ex((settings.server.host, port)) == 0
        yield _row(
            name, not taken, f"{port} is {'taken' if taken else 'free'}", f"free it or set {name}"
        )
