"""Keep the book of one symbol whole: fetch a snapshot where changes are missing or silent."""

from __future__ import annotations

import math
from dataclasses import replace

from alphapulse.data import binance
from alphapulse.data.binance import Unreadable
from alphapulse.data.continuity import BookOrder
from alphapulse.data.patience import Backoff
from alphapulse.data.session import POLL_S, Due, Session
from alphapulse.domain.market import BookDelta, Instrument
from alphapulse.domain.quality import Reason

RENEW_S = 30.0  # least time between two snapshots that follow the price


class BookStream:
    """The changes of one book from its stream, and the snapshots from REST.

    A silent stream on an open connection is closed and opened anew; until it speaks, snapshots
    asked for one by one stand in, which the health of the symbol tells as `fallback`.

    Attributes:
        first_ns: time of the first change [ns UTC], None before it.
    """

    def __init__(self, session: Session, instrument: Instrument) -> None:
        """Wait for the first change of the book of `instrument`."""
        self.first_ns: int | None = None
        self._session = session
        self._instrument = instrument
        self._health = session.health.of(instrument.symbol)
        self._order = BookOrder()
        self._reopen = Due(session.clocks, session.settings.silent_s)
        self._poll = Due(session.clocks, POLL_S)
        self._renewal = Due(session.clocks, RENEW_S)
        self._middle = math.nan  # between the sides of the newest snapshot

    def take(self, change: BookDelta) -> None:
        """Take a change of the stream."""
        if self.first_ns is None:
            self.first_ns = change.ts_ns
        self._health.is_fallback = False
        order = self._order
        num_gaps, num_duplicates = order.num_gaps, order.num_duplicates
        for event in order.push(change):
            self._session.outlet.put(event)
        self._health.counters["book_gaps"] += order.num_gaps - num_gaps
        if order.num_duplicates > num_duplicates:
            told = f"{change.symbol} book {change.last_id} came again"
            self._session.health.refuse(Reason.DUPLICATE, told)
        self.require_snapshot()

    def lose(self) -> None:
        """Note that the reader's book misses a change; the next one brings a snapshot."""
        self._order.lose()

    def doubt(self, last_id: int) -> None:
        """Have a snapshot fetched: the reader's book went wrong at the change `last_id`."""
        self._order.doubt(last_id)
        self.require_snapshot()

    def require_snapshot(self) -> None:
        """Have a snapshot fetched, unless the book is whole or it is under way."""
        name = f"snapshot {self._instrument.symbol}"
        if not (self._order.is_known or self._session.is_over or self._session.runs(name)):
            self._session.start(name, self._renew())

    async def watch(self) -> None:
        """Look at the age of the book: silence on an open connection tells nobody."""
        session, health = self._session, self._health
        if not health.has_heard("book") or health.age_s("book") <= session.settings.silent_s:
            return
        if self._reopen.now():
            session.reopen(self._instrument.symbol, "book", "orderbook")
        if not self._poll.now():
            return
        health.is_fallback = True
        snapshot = await self._fetch(binance.POLLED_LEVELS)
        venue_ns = await session.ask_time()  # after it: all it shows had happened by then
        if snapshot is None or venue_ns is None or not health.is_fallback:
            return
        if self._order.replace(snapshot):
            health.counters["polls"] += 1
            session.outlet.put(replace(snapshot, ts_ns=venue_ns))

    def follow(self, price: float) -> None:
        """Have a snapshot fetched once the price has left the middle of the newest one.

        A book is known no further than its snapshot reaches. Until the new one is there nothing
        changes.
        """
        name = f"snapshot {self._instrument.symbol}"
        drift_pct = abs(100 * (price / self._middle - 1))  # NaN before the first: not above
        has_left = drift_pct > self._session.settings.book_drift_pct
        if has_left and not self._session.runs(name) and self._renewal.now():
            self._session.start(name, self._take_snapshot())

    async def _renew(self) -> None:
        session = self._session
        backoff = Backoff(session.clocks, session.settings.reconnect_s)
        while not self._order.is_known and not await self._take_snapshot():
            await backoff.pause(session.venue)

    async def _take_snapshot(self) -> bool:
        snapshot = await self._fetch(binance.LEVELS)
        if snapshot is None or not self._order.take(snapshot):
            return False
        self._health.counters["snapshots"] += 1
        bids_L2, asks_L2 = snapshot.bids_L2, snapshot.asks_L2
        if len(bids_L2) and len(asks_L2):
            self._middle = float(bids_L2[:, 0].max() + asks_L2[:, 0].min()) / 2
        return True

    async def _fetch(self, levels: int) -> BookDelta | None:
        session, instrument = self._session, self._instrument
        answer = await session.ask("depth", symbol=instrument.venue_symbol, limit=levels)
        if not isinstance(answer, dict):
            return None
        received_ns = session.clocks.wall_ns()
        found = binance.read_snapshot(answer, instrument.symbol, received_ns)
        if isinstance(found, Unreadable):
            session.health.refuse(found.code, found.message)
            return None
        return found
