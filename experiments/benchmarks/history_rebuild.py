"""How long does a stored input take to come back, in bulk and one by one?"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alphapulse.domain.inputs import DTYPES, ModelInput
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from experiments.benchmarks.history_packages import stored
from experiments.benchmarks.history_records import SETTINGS, Collected
from experiments.benchmarks.peer import seconds
from experiments.benchmarks.result import Row, in_turn_us, us_row

BULK_GOAL, BULK_US = 9.0, 100.0  # TARGETS.md, history
NUM_BULK = 600  # decisions rebuilt at once
NUM_SINGLE = 30  # of them one by one, evenly spread: the same work each, and enough of it
MODEL = "cnn"  # every decision has one inference of it


def rows(collected: Collected, folder: Path, *, runs: int) -> list[Row]:
    """Return `rebuild_bulk`, and in its words what the check of the content hash takes of it."""
    home = asyncio.run(stored(collected.records, folder / "rebuild"))
    history = InferenceHistory(home, settings=SETTINGS.storage)
    said = asyncio.run(history.query(Query(table="inferences", model=MODEL, limit=NUM_BULK)))
    ids: list[str] = said["id"].tolist()

    def bulk() -> float:
        return seconds(lambda: asyncio.run(history.inputs(ids))) * 1e6 / len(ids)

    def single() -> float:
        some = ids[:: len(ids) // NUM_SINGLE]
        return seconds(lambda: asyncio.run(one_by_one(history, some))) * 1e6 / len(some)

    ours_us, peer_us = in_turn_us(bulk, single, runs=runs)
    row = us_row("rebuild_bulk", ours_us, "rebuild() of each", peer_us, goal=BULK_GOAL)
    inputs = asyncio.run(history.inputs(ids))
    history.close()
    hash_us = statistics.median([hashed_us(list(inputs.values())) for _ in range(runs)])
    goal = f"{row.goal} and <= {BULK_US:g} us; sha256 of the bytes alone, one core: {hash_us:.3g}"
    return [replace(row, goal=goal, met=row.met and row.value <= BULK_US)]


def hashed_us(inputs: Sequence[ModelInput]) -> float:
    """Return the microseconds sha256 takes for the bytes of an input: no check is faster."""

    def run() -> None:
        for input in inputs:
            digest = hashlib.sha256()
            for name in DTYPES:
                digest.update(getattr(input, name).data)

    return seconds(run) * 1e6 / len(inputs)


async def one_by_one(history: InferenceHistory, ids: Sequence[str]) -> None:
    """Rebuild inputs a call each."""
    for id_ in ids:
        await history.rebuild(id_)
