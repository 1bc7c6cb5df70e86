"""How long from an event to a snapshot that can be read, here and in another process?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.config import Market
from alphapulse.domain.market import MarketEvent, Timeframe
from alphapulse.domain.windows import CacheView
from experiments.benchmarks.ingest_bars import BATCH_NS, recorded_events, seeded_cache
from experiments.benchmarks.peer import seconds
from experiments.benchmarks.result import Row
from experiments.small_cluster import cluster

SYMBOLS = tuple(instrument.symbol for instrument in Market().instruments)
READABLE_MS = 20.0  # from an event to a snapshot in another process
NUM_PARTS = 10  # of the window, a p99 each


class Ingest:
    """Leads a recording through the cache, 100 ms at a time, and gives out a snapshot of each."""

    def __init__(self, recording: str) -> None:
        history, events = recorded_events(Path(recording))
        self._cache = seeded_cache(history)
        self._batches = batches(events)

    def step(self) -> tuple[int, CacheView] | None:
        """Take the next batch; return when that began [ns, monotonic] and what can be read then."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        begin_ns = time.monotonic_ns()
        for event in batch:
            self._cache.apply(event)
        return begin_ns, self._cache.view(SYMBOLS)

    def publish(self) -> tuple[int, list[Any]] | None:
        """Take the next batch; return when that began and the reference of the snapshot."""
        import ray

        stepped = self.step()
        if stepped is None:
            return None
        begin_ns, view = stepped
        return begin_ns, [ray.put(view)]  # in a list: Ray would answer with what it refers to


def batches(events: Sequence[MarketEvent]) -> Iterator[list[MarketEvent]]:
    """Yield the events of each 100 ms that has some."""
    for _, batch in groupby(events, key=lambda event: event.ts_ns // BATCH_NS):
        yield list(batch)


def rows(recording: Path) -> list[Row]:
    """Return `snapshot_p99_ms` and `snapshot_ray_p99_ms`, over all batches of the recording."""
    return [_here(recording), _in_another_process(recording)]


def _here(recording: Path) -> Row:
    ingest = Ingest(str(recording))
    times_ms = []
    while (stepped := ingest.step()) is not None:
        times_ms.append((time.monotonic_ns() - stepped[0]) / 1e6)
    return Row(
        name="snapshot_p99_ms",
        value=p99(times_ms),
        unit="ms",
        goal=f"report: {len(times_ms)} batches of 100 ms, p50 {np.median(times_ms):.3g} ms",
        met=True,
        runs=[p99(part) for part in np.array_split(times_ms, NUM_PARTS)],
    )


def _in_another_process(recording: Path) -> Row:
    """Return how long until this process reads what the actor took in, beside a held reference."""
    times_ms: list[float] = []
    held_ms: list[float] = []
    with cluster():
        import ray

        actor = ray.remote(num_cpus=0)(Ingest).remote(str(recording))
        while (published := ray.get(actor.publish.remote())) is not None:
            begin_ns, (reference,) = published
            last_close(ray.get(reference))
            times_ms.append((time.monotonic_ns() - begin_ns) / 1e6)
            held_ms.append(seconds(lambda held=reference: last_close(ray.get(held))) * 1e3)
    return Row(
        name="snapshot_ray_p99_ms",
        value=p99(times_ms),
        unit="ms",
        peer=f"ray {ray.__version__} get of a held reference to the same snapshot",
        peer_value=p99(held_ms),
        ratio=p99(held_ms) / p99(times_ms),
        goal=f"report; < {READABLE_MS:g} ms, p50 {np.median(times_ms):.3g} ms",
        met=p99(times_ms) < READABLE_MS,
        runs=[p99(part) for part in np.array_split(times_ms, NUM_PARTS)],
    )


def last_close(view: CacheView) -> float:
    """Return a value of the snapshot: whoever reads one has mapped it."""
    return float(view.streams[SYMBOLS[0], Timeframe.M1].rows_TC[-1, 3])


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(values, 99))
