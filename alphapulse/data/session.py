"""Share one connection to Binance among the streams of all symbols: ask it, close it, do more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from alphapulse.config import Feed
from alphapulse.data import binance
from alphapulse.data.health import Health
from alphapulse.data.outlet import Outlet
from alphapulse.data.patience import Clocks, within
from alphapulse.logs import describe, get_logger

ANSWER_S = 5.0  # how long REST may take
POLL_S = 2.0  # between two requests where a stream is silent: 4 500 of 6 000 weight a minute

log = get_logger("data")


@dataclass(slots=True, kw_only=True)
class Session:
    """What all streams work with.

    Attributes:
        venue: ccxt.pro's binance.
        settings: bounds and pauses.
        errors: ccxt's error of the connection, and of anything.
        outlet: where events leave.
        health: what is counted.
        clocks: where the time comes from.
        is_over: whether nothing more may begin.
    """

    venue: Any
    settings: Feed
    errors: tuple[type[Exception], type[Exception]]
    outlet: Outlet
    health: Health
    clocks: Clocks
    is_over: bool = False
    tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _running: dict[str, asyncio.Task[object]] = field(default_factory=dict)

    def runs(self, name: str) -> bool:
        """Return whether the task of that name is under way."""
        task = self._running.get(name)
        return task is not None and not task.done()

    def start(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Begin a task, unless all are ending; one of that name must not be under way."""
        try:
            self._running[name] = self.tasks.create_task(work)
        except RuntimeError:  # a message came while the others are being cancelled
            work.close()
            self.is_over = True

    async def ask(self, path: str, **wanted: Any) -> Any:
        """Return what REST answers, None if it refuses or takes too long."""
        ask = partial(binance.ask, self.venue, path, **wanted)
        try:
            return await within(self.clocks, ANSWER_S, ask)
        except self.errors[1] as error:
            log.warning("no answer", path=path, **describe(error))
            return None

    async def ask_time(self) -> int | None:
        """Return the venue's time [ns UTC], None without an answer; it tells the skew."""
        sent_ns = self.clocks.wall_ns()
        answer = await self.ask("time")
        venue_ms = answer.get("serverTime") if isinstance(answer, dict) else None
        if type(venue_ms) is not int:
            return None
        venue_ns = venue_ms * binance.NS_PER_MS
        self.health.skew.asked(venue_ns, sent_ns, self.clocks.wall_ns())
        return venue_ns

    def reopen(self, symbol: str, stream: str, name: str) -> None:
        """Close the connection of a stream as if it had failed; whoever keeps it opens the next.

        Args:
            symbol: ccxt's name.
            stream: ours: `trade`, `book` or `candle`.
            name: ccxt's: `trade`, `orderbook` or `ohlcv`.
        """
        one = self.health.of(symbol)
        error = self.errors[0](f"{symbol} {stream}: silent for {one.age_s(stream):.1f} s")
        for client in list(self.venue.clients.values()):
            if any(key.startswith(f"{name}::{symbol}") for key in client.subscriptions):
                one.counters["silences"] += 1
                client.on_error(error)


@dataclass(slots=True)
class Due:
    """When something may be done again: at once, then every so often."""

    clocks: Clocks
    every_s: float
    _next_s: float | None = None

    def now(self) -> bool:
        """Return whether it is to be done, and that it is done now."""
        now_s = self.clocks.now_s()
        if self._next_s is not None and now_s < self._next_s:
            return False
        self._next_s = now_s + self.every_s
        return True
