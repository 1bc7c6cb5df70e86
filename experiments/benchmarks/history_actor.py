"""What does keeping a decision cost behind an actor, and a decision when the disk is full?"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.domain.inference import Decision, DecisionPoint, DecisionRecord
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from experiments.benchmarks.history_records import (
    INSTRUMENTS,
    SETTINGS,
    Collected,
    decider,
    engine_with,
    new_run,
    opened,
    points,
    recorder_into,
)
from experiments.benchmarks.result import Row
from experiments.small_cluster import cluster

MOST_MS = 1.0  # TARGETS.md, history: how much later a decision may be on a full disk
NUM_PARTS = 5  # of the calls, a p99 each
NUM_FIRST_POINTS = 20  # before the disk is full, not counted
DISK_MB = 24  # of the small disk: the first windows and some minutes of decisions fit
SYMBOLS = len(INSTRUMENTS)


class Host:
    """The history of a new run of a home, as the actor of `alphapulse up` has it."""

    def __init__(self, folder: str) -> None:
        home = Home(Path(folder))
        run = new_run(home)
        self._run = run.id
        self._history = InferenceHistory(home, run=run, settings=SETTINGS.storage)

    async def run(self) -> str:
        """Return the id of the run."""
        return self._run

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make records durable."""
        return await self._history.append(records)

    async def nothing(self, records: Sequence[DecisionRecord]) -> int:
        """Take records and forget them."""
        return len(records)


def rows(collected: Collected, recording: Path, folder: Path) -> list[Row]:
    """Return `append_actor_p99_ms` and `prediction_p99_disk_full`."""
    with cluster():
        return [append_actor_row(collected, folder), disk_full_row(recording, folder)]


def hosted(folder: Path) -> Any:
    """Start a Host in a process of its own."""
    import ray

    return ray.remote(Host).options(num_cpus=0).remote(str(folder))


def append_actor_row(collected: Collected, folder: Path) -> Row:
    """Return the p99 of an instant's records appended by an actor, beside its no-op."""
    import ray

    host = hosted(folder / "actor")
    records = collected.of(ray.get(host.run.remote()))
    instants = [records[i : i + SYMBOLS] for i in range(0, len(records), SYMBOLS)]
    ray.get(host.append.remote(instants[0]))
    times_ms: dict[str, list[float]] = {"append": [], "nothing": []}
    for instant in instants[1:]:
        for name, of_name in times_ms.items():
            begin = time.perf_counter()
            ray.get(getattr(host, name).remote(instant))
            of_name.append((time.perf_counter() - begin) * 1e3)
    ray.kill(host)
    value, peer_value = p99(times_ms["append"]), p99(times_ms["nothing"])
    p50_ms, nothing_ms = (float(np.median(of_name)) for of_name in times_ms.values())
    return Row(
        name="append_actor_p99_ms",
        value=value,
        unit="ms",
        peer=f"ray {ray.__version__}: a no-op of the same actor",
        peer_value=peer_value,
        ratio=peer_value / value,
        goal=f"report: {SYMBOLS} decisions a call; p50 {p50_ms:.3g} ms, no-op {nothing_ms:.3g} ms",
        met=True,
        runs=[p99(part) for part in np.array_split(times_ms["append"], NUM_PARTS)],
    )


def disk_full_row(recording: Path, folder: Path) -> Row:
    """Return how much later a decision is made and kept where the disk of the history is full."""
    healthy_ms, full_ms, flagged = asyncio.run(_paired(recording, folder))
    parts = zip(
        np.array_split(healthy_ms, NUM_PARTS), np.array_split(full_ms, NUM_PARTS), strict=True
    )
    deltas_ms = [p99(full) - p99(healthy) for healthy, full in parts]
    value = float(np.median(deltas_ms))
    return Row(
        name="prediction_p99_disk_full",
        value=p99(full_ms),
        unit="ms",
        peer="the same decisions with a healthy disk, paired",
        peer_value=p99(healthy_ms),
        ratio=p99(healthy_ms) / p99(full_ms),
        goal=f"delta of p99 < {MOST_MS:g} ms, was {value:.3g} (median of {NUM_PARTS} parts); "
        f"p50 {np.median(full_ms):.3g} and {np.median(healthy_ms):.3g} ms; {flagged} flagged",
        met=value < MOST_MS and flagged > 0,
        runs=deltas_ms,
    )


async def _paired(recording: Path, folder: Path) -> tuple[list[float], list[float], int]:
    """Return the times of all points on a healthy and on a full disk [ms], and how many flagged.

    Both engines take each point, in turn first; the actors are those of `alphapulse up` in kind.
    """
    import ray

    with small_disk(folder / "disk") as disk:
        hosts = {"healthy": hosted(folder / "healthy"), "full": hosted(disk / "home")}
        decide = decider()
        recorders, engines = {}, {}
        for name, host in hosts.items():

            async def append(records: Sequence[DecisionRecord], host: Any = host) -> int:
                return int(await host.append.remote(records))

            recorders[name] = recorder_into(append)
            run = await hosts[name].run.remote()
            engines[name] = engine_with(recorders[name], decide=decide, act=_nothing, run=run)
        times_ms: dict[str, list[float]] = {name: [] for name in hosts}
        feed, i = await opened(recording), 0
        async for point in points(feed):
            if i == NUM_FIRST_POINTS:
                fill(disk)
            for name in list(hosts)[:: 1 if i % 2 else -1]:
                begin = time.perf_counter()
                predictions = await engines[name].step(point)
                times_ms[name].append((time.perf_counter() - begin) * 1e3)
            feed.put_outputs(predictions)
            i += 1
        flagged = recorders["full"].flagged
        for host in hosts.values():
            ray.kill(host)
    return (
        times_ms["healthy"][NUM_FIRST_POINTS + 1 :],
        times_ms["full"][NUM_FIRST_POINTS + 1 :],
        flagged,
    )


async def _nothing(point: DecisionPoint, decisions: Sequence[Decision], stored: bool) -> None:
    """Trade on nothing."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk at a folder; needs the right to mount, as root has it."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(values, 99))
