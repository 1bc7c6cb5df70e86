"""Know by its number whether an event has come before, was overtaken, or contradicts its time."""

from __future__ import annotations

from collections import deque

from alphapulse.domain.quality import Reason

MISSED = 64  # stretches of trade numbers remembered as not come yet; the oldest are forgotten
BOOK_IDS = 256  # numbers of book messages remembered, 25 s of Binance's stream


class TradeIds:
    """Which numbers of a symbol's trades have come: they rise by one.

    Attributes:
        newest: highest number so far, -1 before the first.
    """

    def __init__(self) -> None:
        self.newest = -1
        self._oldest = -1
        self._newest_ns = -1
        self._missed: deque[tuple[int, int]] = deque(maxlen=MISSED)  # first and last number

    def take(self, trade_id: int, ts_ns: int) -> Reason | None:
        """Return why the trade of this number cannot be taken, None if it can."""
        newest = self.newest
        if trade_id > newest:
            if newest < 0:
                self._oldest = trade_id
            elif trade_id > newest + 1:
                self._missed.append((newest + 1, trade_id - 1))
            self.newest, self._newest_ns = trade_id, ts_ns
            return None
        stretch = self._missed_with(trade_id)
        if stretch is None:
            return Reason.DUPLICATE
        if ts_ns > self._newest_ns:
            return Reason.OUT_OF_ORDER
        self._fill(stretch, trade_id)  # it was overtaken: the merger puts it in its place
        return None

    def _missed_with(self, trade_id: int) -> tuple[int, int] | None:
        if trade_id < self._oldest:  # the first trade to come had overtaken it
            stretch = (trade_id, self._oldest - 1)
            self._oldest = trade_id
            self._missed.append(stretch)
            return stretch
        return next((s for s in self._missed if s[0] <= trade_id <= s[1]), None)

    def _fill(self, stretch: tuple[int, int], trade_id: int) -> None:
        self._missed.remove(stretch)
        for first, last in ((stretch[0], trade_id - 1), (trade_id + 1, stretch[1])):
            if first <= last:
                self._missed.append((first, last))


class BookIds:
    """Which of the newest messages of a symbol's book have come: some venues leave numbers out.

    Attributes:
        newest: highest number so far, -1 before the first.
    """

    def __init__(self) -> None:
        self.newest = -1
        self._newest_ns = -1
        self._seen: deque[int] = deque(maxlen=BOOK_IDS)

    def take(self, last_id: int, ts_ns: int) -> Reason | None:
        """Return why the message of this number cannot be taken, None if it can."""
        if last_id <= self.newest:
            if last_id in self._seen:
                return Reason.DUPLICATE
            if ts_ns > self._newest_ns:
                return Reason.OUT_OF_ORDER
        else:
            self.newest, self._newest_ns = last_id, ts_ns
        self._seen.append(last_id)
        return None
