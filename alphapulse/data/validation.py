"""Refuse events that cannot be right, keep them, and say why."""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.numbering import BookIds, TradeIds
from alphapulse.domain.market import SECOND_NS, BookDelta, FeedGap, Floats, MarketEvent, Trade
from alphapulse.domain.quality import Reason

QUARANTINE_SIZE = 1_000  # newest refused events kept to look at; the counter knows all of them
RECENT = 32  # newest trades whose median a price is held against
ENOUGH = 8  # fewer recent trades say nothing
RENEWED = 8  # trades between two medians: a median of 32 costs as much as 50 comparisons

AHEAD_NS = 60 * SECOND_NS  # of being received; further ahead one event would make all others stale

Touch = Callable[[str], tuple[float, float] | None]  # best bid and ask of a symbol, None if unknown


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An event that was refused.

    Attributes:
        code: why.
        message: what was expected and what was there.
    """

    code: Reason
    message: str
    event: MarketEvent


class Validator:
    """Stands before the merger and hands on what can be right; nothing is changed or made up.

    A trade far from the recent ones is believed if the book's touch stands there too. Otherwise it
    waits for the next trade of its symbol: if that stands there as well, both are handed on and
    the level is the new one; if not, it is refused. A crash of 5 % in a second therefore loses
    nothing as long as its second trade comes within the watermark, and one trade if that comes
    later. A single wrong print is refused; two in a row at the same price are believed.

    ```python
    validator = Validator(symbols, settings, touch=touch)
    for event in validator.take(event):
        merger.push(event)
    ```

    Attributes:
        refused: number of refused events by reason.
        quarantine: the newest of them, at most 1000; older ones leave it.
    """

    def __init__(self, symbols: Sequence[str], settings: Feed, *, touch: Touch) -> None:
        """Prepare to look at the events of `symbols`; `touch` says where a book stands."""
        self.refused: Counter[Reason] = Counter()
        self.quarantine: deque[Quarantined] = deque(maxlen=QUARANTINE_SIZE)
        self._ids = {symbol: TradeIds() for symbol in symbols}
        self._book_ids = {symbol: BookIds() for symbol in symbols}
        self._levels = {symbol: _Level(settings.price_jump_pct / 100) for symbol in symbols}
        self._stale_ns = int(settings.stale_s * SECOND_NS)
        self._hold_ns = settings.watermark_ms * 1_000_000
        self._touch = touch
        self._newest_ns = -1
        self._held: dict[str, Trade] = {}  # by symbol, the trade that waits to be confirmed

    def take(self, event: MarketEvent) -> list[MarketEvent]:
        """Return what may be handed on now: the event, nothing, or it behind one that waited."""
        symbol = event.symbol
        if symbol not in self._ids:
            return self._refuse(Reason.UNKNOWN_SYMBOL, f"watched are {', '.join(self._ids)}", event)
        if isinstance(event, Trade | BookDelta) and event.ts_ns > event.received_ns + AHEAD_NS:
            ahead_s = (event.ts_ns - event.received_ns) / SECOND_NS
            return self._refuse(Reason.AHEAD, f"{ahead_s:.1f} s ahead of being received", event)
        if self._held:
            self._let_go(event.ts_ns)
        if isinstance(event, Trade):
            return self._trade(event)
        if isinstance(event, BookDelta):
            return self._book(event)
        if isinstance(event, FeedGap):  # what was before it says nothing of what comes
            self._levels[symbol].forget()
        return [event]

    def flush(self) -> None:
        """Refuse what still waits: the source has ended and nothing can confirm it."""
        for trade in self._held.values():
            self._jumped(trade)
        self._held.clear()

    def _trade(self, trade: Trade) -> list[MarketEvent]:
        ids = self._ids[trade.symbol]
        is_next = trade.trade_id == ids.newest + 1  # fetched after a silence, however long
        if trade.ts_ns < self._newest_ns - self._stale_ns and not is_next:
            return self._stale(trade)
        reason = ids.take(trade.trade_id, trade.ts_ns)
        if reason is not None:
            return self._refuse(reason, f"trade {trade.trade_id} after {ids.newest}", trade)
        if trade.ts_ns > self._newest_ns:
            self._newest_ns = trade.ts_ns
        level = self._levels[trade.symbol]
        if level.low <= trade.price <= level.high:
            level.add(trade.price)
            held = self._held.pop(trade.symbol, None) if self._held else None
            if held is not None:
                self._jumped(held)
            return [trade]
        return self._far(trade, level)

    def _far(self, trade: Trade, level: _Level) -> list[MarketEvent]:
        """Hand on a trade far from the recent ones if something confirms it, else let it wait."""
        held = self._held.pop(trade.symbol, None)
        touch = self._touch(trade.symbol)
        stands = touch is not None and level.reaches(touch[0], touch[1], trade.price)
        if level.is_near_jump(trade.price) or stands:
            level.move(trade.price)
            return [trade] if held is None else [held, trade]
        if held is not None:
            self._jumped(held)
        level.jump = trade.price
        self._held[trade.symbol] = trade
        return []

    def _let_go(self, now_ns: int) -> None:
        """Refuse what has waited so long that its place in the order is being given away."""
        for symbol, trade in list(self._held.items()):
            if now_ns - trade.ts_ns > self._hold_ns:
                self._jumped(self._held.pop(symbol))

    def _jumped(self, trade: Trade) -> None:
        level = self._levels[trade.symbol]
        told = f"price {trade.price}, median of the recent trades {level.median}"
        self._refuse(Reason.PRICE_JUMP, told, trade)

    def _book(self, delta: BookDelta) -> list[MarketEvent]:
        if delta.ts_ns < self._newest_ns - self._stale_ns:
            return self._stale(delta)
        for levels_L2 in (delta.bids_L2, delta.asks_L2):
            reason = _wrong(levels_L2)
            if reason is not None:
                return self._refuse(reason, f"levels of book message {delta.last_id}", delta)
        if delta.is_snapshot:
            bids_L2, asks_L2 = delta.bids_L2, delta.asks_L2
            if len(bids_L2) and len(asks_L2) and bids_L2[:, 0].max() >= asks_L2[:, 0].min():
                told = f"bid {bids_L2[:, 0].max()} at or above ask {asks_L2[:, 0].min()}"
                return self._refuse(Reason.CROSSED, told, delta)
        else:
            ids = self._book_ids[delta.symbol]
            reason = ids.take(delta.last_id, delta.ts_ns)
            if reason is not None:
                told = f"book message {delta.last_id} after {ids.newest}"
                return self._refuse(reason, told, delta)
        self._newest_ns = max(self._newest_ns, delta.ts_ns)
        return [delta]

    def _stale(self, event: MarketEvent) -> list[MarketEvent]:
        age_s = (self._newest_ns - event.ts_ns) / SECOND_NS
        return self._refuse(Reason.STALE, f"{age_s:.1f} s older than the newest event", event)

    def _refuse(self, code: Reason, told: str, event: MarketEvent) -> list[MarketEvent]:
        self.refused[code] += 1
        self.quarantine.append(Quarantined(code, f"{event.symbol}: {told}", event))
        return []


class _Level:
    """Where the newest trades of a symbol stand, and how far from there one may be.

    Attributes:
        low: lowest price that needs no confirmation [quote currency].
        high: highest such price.
        median: of the recent trades, NaN before there are enough.
        jump: newest price outside that was not confirmed, NaN if none is.
    """

    def __init__(self, width: float) -> None:
        self._width = width  # share of the price
        self.forget()

    def forget(self) -> None:
        """Take any price as the next one."""
        self.low, self.high = -math.inf, math.inf
        self.median = self.jump = math.nan
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._num_new = 0

    def add(self, price: float) -> None:
        """Count a trade towards the recent ones."""
        self.jump = math.nan
        self._recent.append(price)
        self._num_new += 1
        if self._num_new >= RENEWED and len(self._recent) >= ENOUGH:
            self._num_new = 0
            self._stand_at(statistics.median(self._recent))

    def move(self, price: float) -> None:
        """Take a confirmed price for the new level."""
        self.forget()
        self._stand_at(price)
        self.add(price)

    def is_near_jump(self, price: float) -> bool:
        """Return whether the trade before stood outside too, at about this price."""
        return abs(price - self.jump) <= self._width * price  # false while there was none

    def reaches(self, bid: float, ask: float, price: float) -> bool:
        """Return whether a book of that touch stands about this price."""
        return bid * (1 - self._width) <= price <= ask * (1 + self._width)

    def _stand_at(self, median: float) -> None:
        self.median = median
        self.low, self.high = median * (1 - self._width), median * (1 + self._width)


def _wrong(levels_L2: Floats) -> Reason | None:
    """Return what is wrong with the numbers of one side, None if nothing is."""
    if not levels_L2.size:
        return None
    low, high = levels_L2.min(), levels_L2.max()  # NaN if one of them is
    if low >= 0 and high < math.inf and levels_L2[:, 0].min() > 0:
        return None
    return Reason.NEGATIVE if np.isfinite(levels_L2).all() else Reason.NOT_FINITE
