"""Put the events of all streams into one order, waiting a bounded time for those that come late."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import Bar, BookDelta, FeedGap, MarketEvent, Trade
from alphapulse.domain.quality import Reason

NS_PER_MS = 1_000_000
QUARANTINE_SIZE = 1_000  # newest late events kept to look at; the counter knows all of them

# At one instant: the feed about itself, the book, the trades, and last the candle that closes.
GAP_RANK, BOOK_RANK, TRADE_RANK, BAR_RANK = range(4)

Key = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Late:
    """An event that came after its place in the order had been given away.

    Attributes:
        code: reason, such as `late_trade`.
        behind_ns: how far behind the newest event released before it [ns, event time].
    """

    code: Reason
    behind_ns: int
    event: MarketEvent


class Merger:
    """Orders events by (exchange time, stream, symbol, sequence) behind a bounded watermark.

    An event waits until one that is more than `watermark_ms` newer has come. One that sorts before
    what was already released is late: it is counted and quarantined. Released all the same, at
    once, are a trade, without which the trades would have a hole (the cache flags what closed
    without it), and a venue candle: it is known only after its period has ended, describes nothing
    but that period, and without it the period would stay missing.

    ```python
    merger = Merger(("ETH/USDT", "BTC/USDT"), watermark_ms=250)
    async for event in provider.events():
        for ordered in merger.push(event):
            cache.apply(ordered)
    for ordered in merger.flush():
        cache.apply(ordered)
    ```

    Attributes:
        late: number of quarantined events by reason code.
        late_candles: number of venue candles released out of order.
        quarantine: the newest quarantined events, at most 1000; older ones leave it.
    """

    def __init__(self, symbols: Sequence[str], *, watermark_ms: int) -> None:
        self.late: Counter[Reason] = Counter()
        self.late_candles = 0
        self.quarantine: deque[Late] = deque(maxlen=QUARANTINE_SIZE)
        self._order = {symbol: i for i, symbol in enumerate(symbols)}
        self._watermark_ns = watermark_ms * NS_PER_MS
        self._waiting: list[tuple[int, int, int, int, int, MarketEvent]] = []
        self._released: Key = (-1, 0, 0, 0)
        self._newest_ns = -1
        self._num_pushed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, event: MarketEvent) -> list[MarketEvent]:
        """Take one event and return those that are now safe to release, in order.

        Raises InvalidEvent if nobody watches its symbol.
        """
        key = self._key(event)
        if key < self._released:
            return self._refuse(event)
        self._num_pushed += 1  # equal keys keep the order in which they came
        heapq.heappush(self._waiting, (*key, self._num_pushed, event))
        if key[0] <= self._newest_ns:
            return []
        self._newest_ns = key[0]
        return self._release(key[0] - self._watermark_ns)

    def flush(self) -> list[MarketEvent]:
        """Return everything still waiting, in order: the source has ended."""
        return self._release(self._newest_ns + 1)

    def _release(self, before_ns: int) -> list[MarketEvent]:
        waiting = self._waiting
        if not waiting or waiting[0][0] >= before_ns:
            return []
        ready = []
        while waiting and waiting[0][0] < before_ns:
            ready.append(heapq.heappop(waiting))
        self._released = ready[-1][:4]
        return [entry[5] for entry in ready]

    def _refuse(self, event: MarketEvent) -> list[MarketEvent]:
        if isinstance(event, Bar) and event.is_venue:
            self.late_candles += 1
            return [event]
        code = _CODES[type(event)]
        self.late[code] += 1
        self.quarantine.append(Late(code, self._released[0] - event.ts_ns, event))
        return [event] if isinstance(event, Trade) else []

    def _key(self, event: MarketEvent) -> Key:
        symbol = self._order.get(event.symbol)
        if symbol is None:
            raise InvalidEvent(
                f"{event.symbol}: expected an event of {', '.join(self._order)}; "
                "subscribe to the configured symbols only"
            )
        if isinstance(event, Trade):
            return (event.ts_ns, TRADE_RANK, symbol, event.trade_id)
        if isinstance(event, BookDelta):
            return (event.ts_ns, BOOK_RANK, symbol, event.last_id)
        if isinstance(event, Bar):
            return (event.ts_ns, BAR_RANK, symbol, event.timeframe.ns)
        return (event.ts_ns, GAP_RANK, symbol, event.from_ns)


_CODES: dict[type[MarketEvent], Reason] = {
    Trade: Reason.LATE_TRADE,
    BookDelta: Reason.LATE_BOOK,
    Bar: Reason.LATE_BAR,
    FeedGap: Reason.LATE_GAP,
}
