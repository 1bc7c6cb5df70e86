"""Put the numbered messages of one symbol in order, once each, and say which are missing."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

from alphapulse.domain.market import BookDelta, FeedGap, MarketEvent, Trade

MOST_HELD = 10_000  # trades kept behind a hole; at the bound `is_full`, and the hole is given up
MOST_MISSING = 10_000  # a hole wider than this is believed only if two trades in a row tell it


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What becomes of a hole that cannot be filled.

    Attributes:
        gap: what the reader is told; None if there was no hole, only a number that cannot be.
        trades: what follows the hole, in order.
        stray: a trade whose number cannot be, to be quarantined.
    """

    gap: FeedGap | None
    trades: list[Trade]
    stray: Trade | None = None


class TradeOrder:
    """The trades of one symbol in the order of their numbers, whatever the order they come in.

    The first trade is the beginning. A trade whose number does not follow waits until those
    between are there or given up.

    ```python
    order = TradeOrder("ETH/USDT")
    for trade in order.push(arrived):
        ...
    if order.missing is not None:
        first_id, last_id = order.missing  # fetch these and push them too, or give_up()
    ```

    Attributes:
        newest: the newest trade given out, None before the first.
        num_duplicates: trades that had been given out, or wait, already.
    """

    def __init__(self, symbol: str) -> None:
        self.newest: Trade | None = None
        self.num_duplicates = 0
        self._symbol = symbol
        self._held: dict[int, Trade] = {}
        self._ids: list[int] = []  # of the held ones, a heap

    @property
    def missing(self) -> tuple[int, int] | None:
        """Return first and last number of the first hole, None while there is none."""
        if not self._ids or self.newest is None:
            return None
        return self.newest.trade_id + 1, self._ids[0] - 1

    @property
    def is_full(self) -> bool:
        """Return whether no more trades may wait."""
        return len(self._ids) >= MOST_HELD

    def push(self, trade: Trade) -> list[Trade]:
        """Take a trade and return those that are now in order."""
        if self.newest is None:
            self.newest = trade
            return [trade]
        if trade.trade_id <= self.newest.trade_id or trade.trade_id in self._held:
            self.num_duplicates += 1
            return []
        self._held[trade.trade_id] = trade
        heapq.heappush(self._ids, trade.trade_id)
        return self._released()

    def give_up(self) -> GivenUp:
        """Go on behind the first hole; call it only while there is one."""
        assert self.newest is not None
        before, first_id = self.newest, heapq.heappop(self._ids)
        after = self._held.pop(first_id)
        is_wide = first_id - before.trade_id > MOST_MISSING
        if is_wide and first_id + 1 not in self._held:
            return GivenUp(None, [], stray=after)
        self.newest = after
        reason = f"trades {before.trade_id + 1} to {first_id - 1} did not arrive"
        gap = FeedGap(self._symbol, after.ts_ns, before.ts_ns, reason, is_book_lost=False)
        return GivenUp(gap, [after, *self._released()])

    def _released(self) -> list[Trade]:
        released: list[Trade] = []
        while self._ids and self.newest and self._ids[0] == self.newest.trade_id + 1:
            self.newest = self._held.pop(heapq.heappop(self._ids))
            released.append(self.newest)
        return released


class BookOrder:
    """The changes of one book and its snapshots: says when the book needs a new snapshot.

    Changes pass as they come: the reader's book keeps them for the snapshot. A snapshot of REST
    has no exchange time. It leaves just before the first change to come that it does not hold, at
    that change's time: by then all it shows has happened.

    ```python
    order = BookOrder()
    for event in order.push(change):
        ...
    if not order.is_known and not order.take(snapshot):
        ...  # it is older than the changes that are there: ask again
    ```

    Attributes:
        is_known: whether the snapshot and the changes since make the book.
        num_gaps: how often a number was missing.
        num_duplicates: changes that had passed already.
    """

    def __init__(self) -> None:
        self.is_known = False
        self.num_gaps = 0
        self.num_duplicates = 0
        self._waiting: BookDelta | None = None  # snapshot that leaves with the next change
        self._run_id: int | None = None  # first number of the changes without a gap, None: none
        self._change_id = -1  # newest number of a change
        self._newest_ns = -1  # time of that change
        self._lost_id = -1  # newest change there was when the book was lost last
        self._whole_id = -1  # number of the newest snapshot
        self._hole = (0, -1)  # numbers missing at the newest gap; they may still come

    def push(self, change: BookDelta) -> list[MarketEvent]:
        """Take a change and return what is handed on: nothing if it has passed already."""
        if change.last_id <= self._change_id:
            if self._hole[0] <= change.first_id and change.last_id <= self._hole[1]:
                return [change]  # overtaken: behind the watermark it may find its place
            self.num_duplicates += 1
            return []
        if change.ts_ns < self._newest_ns:  # the venue's clock went back: numbers are the truth
            change = replace(change, ts_ns=self._newest_ns)
        self._newest_ns = change.ts_ns
        if self._breaks(change):
            self.num_gaps += 1
            self._hole = (self._change_id + 1, change.first_id - 1)
            self._change_id = change.last_id
            self.lose()
        if self._run_id is None:
            self._run_id = change.first_id
        self._change_id = change.last_id
        snapshot = self._waiting
        if snapshot is None or change.last_id <= snapshot.last_id:
            return [change]
        self._waiting = None
        return [replace(snapshot, ts_ns=change.ts_ns), change]

    def take(self, snapshot: BookDelta) -> bool:
        """Take a snapshot; return whether the changes since are all there, or will be."""
        if self._run_id is not None and snapshot.last_id < self._run_id - 1:
            return False
        self.is_known, self._whole_id, self._waiting = True, snapshot.last_id, snapshot
        return True

    def replace(self, snapshot: BookDelta) -> bool:
        """Take a snapshot that leaves at once, since no changes come; return whether it is new."""
        if snapshot.last_id <= max(self._change_id, self._whole_id) and self.is_known:
            return False
        self.lose()
        self.is_known, self._whole_id = True, snapshot.last_id
        return True

    def lose(self) -> None:
        """Note that the reader's book is not known, whatever the numbers say."""
        self.is_known, self._run_id, self._waiting = False, None, None
        self._lost_id = self._change_id

    def doubt(self, last_id: int) -> None:
        """Lose the book, because the reader's went wrong at that change; an old loss is known."""
        if last_id > self._lost_id:
            self.lose()

    def _breaks(self, change: BookDelta) -> bool:
        newest = max(self._change_id, self._whole_id)
        return newest >= 0 and change.first_id > newest + 1
