"""Read a spot recording as what Binance sent: trades, book changes, candles, each by its place.

It shares no code with the product: a mistake in the product's reader cannot hide here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.exchange.candles import Candle, Candles
from tests.exchange.columns import LENGTHS, MINUTE, SECOND, Ints
from tests.exchange.depth import Depth, OpenBook
from tests.exchange.trades import Trades
from tests.exchange.wire import Payload


class Recording:
    """A stretch of a spot recording, as a list of messages with everything REST can be asked.

    In lap k, times are k whole laps later (a lap is the stretch rounded up to whole minutes) and
    ids k laps higher with one missing at the seam.

    Attributes:
        symbols: such as ETHUSDT.
        first_ns: where the stretch begins [ns UTC]: not before every book is known.
        last_ns: its newest message [ns UTC].
        lap_ns: length of a lap, whole minutes.
        num_messages: messages in a lap.
    """

    def __init__(
        self,
        folder: Path,
        symbols: Sequence[str] = ("ETHUSDT", "BTCUSDT"),
        *,
        from_ns: int = 0,
        until_ns: int = np.iinfo(np.int64).max,
    ) -> None:
        """Read the stretch from `from_ns` until before `until_ns` [ns UTC]."""
        self.symbols = tuple(symbols)
        self.depths = {s: Depth(folder / f"depth-updates-{s}.parquet", s) for s in self.symbols}
        self.first_ns = max(from_ns, *(depth.known_ns for depth in self.depths.values()))
        newest = min(until_ns, max(int(depth.ts_N[-1]) for depth in self.depths.values()) + 1)
        self.last_ns = newest - 1
        self.lap_ns = -(-(newest - self.first_ns) // MINUTE) * MINUTE
        self.trades = {
            s: Trades(folder / f"trades-{s}.parquet", s, self.first_ns, newest, self.lap_ns)
            for s in self.symbols
        }
        self.candles = {
            (s, interval): Candles(folder / f"candles-{interval}-{s}.parquet")
            for s in self.symbols
            for interval in LENGTHS
        }
        self._order(newest)

    def _order(self, newest: int) -> None:
        """Put the messages of a lap in order: by time, then book, trade, candle, then symbol."""
        seconds = np.arange(-(-self.first_ns // SECOND), self.last_ns // SECOND + 1) * SECOND
        parts, self._books = [np.vstack((seconds, *np.full((2, len(seconds)), 2), seconds))], {}
        self._lap_ids: dict[str, int] = {}
        for order, symbol in enumerate(self.symbols):
            depth, trades = self.depths[symbol], self.trades[symbol]
            start, stop = np.searchsorted(depth.ts_N, (self.first_ns, newest)).tolist()
            self._books[symbol] = depth.book_before(start)
            self._lap_ids[symbol] = depth.ids(stop - 1)[1] - depth.ids(start)[0] + 2
            trade_rows = np.arange(trades.num_before, trades.num_before + trades.num_lap)
            for rank, ts, rows in (
                (0, depth.ts_N[start:stop], np.arange(start, stop)),
                (1, trades.ts_N[trade_rows], trade_rows),
            ):
                places = np.full((2, len(rows)), [[rank], [order]], np.int64)
                parts.append(np.vstack((ts, places, rows)))
        keys = np.hstack(parts)
        self._messages = keys[:, np.lexsort(keys[::-1])].T.tolist()
        self.num_messages = len(self._messages)

    def message(self, place: int) -> tuple[int, str, str, int, int]:
        """Return time [ns UTC], kind (depth, trade, second), symbol, row and lap of a message."""
        lap, i = divmod(place, self.num_messages)
        ts_ns, rank, order, row = self._messages[i]
        symbol = "" if rank == 2 else self.symbols[order]
        return ts_ns + lap * self.lap_ns, ("depth", "trade", "second")[rank], symbol, row, lap

    def book_at_start(self, symbol: str, lap: int) -> OpenBook:
        """Return the book before the first message of a lap."""
        book = self._books[symbol].copy()
        book.last_id += lap * self._lap_ids[symbol]
        return book

    def depth_payload(self, symbol: str, row: int, lap: int) -> Payload:
        """Return a book change of a lap."""
        shift = {"shift_ns": lap * self.lap_ns, "shift_ids": lap * self._lap_ids[symbol]}
        return self.depths[symbol].stream_payload(row, **shift)

    def trade_place(self, symbol: str, row: int, lap: int) -> int:
        """Return the place of a trade among all trades."""
        return row + lap * self.trades[symbol].num_lap

    def closed(self, symbol: str, interval: str, open_ns: int, now_ns: int) -> Candle | None:
        """Return the candle of that open if it has closed by now, as recorded; else None.

        From the second lap on there are candles of seconds and minutes that lie wholly inside a
        lap; hours and days are not known there.
        """
        length = LENGTHS[interval]
        lap = max(0, (open_ns - self.first_ns) // self.lap_ns)
        recorded_ns = open_ns - lap * self.lap_ns
        if lap and (self.lap_ns % length or recorded_ns < self.first_ns):
            return None
        if open_ns + length > min(now_ns, self.last_ns + lap * self.lap_ns):
            return None
        return self.candles[symbol, interval].at(recorded_ns, open_ns)

    def opens(self, symbol: str, interval: str, now_ns: int) -> Ints:
        """Return the opens of all candles closed by now, oldest first [ns UTC]."""
        length, recorded = LENGTHS[interval], self.candles[symbol, interval].open_N
        opens = [recorded[recorded + length <= min(now_ns, self.last_ns)]]
        if self.lap_ns % length == 0:
            inside = (recorded >= self.first_ns) & (recorded + length <= self.last_ns)
            lap = recorded[inside]
            laps = range(1, (now_ns - self.first_ns) // self.lap_ns + 1)
            opens += [lap + k * self.lap_ns for k in laps]
        every: Ints = np.concatenate(opens)
        return every[every + length <= now_ns]

    def forming(self, symbol: str, interval: str, now_ns: int, num_played: int) -> Candle | None:
        """Return the candle that forms now, from shorter closed candles and the trades since.

        None where the recording does not cover its period from the open on: nothing is invented.

        Args:
            symbol: such as ETHUSDT.
            interval: 1s, 1m, 1h, 1d.
            now_ns: the played moment [ns UTC].
            num_played: trades of the symbol played so far.
        """
        open_ns = now_ns - now_ns % LENGTHS[interval]
        parts, at_ns = [], open_ns
        for shorter in ("1h", "1m", "1s"):
            if LENGTHS[shorter] >= LENGTHS[interval]:
                continue
            while (candle := self.closed(symbol, shorter, at_ns, now_ns)) is not None:
                parts.append((*candle.ohlc, candle.volume))
                at_ns += LENGTHS[shorter]
        trades, lap = self.trades[symbol], max(0, (now_ns - self.first_ns) // self.lap_ns)
        known_ns = self.first_ns + lap * self.lap_ns if lap else trades.ts_at(0)
        if at_ns < known_ns or now_ns > self.last_ns + lap * self.lap_ns:
            return None
        first = trades.first_since(at_ns, num_played)
        for place in range(first, num_played):
            price = trades.price_at(place)
            parts.append((price, price, price, price, trades.size_at(place)))
        if not parts and first > 0:
            price = trades.price_at(first - 1)  # nobody traded: the close before, as Binance has it
            parts.append((price, price, price, price, 0.0))
        if not parts:
            return None
        opens, highs, lows, closes, volumes = zip(*parts, strict=True)
        ohlc = (opens[0], max(highs), min(lows), closes[-1])
        return Candle(open_ns, ohlc, sum(volumes))
