"""What does a symbol cost: memory, and processor time for a second of the market?"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from alphapulse.config import Feed
from alphapulse.data.feed import PointFeed
from alphapulse.data.shard import Shard
from alphapulse.data.shards import Shards
from alphapulse.data.tape import Tape
from alphapulse.domain.market import Instrument
from experiments.benchmarks.renamed import RECORDED, side_by_side
from experiments.benchmarks.result import Row, parser, show

COUNTS = (1, 2, 4, 8)
SECONDS = 600  # of the market, until the caches of seconds are full
LEAST = 2  # an input shows a symbol and its reference: one symbol alone has none


def array_bytes(root: Any) -> int:
    """Return the bytes of all arrays that `root` holds, a memory that views share counted once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            base = one if one.base is None else one.base
            found[id(base)] = getattr(base, "nbytes", one.nbytes)
        elif type(one).__module__.split(".")[0] in ("alphapulse", "builtins", "collections"):
            waiting.extend(gc.get_referents(one))
    return sum(found.values())


async def walked(folder: Path, instruments: Sequence[Instrument]) -> dict[str, float]:
    """Return the costs of `instruments` led through the recorded window, in this process."""
    symbols = [instrument.symbol for instrument in instruments]
    before_mib = psutil.Process().memory_info().rss / 2**20
    shard = Shard(Tape(folder, instruments), instruments, Feed())
    shards = Shards([shard], symbols)
    await shards.open()
    cpu_ms, wall_s = await timed(shards.next)
    costs = {
        "windows_ms": cpu_ms,
        "events_per_s": shard.counters()["events"] / wall_s,
        "cache_mib": array_bytes(shard.cache) / 2**20,
        "rss_mib": psutil.Process().memory_info().rss / 2**20 - before_mib,
    }
    if len(symbols) >= LEAST:
        again = Shard(Tape(folder, instruments), instruments, Feed())
        feed = PointFeed(Shards([again], symbols), symbols)
        await feed.open()
        costs["points_ms"], _ = await timed(feed.advance)
    return costs


async def timed(advance: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return processor time for a second of the market [ms] and wall time for all [s]."""
    begin_s, begin_cpu_s, reached = time.perf_counter(), time.process_time(), 0
    while reached < SECONDS and await advance() is not None:
        reached += 1
    return 1e3 * (time.process_time() - begin_cpu_s) / reached, time.perf_counter() - begin_s


def measured(count: int) -> dict[str, float]:
    """Return the costs of `count` symbols, measured in a process of their own."""
    command = [sys.executable, "-m", "experiments.benchmarks.scale", "--only", str(count)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    costs: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return costs


def rows(count: int, runs: int) -> list[Row]:
    """Return the figures of `count` symbols, the median of `runs` runs."""
    seen = [measured(count) for _ in range(runs)]

    beyond = count - len(RECORDED)
    note = f"{beyond} of them recorded ones under another name" if beyond > 0 else ""

    def row(name: str, unit: str, *, a_symbol: bool = True, note: str = note) -> Row:
        values = [one[name] / (count if a_symbol else 1) for one in seen]
        label = f"{count} {name}" + (" a symbol" if a_symbol else "")
        return Row(name=label, value=float(np.median(values)), unit=unit, goal=note, runs=values)

    found = [
        row("events_per_s", "1/s", a_symbol=False),
        row("windows_ms", "ms"),
        row("cache_mib", "MiB"),
        row("rss_mib", "MiB", note="the recording in memory included"),
    ]
    return found + ([row("points_ms", "ms")] if count >= LEAST else [])


def main() -> None:
    """Measure and print a table of 1, 2, 4 and 8 symbols."""
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--runs", type=int, default=3, help="runs a row")
    options.add_argument("--only", type=int, help="measure so many symbols, in this process")
    given = options.parse_args()
    if given.only is None:
        show("scale", [r for n in COUNTS for r in rows(n, given.runs)], as_json=given.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        market = Path(os.environ["ALPHAPULSE_RECORDINGS"])
        instruments = side_by_side(market, Path(folder), count=given.only)
        print(json.dumps(asyncio.run(walked(Path(folder), instruments))))


if __name__ == "__main__":
    main()
