"""Own the market: feed, caches and peer slots, one decision point at a time."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from actors.launch import Launch
from actors.resume import resume_point
from alphapulse import cluster, logs
from alphapulse.data.feed import MarketFeed, PointFeed
from alphapulse.data.shards import Shards, dealt
from alphapulse.domain.errors import InvalidRequest, Unavailable
from alphapulse.domain.inference import DecisionPoint, Prediction, trace_id
from alphapulse.domain.inputs import Tensor
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import CacheView

log = logs.get_logger("market")
T = TypeVar("T")


class MarketDataActor:
    """Holds the feed; a restarted one replays to where the run goes on before it answers.

    With `ray.market_shards` above 1 its symbols are led by shard actors, which it keeps in step.
    One that was restarted has lost its cache: then all of them begin anew.
    """

    def __init__(self, launch: Launch) -> None:
        logs.configure(Path(launch.home) / "logs", process="market_data", session=launch.session)
        self._launch = launch
        self._feed = self._new_feed()
        self._opened = False
        self._point: DecisionPoint | None = None
        self._before_ns = -1  # instant before the newest point

    async def open(self, until_ns: int) -> None:
        """Seed the cache and replay up to and including the instant `until_ns`, -1 for none."""
        if not self._opened:
            await self._feed.open()
            if until_ns > 0:
                await self._feed.skip_to(until_ns)
            self._before_ns = until_ns
            self._opened = True

    async def advance(
        self, after_ns: int, outputs: Sequence[Prediction], accounts: Mapping[str, Tensor]
    ) -> DecisionPoint | None:
        """Return the next point; the same one again if its answer was lost on the way."""
        await self._stand_at(after_ns, or_before=True)
        if self._point is not None and self._point.event_ns > after_ns:
            return self._point
        self._feed.put_outputs(outputs)
        self._feed.put_accounts(accounts)
        self._before_ns = after_ns
        self._point = await self._led(self._feed.advance())
        if self._point is not None:
            self._tell(self._point)
        return self._point

    async def quote(self, symbol: str, at_ns: int, after_ns: int) -> Quote | None:
        """Return what an order sent at `after_ns` meets at `at_ns`; None if nothing any more.

        The source ended before it, or it is live and has moved past it: a venue gives no second
        chance.
        """
        await self._stand_at(after_ns, or_before=False)
        if not self._launch.recording and await self._feed.has_passed(symbol, at_ns):
            return None
        return await self._led(self._feed.quote(symbol, at_ns))

    async def _led(self, answer: Awaitable[T]) -> T:
        """Return the answer; where a shard does not know where it is, begin anew with the next."""
        try:
            return await answer
        except Unavailable as error:
            if self._launch.settings.ray.market_shards > 1:
                log.warning("shards begin anew", **logs.describe(error))
                self._feed, self._opened, self._point = self._new_feed(), False, None
            raise

    async def _stand_at(self, after_ns: int, *, or_before: bool) -> None:
        """Replay a recording anew unless its newest instant (or the one before) is `after_ns`."""
        if not self._opened:  # restarted by Ray: the history says where to go on
            await self.open(await resume_point(self._launch))
        newest_ns = self._before_ns if self._point is None else self._point.event_ns
        stands = after_ns == newest_ns or (or_before and after_ns == self._before_ns)
        if stands or not self._launch.recording:
            return
        log.warning("replaying anew", to_ns=after_ns, was_ns=newest_ns)
        self._feed, self._opened, self._point = self._new_feed(), False, None
        await self.open(after_ns)

    def _new_feed(self) -> PointFeed:
        settings = self._launch.settings
        symbols = settings.market.symbols
        feed: PointFeed
        if settings.ray.market_shards == 1:  # no process to ask: faster on a small machine
            feed = MarketFeed(self._launch.provider(), settings.market.instruments, settings.feed)
        else:
            numbers = range(len(dealt(symbols, settings.ray.market_shards)))
            feed = PointFeed(Shards([cluster.MarketShard(k) for k in numbers], symbols), symbols)
        feed.pace(self._launch.speed)
        return feed

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
        return await self._feed.view(what, **arguments)

    async def cached(self, symbol: str) -> CacheView:
        """Return all that is kept of `symbol` now."""
        if symbol not in self._launch.settings.market.symbols:
            raise InvalidRequest(
                f"{symbol}: expected one of {', '.join(self._launch.settings.market.symbols)}"
            )
        return await self._feed.cached(symbol)

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()
