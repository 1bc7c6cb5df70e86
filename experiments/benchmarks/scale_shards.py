"""From how many symbols on do two processes lead a market faster than one?"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from alphapulse.config import Feed
from alphapulse.data.feed import PointFeed
from alphapulse.data.shard import Shard
from alphapulse.data.shards import ShardLike, Shards, dealt
from alphapulse.data.tape import Tape
from alphapulse.domain.market import Instrument
from experiments.benchmarks.renamed import side_by_side
from experiments.benchmarks.result import Row, parser, show

COUNTS = (2, 4, 8)
NUM_SHARDS = 2
WARM_UP, INSTANTS = 20, 300  # decision points


class Remote:
    """A shard in a process of its own, as `cluster.MarketShard` asks one."""

    def __init__(self, folder: Path, instruments: Sequence[Instrument]) -> None:
        self._actor: Any = ray.remote(num_cpus=0)(Held).remote(folder, instruments)

    def __getattr__(self, method: str) -> Any:
        async def ask(*given: Any, **named: Any) -> Any:
            return await self._actor.ask.remote(method, *given, **named)

        return ask


class Held:
    """The shard in its process."""

    def __init__(self, folder: Path, instruments: Sequence[Instrument]) -> None:
        self._shard = Shard(Tape(folder, instruments), instruments, Feed())

    async def ask(self, method: str, *given: Any, **named: Any) -> Any:
        """Return what `method` of the shard answers."""
        return await getattr(self._shard, method)(*given, **named)


async def point_ms(shards: Sequence[ShardLike], symbols: Sequence[str]) -> float:
    """Return the wall time of a decision point of all symbols [ms]."""
    feed = PointFeed(Shards(shards, symbols), symbols)
    await feed.open()
    for _ in range(WARM_UP):
        await feed.advance()
    begin_s = time.perf_counter()
    for _ in range(INSTANTS):
        await feed.advance()
    return 1e3 * (time.perf_counter() - begin_s) / INSTANTS


def row(count: int) -> Row:
    """Return `count` symbols in two processes beside the same in one."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        market = Path(os.environ["ALPHAPULSE_RECORDINGS"])
        instruments = side_by_side(market, folder, count=count)
        symbols = [instrument.symbol for instrument in instruments]
        held = [[i for i in instruments if i.symbol in own] for own in dealt(symbols, NUM_SHARDS)]
        shard = Shard(Tape(folder, instruments), instruments, Feed())
        alone = asyncio.run(point_ms([shard], symbols))
        apart = asyncio.run(point_ms([Remote(folder, own) for own in held], symbols))  # type: ignore[misc]
    return Row(
        name=f"{count} symbols, {NUM_SHARDS} shards", value=apart, unit="ms",
        peer="one process", peer_value=alone, ratio=alone / apart,
    )  # fmt: skip


def main() -> None:
    """Measure and print a row a number of symbols."""
    options: argparse.ArgumentParser = parser(__doc__ or "")
    given = options.parse_args()
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    show("scale_shards", [row(count) for count in COUNTS], as_json=given.json)
    ray.shutdown()


if __name__ == "__main__":
    main()
