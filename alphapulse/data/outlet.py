"""Hold events back while trades are being fetched that belong before them, and tell lateness."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from alphapulse.domain.market import BookDelta, FeedGap, MarketEvent, Trade

NS_PER_MS = 1_000_000
FOREVER_NS = 2**63 - 1
LATE = "trades came after their seconds had passed"
QUEUE_EVENTS = 10_000  # waiting for the reader; at the bound `is_full`, see Outlet


class Outlet:
    """All that leaves a live source: one queue, held back while a hole in the trades is filled.

    While somebody holds, events wait; they leave in order of their time when nobody does any more.
    So a trade fetched late stands where it belongs, as long as what is newer than it by more than
    the watermark has not left. If it has, a gap that begins with the trade is told first: its
    seconds were closed without it, and the cache flags them.

    At 10 000 events `is_full`: the source then drops messages at its door, which shows as a hole,
    and fetches them later.

    ```python
    outlet.hold("ETH/USDT")
    ...  # fetch; put() what was missing
    outlet.release("ETH/USDT")
    event = await outlet.get()
    ```

    Attributes:
        on_late_book: told of a book change that leaves too late to be put in order.
    """

    def __init__(self, *, watermark_ms: int) -> None:
        self.on_late_book: Callable[[BookDelta], None] = lambda change: None
        self._watermark_ns = watermark_ms * NS_PER_MS
        self._queue: deque[MarketEvent] = deque()
        self._held: list[MarketEvent] = []
        self._holders: set[str] = set()
        self._lost: dict[str, tuple[FeedGap, int]] = {}
        self._late_ns: dict[str, int] = {}  # by symbol, the first of the trades that come late
        self._newest_ns = -1
        self._error: Exception | None = None
        self._is_filled = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Return whether no more events should be put."""
        return len(self._queue) + len(self._held) >= QUEUE_EVENTS

    def put(self, event: MarketEvent) -> None:
        """Take an event; it leaves at once if nobody holds."""
        if self._holders:
            self._held.append(event)
        else:
            self._leave(event)

    def hold(self, symbol: str) -> None:
        """Keep everything back until `release`, on behalf of that symbol."""
        self._holders.add(symbol)

    def release(self, symbol: str) -> None:
        """Let everything go, unless another symbol holds it."""
        self._holders.discard(symbol)
        if not self._holders:
            held, self._held = self._held, []
            for event in sorted(held, key=lambda event: event.ts_ns):
                self._leave(event)

    def mark_lost(self, gap: FeedGap, until_ns: int = FOREVER_NS) -> None:
        """Tell `gap` before every book change of its symbol, as long as they are inside.

        A gap ends at its place in the order, and a second that has closed cannot be taken back: so
        it is told again and again, first as early as the order allows.

        Args:
            gap: its `from_ns`, symbol and reason; its end is each change's time.
            until_ns: where it ends [ns UTC]; never, if `mark_whole` says when.
        """
        self._lost[gap.symbol] = (gap, until_ns)
        if gap.from_ns < self._safe_ns:
            self._append(replace(gap, ts_ns=self._safe_ns))

    def mark_whole(self, symbol: str) -> None:
        """Note that the trades of the symbol are whole again."""
        self._lost.pop(symbol, None)

    def fail(self, error: Exception) -> None:
        """Raise `error` to the reader, once all that came before has been read."""
        self._error = error
        self._is_filled.set()

    async def get(self) -> MarketEvent:
        """Return the next event; raises what `fail` was given."""
        while not self._queue:
            if self._error is not None:
                raise self._error
            self._is_filled.clear()
            await self._is_filled.wait()
        return self._queue.popleft()

    @property
    def _safe_ns(self) -> int:
        """Return the earliest time at which an event that leaves now still finds its place."""
        return self._newest_ns - self._watermark_ns

    def _leave(self, event: MarketEvent) -> None:
        symbol, is_late = event.symbol, event.ts_ns < self._safe_ns
        if isinstance(event, Trade):
            if is_late:
                from_ns = self._late_ns.setdefault(symbol, event.ts_ns)
                self._append(FeedGap(symbol, self._safe_ns, from_ns, LATE, is_book_lost=False))
            else:
                self._late_ns.pop(symbol, None)
        elif isinstance(event, BookDelta):
            if is_late:
                self.on_late_book(event)
            gap, until_ns = self._lost.get(symbol, (None, 0))
            if gap is not None and gap.from_ns < event.ts_ns < until_ns:
                self._append(replace(gap, ts_ns=event.ts_ns))
        self._append(event)

    def _append(self, event: MarketEvent) -> None:
        self._newest_ns = max(self._newest_ns, event.ts_ns)
        self._queue.append(event)
        self._is_filled.set()
