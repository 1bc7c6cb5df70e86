"""Lead a source of events through the cache, one decision instant at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.cache import MarketCache
from alphapulse.data.intake import Intake
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import (
    INPUT_SPEC,
    DecisionPoint,
    IncompleteInput,
    ModelInput,
    Prediction,
    StoredRow,
    Tensor,
)
from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BookDelta,
    Instrument,
    MarketEvent,
    MarketWindow,
    Timeframe,
    Trade,
)
from alphapulse.domain.trading import Quote
from alphapulse.features.inputs import PeerTable, build, pack, stored_rows
from alphapulse.features.marks import mark_of
from alphapulse.interfaces import DataProvider
from alphapulse.logs import get_logger

log = get_logger("data")
NO_LEVELS = np.empty((0, 2))


class MarketFeed:
    """Turns events into decision points; it never goes past one before the next is asked for.

    A decision instant is every whole second once each symbol has a one-second bar; where candles
    are all there is, every close of the lowest timeframe. It is reached when an event at or after
    it has left the merger: then nothing before it can come any more.

    ```python
    feed = MarketFeed(provider, instruments, settings)
    await feed.open()
    while (point := await feed.advance()) is not None:
        feed.put_outputs(decide(point))
    ```

    Attributes:
        cache: everything known at the newest instant.
        peers: by symbol, the last outputs of the models.
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
        """Prepare; nothing is read before `open`.

        Args:
            provider: source of history and events.
            instruments: what is watched, the primary one first.
            settings: watermark, silence and sizes of the cache.
            sleep: waits that many seconds.
            clock: seconds of a clock that never goes back; only `pace` reads it.
        """
        self._provider = provider
        self._instruments = tuple(instruments)
        symbols = tuple(i.symbol for i in self._instruments)
        self.cache = MarketCache(self._instruments, settings)
        self._intake = Intake(symbols, settings, touch=self._touch)
        self.peers = {symbol: PeerTable() for symbol in symbols}
        self._account: dict[str, Tensor] = {
            symbol: np.zeros(INPUT_SPEC.num_account_fields, np.float32) for symbol in symbols
        }
        self._has_ticks = False
        self._lowest: Timeframe | None = None  # timeframe of the history's shortest bars
        self._next_ns: int | None = None  # instant to be reached next
        self._reached_ns = -1  # newest instant reached
        self._applied_ns = -1  # newest event in the cache
        self._passed_ns: int | None = None  # instant reached by skip_to, still to be given out
        self._handed: dict[tuple[str, str], int] = {}  # newest stored row by stream
        self._sleep, self._clock = sleep, clock
        self._speed = 0.0
        self._start: tuple[int, float] | None = None  # event time [ns] and clock [s] of the first

    async def open(self) -> None:
        """Fill the cache with the bars before the first event."""
        for timeframe in TIMEFRAMES:
            for instrument in self._instruments:
                series = await self._provider.history(instrument, timeframe, None)
                self.cache.seed(series)
                if len(series) and self._lowest is None:
                    self._lowest = timeframe
                log.info(
                    "history seeded", symbol=series.symbol, timeframe=timeframe, bars=len(series)
                )
        self._intake.open(self._provider.events())

    def pace(self, speed: float) -> None:
        """Let event time run at most `speed` times as fast as the clock; 0 is without waiting."""
        self._speed, self._start = speed, None

    async def advance(self) -> DecisionPoint | None:
        """Return the next decision instant with everything a model may see; None at the end.

        Instants are those of the source, complete or not; an incomplete input says what is missing.
        """
        event_ns, self._passed_ns = self._passed_ns, None
        if event_ns is None:
            event_ns = await self._next_instant()
        if event_ns is None:
            return None
        await self._wait(event_ns)
        window = self.cache.window(event_ns)
        inputs = {symbol: self._input(window, symbol) for symbol in self.peers}
        return DecisionPoint(
            event_ns=event_ns,
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
            marks={s: mark for s in self.peers if (mark := mark_of(window, s)) is not None},
        )

    async def quote(self, symbol: str, at_ns: int) -> Quote | None:
        """Lead the events up to `at_ns` and return what an order that arrives then meets.

        With ticks that is the book, or the newest trade while the book is unknown; with candles
        only, the open of the next bar. None where the source ends before.

        Args:
            symbol: the instrument.
            at_ns: after the newest instant, before the next one [ns UTC].

        Raises Unavailable if events at or after `at_ns` have been applied already.
        """
        if self.has_passed(at_ns):
            raise Unavailable(
                f"quote of {symbol} at {at_ns}: expected a time after {self._applied_ns}, which "
                "the feed has reached; replay to the instant before it"
            )
        return await (self._met(symbol, at_ns) if self._has_ticks else self._open(symbol, at_ns))

    def has_passed(self, at_ns: int) -> bool:
        """Return whether events at or after `at_ns` [ns UTC] have been applied already."""
        return at_ns <= self._applied_ns

    async def _met(self, symbol: str, at_ns: int) -> Quote | None:
        while (event := await self._intake.next()) is not None:
            if event.ts_ns >= at_ns:
                self._intake.put_back([event])
                return self.cache.quote(symbol, at_ns)
            self._apply(event)
        return None

    async def _open(self, symbol: str, at_ns: int) -> Quote | None:
        """Return the open of the next bar; the bars on the way wait for their instants."""
        passed: list[MarketEvent] = []
        found: Bar | None = None
        while found is None and (event := await self._intake.next()) is not None:
            passed.append(event)
            if isinstance(event, Bar) and (event.symbol, event.timeframe) == (symbol, self._lowest):
                found = event if event.open_ns >= self._reached_ns else None
        self._intake.put_back(passed)
        if found is None:
            return None
        return Quote(symbol, at_ns, "open", found.open, NO_LEVELS, NO_LEVELS)

    async def skip_to(self, event_ns: int) -> None:
        """Replay up to and including the instant `event_ns` without building inputs.

        Its rows count as handed out. If the source begins later, nothing is skipped.
        """
        while (instant := await self._next_instant()) is not None:
            if instant > event_ns:
                self._passed_ns = instant
                return
            self._new_rows(self.cache.window(instant))
            if instant == event_ns:
                return

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

    def counters(self) -> dict[str, Any]:
        """Return how many events and bars there were, and how many were refused, by reason."""
        cache = self.cache
        return {
            "events": cache.num_events,
            "bars": {tf.value: cache.num_bars[tf.value] for tf in TIMEFRAMES},
            "late": dict(self._intake.late),
            "late_candles": self._intake.late_candles,
            "quarantined": dict(Counter(cache.quarantined) + Counter(self._intake.refused)),
        }

    def _input(self, window: MarketWindow, symbol: str) -> ModelInput | IncompleteInput:
        (reference,) = (other for other in self.peers if other != symbol)
        return build(
            window,
            symbol=symbol,
            reference=reference,
            peers=self.peers[symbol],
            account_A=self._account[symbol],
        )

    def _new_rows(self, window: MarketWindow) -> tuple[StoredRow, ...]:
        rows = stored_rows(window, newer_than=self._handed)
        for row in rows:  # oldest first in each stream
            self._handed[row.symbol, row.stream] = row.ts_ns
        return rows

    async def _next_instant(self) -> int | None:
        """Apply all events before the next decision instant, close its bars and return it."""
        while (event := await self._intake.next()) is not None:
            if not self._has_ticks and isinstance(event, Trade | BookDelta):
                self._has_ticks, self._next_ns = True, None
            instant = self._next_ns
            if instant is not None and event.ts_ns >= instant:
                self._intake.put_back([event])
                self._reach(instant)
                if self.cache.has_seconds or not self._has_ticks:
                    return instant
                continue
            self._apply(event)
            if instant is None:
                self._next_ns = self._instant_after(event)
        instant = self._next_ns
        if instant is None or self._has_ticks:  # the last second of ticks is never known to be over
            return None
        self._reach(instant)
        return instant

    def _apply(self, event: MarketEvent) -> None:
        self.cache.apply(event)
        self._applied_ns = max(self._applied_ns, event.ts_ns)

    def _reach(self, instant: int) -> None:
        self.cache.close_until(instant)
        self._reached_ns = instant
        self._next_ns = instant + SECOND_NS if self._has_ticks else None

    def _instant_after(self, event: MarketEvent) -> int | None:
        if self._has_ticks:
            return Timeframe.S1.floor(event.ts_ns) + SECOND_NS
        if not isinstance(event, Bar):
            return None
        if self._lowest is None or event.timeframe.ns < self._lowest.ns:
            self._lowest = event.timeframe
        is_next = event.timeframe is self._lowest and event.close_ns > self._reached_ns
        return event.close_ns if is_next else None

    def _touch(self, symbol: str) -> tuple[float, float] | None:
        quote = self.cache.quote(symbol, self._applied_ns)
        if quote is None or quote.source != "book":
            return None
        return float(quote.bids_L2[0, 0]), float(quote.asks_L2[0, 0])

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
