"""Disturb the store of a run on real files while decisions go on, and compare what is kept."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.inference import DecisionRecord
from alphapulse.execution.outages import Told
from alphapulse.execution.recorder import Recorder
from alphapulse.storage.alerts import alert_of
from alphapulse.storage.conditions import Asked
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.history_reader import HistoryReader
from alphapulse.storage.home import Home, Run
from alphapulse.storage.notes import alert_row
from alphapulse.storage.spill import MIB, Spill
from tests.unit.storage.records import SYMBOLS, record

TABLES = ("inferences", "predictions", "packages", "rows")
NOBODY = 65534  # a user to whom the file system says no, where the tests run as root
TIMEOUT_S = 0.3  # how long a decision of these tests waits for its acknowledgement
LOCKER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


class Hosted:
    """The history of a run as its actor hosts it, which may be started anew."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._home = Home(run.path.parents[1])
        self._history = self._opened()

    def _opened(self) -> InferenceHistory:
        return InferenceHistory(self._home, run=self.run, settings=Storage())

    def restart(self) -> None:
        """Close every file and open them anew at the next call."""
        self._history.close()
        self._history = self._opened()

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make records durable."""
        return await self._history.append(records)

    async def note(self, told: Sequence[Told]) -> int:
        """Make alerts durable."""
        rows = [alert_row(alert_of(*one), self.run.id) for one in told]
        return await self._history.note("alerts", rows)

    async def flush(self) -> None:
        """Move what is in the journal to the lake."""
        await self._history.flush()

    def close(self) -> None:
        """Let go of every file."""
        self._history.close()


class Flow:
    """Decisions of a run, one after the other, through the recorder to the store.

    Attributes:
        waits_s: how long each point waited for the store [s].
        durable: whether each was durable then.
    """

    def __init__(self, hosted: Hosted, spill: Spill, *, max_pending: int = 1000) -> None:
        self.hosted = hosted
        self.recorder = Recorder(
            hosted.append,
            timeout_s=TIMEOUT_S,
            max_pending=max_pending,
            spill=spill,
            spill_after_s=0.1,
            note=hosted.note,
        )
        self.waits_s: list[float] = []
        self.durable: list[bool] = []

    async def decide(self, seconds: Iterable[int], *, pause_s: float = 0.02) -> None:
        """Make and record the decisions of `seconds`."""
        for second in seconds:
            began_s = time.monotonic()
            records = records_of(second, self.hosted.run)
            self.durable.append(await self.recorder.record(records))
            self.waits_s.append(time.monotonic() - began_s)
            await asyncio.sleep(pause_s)

    async def until(self, **counters: int) -> None:
        """Wait for the recorder's counters to be these; AssertionError after half a minute."""
        give_up_at = time.monotonic() + 30
        while counters.items() - self.recorder.counters().items():
            assert time.monotonic() < give_up_at, self.recorder.counters()
            await asyncio.sleep(0.02)


def records_of(second: int, run: Run) -> list[DecisionRecord]:
    """Return the records of a point: of both symbols."""
    return [record(second, symbol=symbol, run=run.id) for symbol in SYMBOLS]


def a_run(home: Path) -> Run:
    """Return the first run of a home; it is the same run in every home."""
    return Home(home).open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )


def a_spill(run: Run, folder: Path) -> Spill:
    """Return a spill on another disk than the run, as far as a test has one."""
    return Spill.of(run, Storage(spill_dir=str(folder)))


def kept(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that journal and lake have of a run, numbers as their bits."""
    home = run.path.parents[1]
    reader = HistoryReader(runs=run.path.parent, lake_uri=str(home / "lake"))
    try:
        return {
            table: [
                tuple(struct.pack("<d", v) if isinstance(v, float) else v for v in row.values())
                for row in reader.find(Asked(table, {}, lake_first=True)).to_pylist()
            ]
            for table in TABLES
        }
    finally:
        reader.close()


def undisturbed(home: Path, seconds: Iterable[int]) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is kept of a run whose store never failed."""
    run = a_run(home)
    hosted = Hosted(run)
    for second in seconds:
        asyncio.run(hosted.append(records_of(second, run)))
    hosted.close()
    return kept(run)


@contextmanager
def locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a SQLite file for itself; a line to it lets go."""
    command = [sys.executable, "-c", LOCKER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            with suppress(BrokenPipeError):
                process.communicate("\n", timeout=30)


@contextmanager
def small_disk(*, kib: int) -> Iterator[Path]:
    """Mount a file system of its own in memory; without the right to, the test is left out."""
    folder = Path(tempfile.mkdtemp(prefix="alphapulse-disk-"))
    asked = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        folder.rmdir()
        pytest.skip(f"needs the right to mount a file system: {asked.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Take the last byte of a file system and return the file that holds it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    return ballast


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder; root, whom no mode stops, becomes somebody else meanwhile."""
    paths = [folder, *folder.iterdir()]
    modes = {path: path.stat().st_mode for path in paths}
    was_root = os.geteuid() == 0
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def corrupt(path: Path) -> None:
    """Overwrite every page of a SQLite file but the first, which says what it is."""
    size = int.from_bytes(path.read_bytes()[16:18], "big")
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"\xa5" * (path.stat().st_size - size))


def mib(count: float) -> int:
    """Return bytes."""
    return int(count * MIB)
