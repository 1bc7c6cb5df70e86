"""Lead several shards in step from one decision instant to the next, and show them as one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from alphapulse.data.shard import Ahead, Shown
from alphapulse.domain.market import SECOND_NS, TIMEFRAMES, Timeframe
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import MarketWindow


class ShardLike(Protocol):
    """A shard here or in another process; `data.shard.Shard` says what each method does."""

    async def open(self) -> None:
        """Fill the cache with the bars before the first event."""

    async def look(self) -> Ahead:
        """Return the next tick or bar of the lowest timeframe."""

    async def lead(self, instant_ns: int, *, has_ticks: bool) -> Ahead:
        """Apply every event before `instant_ns`."""

    async def show(self, instant_ns: int, *, has_ticks: bool, is_wanted: bool = True) -> Shown:
        """Close what ends at `instant_ns` and return what is there."""

    async def quote(self, symbol: str, at_ns: int, *, has_ticks: bool) -> Quote | None:
        """Return what an order of `symbol` meets at `at_ns`."""

    async def has_passed(self, symbol: str, at_ns: int) -> bool:
        """Return whether events at or after `at_ns` have been applied already."""

    async def view(self, what: str, arguments: Mapping[str, Any]) -> Any:
        """Return a view for people."""


def dealt(symbols: Sequence[str], num_shards: int) -> list[tuple[str, ...]]:
    """Return which symbols each shard has: dealt in turn; no shard without one.

    >>> dealt(("ETH/USDT", "BTC/USDT", "SOL/USDT"), 2)
    [('ETH/USDT', 'SOL/USDT'), ('BTC/USDT',)]
    """
    return [tuple(symbols[k::num_shards]) for k in range(min(num_shards, len(symbols)))]


class Shards:
    """One market made of shards: the same instants and windows, however many there are.

    An instant is every whole second once each symbol has a one-second bar; where candles are all
    there is, every close of the lowest timeframe. It is reached when an event at or after it waits
    in one of the shards: then all of them close there.

    ```python
    shards = Shards([Shard(provider, instruments, settings)], symbols)
    await shards.open()
    while (window := await shards.next()) is not None:
        ...
    ```

    Attributes:
        refused: number of events refused up to the newest instant, by reason.
    """

    def __init__(self, shards: Sequence[ShardLike], symbols: Sequence[str]) -> None:
        """Lead `shards`, which have `symbols` as `dealt` deals them."""
        self._shards = tuple(shards)
        held = dealt(symbols, len(shards))
        self._of = {s: next(k for k, own in enumerate(held) if s in own) for s in symbols}
        self._has_ticks = False
        self._next_ns = -1  # instant to be reached next, where there are ticks
        self._version = 0
        self.refused: Counter[str] = Counter()

    async def open(self) -> None:
        """Fill the caches with the bars before the first event."""
        await self._each("open")

    async def next(self) -> MarketWindow | None:
        """Return the window of the next instant, None at the end of the source."""
        return await self._window(wanted_from_ns=-1)

    async def skip_to(self, event_ns: int) -> MarketWindow | None:
        """Return the window of `event_ns`, or of the first instant after it; None at the end."""
        return await self._window(wanted_from_ns=event_ns)

    async def quote(self, symbol: str, at_ns: int) -> Quote | None:
        """Lead the symbol's shard up to `at_ns` and return what an order that arrives then meets.

        With ticks that is the book, or the newest trade while the book is unknown; with candles
        only, the open of the next bar. None where the source ends before.

        Args:
            symbol: the instrument.
            at_ns: after the newest instant, before the next one [ns UTC].

        Raises Unavailable if events at or after `at_ns` have been applied already.
        """
        shard = self._shards[self._of[symbol]]
        return await shard.quote(symbol, at_ns, has_ticks=self._has_ticks)

    async def has_passed(self, symbol: str, at_ns: int) -> bool:
        """Return whether events of the symbol's shard at or after `at_ns` have been applied."""
        return await self._shards[self._of[symbol]].has_passed(symbol, at_ns)

    async def view(self, what: str, arguments: Mapping[str, Any]) -> Any:
        """Return a view for people: of one symbol, or of all of them put together."""
        if "symbol" in arguments:
            return await self._shards[self._of[arguments["symbol"]]].view(what, arguments)
        parts = await self._each("view", what, arguments)
        if what == "health":
            return healths(parts)
        return self._snapshot(parts) if what == "snapshot" else counted(parts)

    async def _window(self, *, wanted_from_ns: int) -> MarketWindow | None:
        while (instant_ns := await self._instant()) is not None:
            is_wanted = instant_ns >= wanted_from_ns
            shown: list[Shown] = await self._each(
                "show", instant_ns, has_ticks=self._has_ticks, is_wanted=is_wanted
            )
            self._next_ns = instant_ns + SECOND_NS
            self.refused = sum((Counter(one.refused) for one in shown), Counter())
            if all(one.is_whole for one in shown):
                self._version += 1
                if is_wanted:
                    return self._whole(shown)
        return None

    async def _instant(self) -> int | None:
        """Lead all shards to the next instant and return it; nothing is closed yet."""
        while True:
            if not self._has_ticks:
                aheads = await self._each("look")
                if not self._note_ticks(aheads):
                    closes = [a.close_ns for a in aheads if a.close_ns is not None]
                    if not closes:
                        return None
                    self._next_ns = min(closes)
            instant_ns, had_ticks = self._next_ns, self._has_ticks
            aheads = await self._each("lead", instant_ns, has_ticks=had_ticks)
            if had_ticks:  # the last second of ticks is never known to be over
                return instant_ns if any(a.event_ns is not None for a in aheads) else None
            if not self._note_ticks(aheads):
                return instant_ns

    def _note_ticks(self, aheads: Iterable[Ahead]) -> bool:
        """Return whether a tick waits: from the first on, instants are whole seconds."""
        times = [a.event_ns for a in aheads if a.is_tick and a.event_ns is not None]
        if times:
            self._has_ticks = True
            self._next_ns = Timeframe.S1.floor(min(times)) + SECOND_NS
        return bool(times)

    def _whole(self, shown: Sequence[Shown]) -> MarketWindow:
        """Return the windows of all shards as one, symbols in their order."""
        windows = {s: shown[k].window for s, k in self._of.items()}
        kept = {s: window for s, window in windows.items() if window is not None}
        order = {symbol: i for i, symbol in enumerate(self._of)}
        newest = max(shown, key=lambda one: (*one.newest[:2], order.get(one.newest[2], -1))).window
        first = next(iter(kept.values()))
        return replace(
            first,
            version=self._version,
            streams={
                (s, tf): window.streams[s, tf]
                for s, window in kept.items()
                for tf in TIMEFRAMES
                if (s, tf) in window.streams
            },
            books={s: window.books[s] for s, window in kept.items() if s in window.books},
            last_trade_id={s: window.last_trade_id[s] for s, window in kept.items()},
            last_book_id={s: window.last_book_id[s] for s, window in kept.items()},
            received_ns=0 if newest is None else newest.received_ns,
            down=frozenset(s for s, window in kept.items() if s in window.down),
        )

    def _snapshot(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "event_at": max((p["event_at"] for p in parts if p["event_at"]), default=None),
            "version": self._version,
            "symbols": {s: parts[k]["symbols"][s] for s, k in self._of.items()},
        }

    async def _each(self, method: str, *given: Any, **named: Any) -> list[Any]:
        """Return what `method` of every shard answers, asked at the same time."""
        asked = [getattr(shard, method)(*given, **named) for shard in self._shards]
        return [await asked[0]] if len(asked) == 1 else list(await asyncio.gather(*asked))


def counted(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counters of all shards as those of one feed."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, Mapping):
                total[name] = _added(total.get(name, {}), value)
            else:
                total[name] = total.get(name, 0) + value
    return total


def healths(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the health of all sources as that of one."""
    skews = [part["skew_ms"] for part in parts if part.get("skew_ms") is not None]
    return {
        "skew_ms": max(skews, key=abs, default=None),
        "symbols": {s: one for part in parts for s, one in part.get("symbols", {}).items()},
    }


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}
