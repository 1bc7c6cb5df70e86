"""Make decision points of the windows of a market: inputs, marks and what is new to store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.compiling import compile_inputs
from alphapulse.data.refusals import Refusals
from alphapulse.data.rows import read_only
from alphapulse.data.shard import Shard
from alphapulse.data.shards import Shards
from alphapulse.domain.inference import DecisionPoint, Prediction, StoredRow
from alphapulse.domain.inputs import INPUT_SPEC, IncompleteInput, ModelInput, Tensor
from alphapulse.domain.market import SECOND_NS, Instrument
from alphapulse.domain.quality import Reason
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import CacheView, MarketWindow
from alphapulse.features.inputs import PeerTable, build, pack, stored_rows
from alphapulse.features.marks import mark_of
from alphapulse.features.masks import substitutes
from alphapulse.interfaces import DataProvider


def reference_of(symbol: str, symbols: Sequence[str]) -> str:
    """Return the instrument a model sees beside `symbol`: the second one, beside it the first.

    >>> [reference_of(s, ("ETH", "BTC", "SOL")) for s in ("ETH", "BTC", "SOL")]
    ['BTC', 'ETH', 'BTC']
    """
    return symbols[1] if symbol != symbols[1] else symbols[0]


class PointFeed:
    """Turns windows into decision points; it never goes past one before the next is asked for.

    `Shards` says which instants there are.

    ```python
    feed = PointFeed(shards, symbols)
    await feed.open()
    while (point := await feed.advance()) is not None:
        feed.put_outputs(decide(point))
    ```

    Attributes:
        peers: by symbol, the last outputs of the models.
    """

    def __init__(
        self,
        shards: Shards,
        symbols: Sequence[str],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read before `open`.

        Args:
            shards: where the windows come from.
            symbols: what is watched, the primary one first.
            sleep: waits that many seconds.
            clock: seconds of a clock that never goes back; only `pace` reads it.
        """
        self._shards = shards
        self._symbols = tuple(symbols)
        self.peers = {symbol: PeerTable() for symbol in symbols}
        self._account: dict[str, Tensor] = {
            symbol: np.zeros(INPUT_SPEC.num_account_fields, np.float32) for symbol in symbols
        }
        self._passed: MarketWindow | None = None  # reached by skip_to, still to be given out
        self._handed: dict[tuple[str, str], int] = {}  # newest stored row by stream
        self._refusals = Refusals()
        self._substitutes: dict[str, tuple[Reason, ...]] = {}  # in force at the newest instant
        self._sleep, self._clock = sleep, clock
        self._speed = 0.0
        self._start: tuple[int, float] | None = None  # event time [ns] and clock [s] of the first

    async def open(self) -> None:
        """Fill the cache with the bars before the first event."""
        await asyncio.to_thread(compile_inputs)
        await self._shards.open()

    def pace(self, speed: float) -> None:
        """Let event time run at most `speed` times as fast as the clock; 0 is without waiting."""
        self._speed, self._start = speed, None

    async def advance(self) -> DecisionPoint | None:
        """Return the next decision instant with everything a model may see; None at the end.

        Instants are those of the source, complete or not; an incomplete input says what is missing.
        """
        window, self._passed = self._passed, None
        if window is None:
            window = await self._shards.next()
        if window is None:
            return None
        await self._wait(window.event_ns)
        self._refusals.note(window.event_ns, self._shards.refused)
        inputs = {symbol: self._input(window, symbol) for symbol in self._symbols}
        self._substitutes = {
            symbol: substitutes(input)
            for symbol, input in inputs.items()
            if isinstance(input, ModelInput)
        }
        return DecisionPoint(
            event_ns=window.event_ns,
            window_version=window.version,
            inputs=inputs,
            packages={
                symbol: pack(window, input)
                for symbol, input in inputs.items()
                if isinstance(input, ModelInput)
            },
            rows=self._new_rows(window),
            last_trade_id=window.last_trade_id,
            last_book_id=window.last_book_id,
            received_ns=window.received_ns,
            marks={s: mark for s in self._symbols if (mark := mark_of(window, s)) is not None},
        )

    async def quote(self, symbol: str, at_ns: int) -> Quote | None:
        """Return what an order of `symbol` that arrives at `at_ns` meets; see `Shards.quote`."""
        return await self._shards.quote(symbol, at_ns)

    async def has_passed(self, symbol: str, at_ns: int) -> bool:
        """Return whether events at or after `at_ns` [ns UTC] have been applied already."""
        return await self._shards.has_passed(symbol, at_ns)

    async def skip_to(self, event_ns: int) -> None:
        """Replay up to and including the instant `event_ns` without building inputs.

        Its rows count as handed out. If the source begins later, nothing is skipped.
        """
        window = await self._shards.skip_to(event_ns)
        if window is None:
            return
        self._refusals.note(window.event_ns, self._shards.refused)
        if window.event_ns > event_ns:
            self._passed = window
        else:
            self._new_rows(window)

    def put_accounts(self, vectors: Mapping[str, Tensor]) -> None:
        """Keep what the next inputs show of the account.

        Args:
            vectors: by symbol, float32 (4,) position, unrealised result [R], whole seconds in
                trade / 300 (60 a bar where a run decides by minutes), drawdown; zeros until
                somebody says otherwise.
        """
        self._account.update(vectors)

    def put_outputs(self, predictions: Iterable[Prediction]) -> None:
        """Keep the outputs of a decision: the next one sees them as its peers."""
        for prediction in predictions:
            self.peers[prediction.symbol].put(prediction)

    async def view(self, what: str, **arguments: Any) -> Any:
        """Return a view for people: `snapshot`, `counters`, `candles`, `book` or `pivots`.

        Snapshot and counters say how the source is, too.
        """
        found = await self._shards.view(what, arguments)
        if what == "counters":
            return found | {"health": await self._shards.view("health", {})}
        if what == "snapshot":
            return found | {
                "health": await self._shards.view("health", {}),
                "refused": dict(self._refusals.recent),
                "substituted": {s: list(reasons) for s, reasons in self._substitutes.items()},
            }
        return found

    async def cached(self, symbol: str) -> CacheView:
        """Return all that is kept of `symbol` now, with the models' last outputs for it."""
        view: CacheView = await self._shards.view("cached", {"symbol": symbol})
        peers = read_only(*self.peers[symbol].at(view.at_ns + 1))
        return replace(view, peers={symbol: peers})

    def _input(self, window: MarketWindow, symbol: str) -> ModelInput | IncompleteInput:
        return build(
            window,
            symbol=symbol,
            reference=reference_of(symbol, self._symbols),
            peers=self.peers[symbol],
            account_A=self._account[symbol],
        )

    def _new_rows(self, window: MarketWindow) -> tuple[StoredRow, ...]:
        rows = stored_rows(window, newer_than=self._handed)
        for row in rows:  # oldest first in each stream
            self._handed[row.symbol, row.stream] = row.ts_ns
        return rows

    async def _wait(self, event_ns: int) -> None:
        if not self._speed:
            return
        now_s = self._clock()
        if self._start is None:
            self._start = (event_ns, now_s)
        first_ns, first_s = self._start
        due_s = first_s + (event_ns - first_ns) / SECOND_NS / self._speed
        if due_s > now_s:
            await self._sleep(due_s - now_s)


class MarketFeed(PointFeed):
    """The decision points of one source, whose symbols are all led in this process.

    Attributes:
        cache: everything known at the newest instant.
    """

    def __init__(
        self,
        provider: DataProvider,
        instruments: Sequence[Instrument],
        settings: Feed,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to lead the events of `provider`; see `PointFeed` for the rest.

        Args:
            provider: source of history and events.
            instruments: what is watched, the primary one first.
            settings: watermark, silence and sizes of the cache.
            sleep: waits that many seconds.
            clock: seconds of a clock that never goes back; only `pace` reads it.
        """
        symbols = [instrument.symbol for instrument in instruments]
        shard = Shard(provider, instruments, settings)
        super().__init__(Shards([shard], symbols), symbols, sleep=sleep, clock=clock)
        self.cache = shard.cache
        self._shard = shard

    def counters(self) -> dict[str, Any]:
        """Return how many events and bars there were, and how many were refused, by reason."""
        return self._shard.counters()
