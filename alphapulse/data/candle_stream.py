"""Hand on the closed candles of one symbol, each once, and fetch those that were missed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from alphapulse.data.binance import Kline
from alphapulse.data.history import bars_of, fetch_history
from alphapulse.data.patience import within
from alphapulse.data.session import ANSWER_S, Session
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import Instrument, Timeframe
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

    def take(self, kline: Kline) -> None:
        """Take a message of the stream; one about a later candle tells that some were missed."""
        timeframe, open_ns = kline.timeframe, kline.open_ns
        next_ns = self._next_ns.setdefault(timeframe, open_ns)
        name = f"candles {self._instrument.symbol} {timeframe}"
        if open_ns == next_ns and kline.bar is not None:
            self._next_ns[timeframe] = kline.bar.close_ns
            self._session.outlet.put(kline.bar)
        elif open_ns > next_ns and not self._session.runs(name):
            until_ns = kline.bar.close_ns if kline.bar is not None else open_ns
            self._session.start(name, self._fetch(timeframe, until_ns))

    async def _fetch(self, timeframe: Timeframe, until_ns: int) -> None:
        """Hand on the candles up to `until_ns`; where it fails, the next message tries again."""
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
