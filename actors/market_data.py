"""Own the market: feed, cache and peer slots, one decision point at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.launch import Launch
from alphapulse import cluster, logs
from alphapulse.data.feed import MarketFeed
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import DecisionPoint, Prediction, trace_id

log = logs.get_logger("market")


class MarketDataActor:
    """Holds the feed; a restarted one replays to where the history ends before it answers."""

    def __init__(self, launch: Launch) -> None:
        logs.configure(Path(launch.home) / "logs", process="market_data", session=launch.session)
        self._launch = launch
        self._feed = MarketFeed(
            launch.provider(), launch.settings.market.instruments, launch.settings.feed
        )
        self._feed.pace(launch.speed)
        self._opened = False
        self._point: DecisionPoint | None = None

    async def open(self, durable_until_ns: int) -> None:
        """Seed the cache and replay to the newest instant every symbol's history holds."""
        if not self._opened:
            await self._feed.open()
            if durable_until_ns > 0:
                await self._feed.skip_to(durable_until_ns)
            self._opened = True

    async def advance(self, after_ns: int, outputs: Sequence[Prediction]) -> DecisionPoint | None:
        """Return the next point; the same one again if its answer was lost on the way."""
        if not self._opened:  # restarted by Ray: the history says where to go on
            await self.open(await _durable_until())
        if self._point is not None and self._point.event_ns > after_ns:
            return self._point
        self._feed.put_outputs(outputs)
        self._point = await self._feed.advance()
        if self._point is not None:
            self._tell(self._point)
        return self._point

    def _tell(self, point: DecisionPoint) -> None:
        for symbol in point.inputs:
            log.info(
                "decision point",
                trace_id=trace_id(run=self._launch.run, symbol=symbol, event_ns=point.event_ns),
                symbol=symbol,
                event_ns=point.event_ns,
                window_version=point.window_version,
                last_trade_id=point.last_trade_id.get(symbol, 0),
                last_book_id=point.last_book_id.get(symbol, 0),
            )

    async def latest(self) -> DecisionPoint:
        """Return the newest point."""
        if self._point is None:
            raise Unavailable("no decision point yet: the feed has not reached its first instant")
        return self._point

    async def view(self, what: str, arguments: dict[str, Any]) -> Any:
        """Return a view for people."""
        if what == "counters":
            return self._feed.counters()
        return getattr(self._feed.cache, what)(**arguments)

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()


async def _durable_until() -> int:
    last = await cluster.History().last()
    return min((p[0].event_ns for p in last.values()), default=-1) if len(last) > 1 else -1
