"""Keep where the play of a recording stands: the time, the books and the trades so far."""

from __future__ import annotations

from tests.exchange.candles import Candle
from tests.exchange.recording import Recording
from tests.exchange.wire import Payload

Sent = list[tuple[str, Payload]]  # streams and what is sent in them


class Stage:
    """The played moment of a recording.

    Attributes:
        recording: what is played.
        is_looping: whether the play begins again at its end.
        now_ns: the played moment [ns UTC].
        books: the book of each symbol.
        num_trades: trades of each symbol so far, those before the play included.
    """

    def __init__(self, recording: Recording, *, is_looping: bool) -> None:
        """Stand before the first message."""
        self.recording = recording
        self.is_looping = is_looping
        self.now_ns = recording.first_ns
        self.books = {s: recording.book_at_start(s, 0) for s in recording.symbols}
        self.num_trades = {s: recording.trades[s].num_before for s in recording.symbols}
        self._place = 0
        self._lap = 0

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing left to play."""
        return not self.is_looping and self._place >= self.recording.num_messages

    @property
    def next_ns(self) -> int:
        """Return the time of the next message [ns UTC]."""
        return self.recording.message(self._place)[0]

    @property
    def lap_end_ns(self) -> int:
        """Return the time of the last message of this lap [ns UTC]."""
        return self.recording.last_ns + self._lap * self.recording.lap_ns

    def advance(self) -> Sent | None:
        """Take the next message in, and return what it says; None is a second that is full."""
        recording = self.recording
        _, kind, symbol, row, lap = recording.message(self._place)
        if lap != self._lap:
            self._lap = lap
            self.books = {s: recording.book_at_start(s, lap) for s in recording.symbols}
        self._place += 1
        if kind == "second":
            return None
        name = symbol.lower()
        if kind == "depth":
            change = recording.depth_payload(symbol, row, lap)
            self.books[symbol].apply(recording.depths[symbol].levels(row), change["u"])
            return [(f"{name}@depth@100ms", change)]
        trades, place = recording.trades[symbol], recording.trade_place(symbol, row, lap)
        self.num_trades[symbol] = place + 1
        sent = [(f"{name}@trade", trades.stream_payload(place))]
        if trades.is_last_of_aggregate(place):
            sent.append((f"{name}@aggTrade", trades.aggregate_payload(place)))
        return sent

    def closed(self, symbol: str, interval: str, open_ns: int) -> Candle | None:
        """Return the candle of that open [ns UTC] if it has closed and is known."""
        return self.recording.closed(symbol, interval, open_ns, self.now_ns)

    def forming(self, symbol: str, interval: str) -> Candle | None:
        """Return the candle that forms now, if it is known from its open on."""
        num_played = self.num_trades[symbol]
        return self.recording.forming(symbol, interval, self.now_ns, num_played)
