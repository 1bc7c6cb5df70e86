"""Hand on the closed candles of one symbol, each once, and fetch those that were missed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from alphapulse.data.binance import Kline
from alphapulse.data.history import bars_of, fetch_history
from alphapulse.data.patience import within
from alphapulse.data.session import ANSWER_S, Due, Session
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import SECOND_NS, Instrument, Timeframe
from alphapulse.logs import describe, get_logger

log = get_logger("data")


class CandleStream:
    """The venue's own candles of one symbol: from the stream at their close, else from REST."""

    def __init__(
        self, session: Session, instrument: Instrument, next_open_ns: Mapping[Timeframe, int]
    ) -> None:
        """Wait for the candle at `next_open_ns` [ns UTC], by timeframe; else for the first."""
        self._session = session
        self._instrument = instrument
        self._next_ns = dict(next_open_ns)
        self._overdue = Due(session.clocks, session.settings.silent_s)

    def take(self, kline: Kline) -> None:
        """Take a message of the stream; one about a later candle tells that some were missed."""
        timeframe, open_ns = kline.timeframe, kline.open_ns
        next_ns = self._next_ns.setdefault(timeframe, open_ns)
        if open_ns == next_ns and kline.bar is not None:
            self._next_ns[timeframe] = kline.bar.close_ns
            self._session.outlet.put(kline.bar)
        elif open_ns > next_ns:
            until_ns = kline.bar.close_ns if kline.bar is not None else open_ns
            self._require(timeframe, until_ns, is_overdue=False)

    def watch(self) -> None:
        """Have a candle fetched that is overdue: silence on an open connection tells nobody."""
        session = self._session
        now_ns = session.clocks.wall_ns() + int(1e6 * (session.health.skew.ms or 0.0))
        late_ns = int(session.settings.silent_s * SECOND_NS)
        overdue = [tf for tf, ns in self._next_ns.items() if ns + tf.ns + late_ns < now_ns]
        if overdue and self._overdue.now():
            for timeframe in overdue:
                self._require(timeframe, timeframe.floor(now_ns), is_overdue=True)

    def _require(self, timeframe: Timeframe, until_ns: int, *, is_overdue: bool) -> None:
        name = f"candles {self._instrument.symbol} {timeframe}"
        if not self._session.runs(name):
            self._session.start(name, self._fetch(timeframe, until_ns, is_overdue=is_overdue))

    async def _fetch(self, timeframe: Timeframe, until_ns: int, *, is_overdue: bool) -> None:
        """Hand on the candles up to `until_ns`; where it fails, the next message tries again.

        Where somebody traded in one that is overdue, its stream has gone silent.
        """
        session, symbol = self._session, self._instrument.symbol
        count = (until_ns - self._next_ns[timeframe]) // timeframe.ns
        ask = partial(
            fetch_history, session.venue, self._instrument, timeframe, count, until_ns=until_ns
        )
        try:
            series = await within(session.clocks, ANSWER_S, ask)
        except (session.errors[1], InvalidRecording) as error:
            log.warning("candles not fetched", symbol=symbol, **describe(error))
            return
        for bar in bars_of(series) if series is not None else ():
            if bar.open_ns >= self._next_ns[timeframe]:
                self._next_ns[timeframe] = bar.close_ns
                session.outlet.put(bar)
                if is_overdue and bar.volume > 0:
                    session.reopen(symbol, "candle", "ohlcv")
