"""Keep the trades of one symbol whole: fetch what was missed while everything waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from alphapulse.data import binance
from alphapulse.data.binance import Unreadable
from alphapulse.data.continuity import TradeOrder
from alphapulse.data.patience import Backoff, within
from alphapulse.data.session import POLL_S, Due, Session
from alphapulse.domain.market import FeedGap, Instrument, Trade
from alphapulse.domain.quality import Reason
from alphapulse.logs import get_logger

RETRY_S = 0.2  # first pause where an answer did not have what is missing: REST lags the streams

log = get_logger("data")


class TradeStream:
    """The trades of one symbol, from its stream and from REST.

    A hole in the numbers, or a lost connection, holds all events back until REST has told what is
    missing, at most `feed.backfill_s`. Past that it is told by a gap, and events flow again; while
    nothing can be had of the trades, the gap is told anew before every book change.

    Attributes:
        subscribed: set while the venue has confirmed the stream.
    """

    def __init__(self, session: Session, instrument: Instrument) -> None:
        """Wait for the first trade of `instrument`."""
        self.subscribed = asyncio.Event()
        self._session = session
        self._instrument = instrument
        self._health = session.health.of(instrument.symbol)
        self._order = TradeOrder(instrument.symbol)
        self._is_deaf = False  # whether trades may have been missed that no number tells of
        self._probe = Due(session.clocks, POLL_S)

    def take(self, trade: Trade) -> None:
        """Take a trade of the stream."""
        if not self._push(trade):
            told = f"{trade.symbol} trade {trade.trade_id} came again"
            self._session.health.refuse(Reason.DUPLICATE, told)
        if self._order.missing is not None:
            self._start_mending()

    def deafen(self) -> None:
        """Note that the stream is down: from now on any trade may be missing."""
        self.subscribed.clear()
        if self._order.newest is not None:
            self._is_deaf = True
            self._start_mending()

    async def watch(self) -> None:
        """Ask whether there were trades, where none came: a quiet market is no silence."""
        session = self._session
        is_silent = self._health.age_s("trade") > session.settings.silent_s
        if self._order.newest is None or not is_silent or session.runs(self._task):
            return
        if self._probe.now() and await self._fetch():
            session.reopen(self._instrument.symbol, "trade", "trade")

    async def has_traded(self, since_ns: int) -> bool:
        """Return whether a trade came to be since `since_ns` [ns UTC], or nobody knows."""
        rows = await self._session.ask("trades", symbol=self._instrument.venue_symbol, limit=1)
        if not rows or not isinstance(rows, list):
            return True
        trade = binance.read_trade(rows[-1], self._instrument.symbol, 0)
        return isinstance(trade, Unreadable) or trade.ts_ns > since_ns

    @property
    def price(self) -> float:
        """Return the price of the newest trade in order [quote currency], NaN before the first."""
        return math.nan if self._order.newest is None else self._order.newest.price

    @property
    def _task(self) -> str:
        return f"mend {self._instrument.symbol}"

    @property
    def _is_whole(self) -> bool:
        return not self._is_deaf and self._order.missing is None

    def _push(self, trade: Trade) -> bool:
        """Hand on what is now in order; return whether the trade is new."""
        num_duplicates = self._order.num_duplicates
        for ordered in self._order.push(trade):
            self._session.outlet.put(ordered)
        return self._order.num_duplicates == num_duplicates

    def _start_mending(self) -> None:
        if not self._session.runs(self._task):
            self._session.outlet.hold(self._instrument.symbol)
            self._session.start(self._task, self._mend())

    async def _mend(self) -> None:
        session, symbol = self._session, self._instrument.symbol
        bound_s, clocks, outlet = session.settings.backfill_s, session.clocks, session.outlet
        backoff, since_s = Backoff(clocks, RETRY_S), clocks.now_s()
        try:
            while not self._is_whole:
                is_subscribed = self.subscribed.is_set()  # before it is asked: no trade between
                num_new = await self._fetch()
                if num_new is not None and is_subscribed:
                    self._is_deaf = False
                left_s = since_s + bound_s - clocks.now_s()
                if num_new is not None and self._order.missing is None:
                    since_s = clocks.now_s()
                    backoff.reset()
                    self._tell_whole()
                    if self._is_deaf:
                        outlet.hold(symbol)
                        await within(clocks, POLL_S, self.subscribed.wait)
                elif left_s <= 0 or outlet.is_full or self._order.is_full:
                    self._give_up()
                    outlet.release(symbol)
                    if not self._is_whole:
                        await backoff.pause(session.venue)
                elif not num_new:
                    await backoff.pause(session.venue, most_s=left_s)
        finally:
            outlet.release(symbol)

    def _tell_whole(self) -> None:
        self._health.is_down = False
        self._session.outlet.mark_whole(self._instrument.symbol)
        self._session.outlet.release(self._instrument.symbol)

    def _give_up(self) -> None:
        symbol, outlet, newest = self._instrument.symbol, self._session.outlet, self._order.newest
        assert newest is not None
        self._health.counters["gaps"] += 1
        if self._order.missing is None:
            self._health.is_down = True
            reason = "the stream of trades is down"
            gap = FeedGap(symbol, newest.ts_ns, newest.ts_ns, reason, is_book_lost=False)
            outlet.mark_lost(gap)
            return
        given_up = self._order.give_up()
        if given_up.stray is not None:
            told = f"{symbol}: {given_up.stray.trade_id} is no trade's number"
            self._session.health.refuse(Reason.UNREADABLE, told)
        if given_up.gap is not None:
            log.warning("trades lost", symbol=symbol, reason=given_up.gap.reason)
            outlet.mark_lost(given_up.gap, given_up.gap.ts_ns)
            outlet.put(given_up.gap)
        for trade in given_up.trades:
            outlet.put(trade)

    async def _fetch(self) -> int | None:
        """Fetch the trades after the newest; return how many were new, None without an answer.

        The newest 1000 cost weight 25; older ones, by number, 1000 of 6000 a minute.
        """
        session, missing = self._session, self._order.missing
        assert self._order.newest is not None
        first_id = self._order.newest.trade_id + 1
        last_id = missing[1] if missing is not None and not self._is_deaf else None
        wanted = {"symbol": self._instrument.venue_symbol, "limit": binance.PAGE_TRADES}
        rows = await session.ask("trades", **wanted)
        if rows and isinstance(rows, list) and _oldest_id(rows) > first_id:
            rows = await session.ask("historicalTrades", **wanted, fromId=first_id)
        if not isinstance(rows, list):
            return None
        num_new = 0
        for row in rows:
            trade = binance.read_trade(row, self._instrument.symbol, session.clocks.wall_ns())
            if isinstance(trade, Unreadable):
                session.health.refuse(trade.code, trade.message)
            elif first_id <= trade.trade_id and (last_id is None or trade.trade_id <= last_id):
                num_new += self._push(trade)
        self._health.counters["backfilled"] += num_new
        return num_new


def _oldest_id(rows: Sequence[Any]) -> int:
    first = rows[0]
    trade_id = first.get("id") if isinstance(first, dict) else None
    return trade_id if isinstance(trade_id, int) else 0
