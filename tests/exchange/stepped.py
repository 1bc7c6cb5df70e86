"""Let event time pass for an exchange and its client together, without waiting for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Any

from alphapulse.data.patience import Clocks
from tests.exchange.columns import MS, SECOND
from tests.exchange.server import Exchange

STEP_NS = 100 * MS  # between two moves of the clock: less than the watermark
REAL_S = 0.002  # least real time a step takes, for what the client does by the real clock
ANSWER_REAL_S = 0.25  # real time after which a request counts as one that is never answered


class SteppedClock:
    """The time of an exchange as the clock of a client: whoever sleeps wakes when it has passed.

    ```python
    clock = SteppedClock(exchange)
    live = Live(..., exchange=lambda: clock.listening(open_at(url)), clocks=clock.clocks)
    await clock.pass_until(until_ns)
    ```

    After each step the clock stands still until both have read everything the other sent, and
    until every request the client has made is answered: the network takes no event time.
    """

    def __init__(self, exchange: Exchange) -> None:
        """Stand where the exchange stands."""
        self.now_ns = exchange.now_ns
        self._exchange = exchange
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._asked: dict[int, float] = {}

    @property
    def clocks(self) -> Clocks:
        """Return what `Live` takes the time from."""
        return Clocks(
            sleep=self._sleep,
            now_s=lambda: self.now_ns / SECOND,
            wall_ns=lambda: self.now_ns,
        )

    async def _sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due_ns = self.now_ns + int(max(seconds, 0.0) * SECOND)
        heapq.heappush(self._sleepers, (due_ns, next(self._number), woken))
        await woken

    def listening(self, venue: Any) -> Any:
        """Return the client, its requests known to the clock, without pacing by the real one."""
        venue.enableRateLimit = False
        fetch = venue.fetch

        async def asked(*arguments: Any, **named: Any) -> Any:
            number = next(self._number)
            self._asked[number] = asyncio.get_running_loop().time()
            try:
                return await fetch(*arguments, **named)
            finally:
                del self._asked[number]

        venue.fetch = asked
        return venue

    async def pass_until(self, until_ns: int) -> None:
        """Let time pass up to `until_ns` [ns UTC]; the exchange plays while it has something."""
        while self.now_ns < until_ns:
            self.now_ns = min(self.now_ns + STEP_NS, until_ns)
            await self._exchange.play(self.now_ns)
            await self.settle(REAL_S)
            while self._sleepers and self._sleepers[0][0] <= self.now_ns:
                _, _, woken = heapq.heappop(self._sleepers)
                if not woken.done():
                    woken.set_result(None)
            await self.settle()

    async def settle(self, least_s: float = 0.0) -> None:
        """Wait until nobody has anything left to do now, at least `least_s` seconds."""
        loop = asyncio.get_running_loop()
        begun_s, num_idle = loop.time(), 0
        while num_idle < 3 or loop.time() < begun_s + least_s:
            await asyncio.sleep(0 if num_idle < 3 else least_s / 4)
            num_idle = 0 if self._is_busy(loop) else num_idle + 1

    def _is_busy(self, loop: Any) -> bool:
        """Return whether a callback is due, a socket holds something unread, or REST is asked."""
        if loop._ready or loop._selector.select(0):  # asyncio's own; nothing public says it
            return True
        return any(loop.time() < asked_s + ANSWER_REAL_S for asked_s in self._asked.values())
