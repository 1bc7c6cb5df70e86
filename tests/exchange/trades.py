"""Find a recorded trade by place, number or time, over all laps of a play."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.exchange.columns import MS, ns_of
from tests.exchange.wire import Payload, decimals


class Trades:
    """Every trade of one symbol, oldest first; played again and again, if need be.

    A place counts from the recording's first trade over all laps. Places below `num_before` lie
    before the first lap.

    Attributes:
        num_before: trades recorded before `from_ns`.
        num_lap: trades played in a lap.
    """

    def __init__(self, file: Path, symbol: str, from_ns: int, until_ns: int, lap_ns: int) -> None:
        """Read `file`; a lap holds the trades from `from_ns` until before `until_ns` [ns UTC]."""
        table = pq.read_table(file)
        self.ts_N, self._sent_N = ns_of(table, "ts"), ns_of(table, "ts_event")
        self._symbol = symbol
        self._ids = table["trade_id"].to_pylist()
        self._prices, self._sizes = table["price"].to_pylist(), table["size"].to_pylist()
        self._is_sell = [side == "sell" for side in table["side"].to_pylist()]
        self.num_before = int(np.searchsorted(self.ts_N, from_ns))
        self.num_lap = int(np.searchsorted(self.ts_N, until_ns)) - self.num_before
        self._lap_ns = lap_ns
        lap_ids = self._ids[self.num_before : self.num_before + self.num_lap]
        self._lap_ids = lap_ids[-1] - lap_ids[0] + 2 if lap_ids else 0  # one missing at the seam

    def _row(self, place: int) -> tuple[int, int]:
        """Return lap and row of a place."""
        if place < self.num_before:
            return 0, place
        lap, row = divmod(place - self.num_before, self.num_lap)
        return lap, self.num_before + row

    def id_at(self, place: int) -> int:
        """Return the trade's number."""
        lap, row = self._row(place)
        return int(self._ids[row]) + lap * self._lap_ids

    def ts_at(self, place: int) -> int:
        """Return the trade's time [ns UTC]."""
        lap, row = self._row(place)
        return int(self.ts_N[row]) + lap * self._lap_ns

    def price_at(self, place: int) -> float:
        """Return the trade's price [quote currency]."""
        return float(self._prices[self._row(place)[1]])

    def size_at(self, place: int) -> float:
        """Return the trade's size [base currency]."""
        return float(self._sizes[self._row(place)[1]])

    def first_since(self, ts_ns: int, count: int) -> int:
        """Return the place of the first of `count` trades that is not before `ts_ns`."""
        return bisect_left(range(count), ts_ns, key=self.ts_at)

    def first_from(self, trade_id: int, count: int) -> int:
        """Return the place of the first of `count` trades whose number is not below `trade_id`."""
        return bisect_left(range(count), trade_id, key=self.id_at)

    def _key(self, place: int) -> tuple[int, float, bool]:
        _, row = self._row(place)
        return self.ts_at(place), self._prices[row], self._is_sell[row]

    def is_last_of_aggregate(self, place: int) -> bool:
        """Return whether the trade after it has another time, price or side."""
        _, row = self._row(place)
        is_last_row = row + 1 == self.num_before + self.num_lap
        return is_last_row or self._key(place) != self._key(place + 1)

    def stream_payload(self, place: int) -> Payload:
        """Return the message of `<symbol>@trade`."""
        lap, row = self._row(place)
        sent_ms = (int(self._sent_N[row]) + lap * self._lap_ns) // MS
        rest = self._common(place)
        return {"e": "trade", "E": sent_ms, "s": self._symbol, "t": self.id_at(place), **rest}

    def rest_payload(self, place: int) -> Payload:
        """Return the row of `/api/v3/trades`."""
        _, row = self._row(place)
        price, size = self._prices[row], self._sizes[row]
        return {
            "id": self.id_at(place),
            "price": decimals(price),
            "qty": decimals(size),
            "quoteQty": decimals(price * size),
            "time": self.ts_at(place) // MS,
            "isBuyerMaker": self._is_sell[row],
            "isBestMatch": True,
        }

    def aggregate(self, last: int) -> tuple[int, Payload]:
        """Return first place and row of `/api/v3/aggTrades` of the aggregate that ends at `last`.

        Aggregate numbers are not recorded: the first trade's stands in, so they leave gaps.
        """
        first = last
        while first > 0 and self._key(first - 1) == self._key(last):
            first -= 1
        size = sum(self.size_at(place) for place in range(first, last + 1))
        first_id, last_id = self.id_at(first), self.id_at(last)
        row = {
            "a": first_id,
            **self._common(last),
            "q": decimals(size),
            "f": first_id,
            "l": last_id,
        }
        return first, row

    def aggregate_payload(self, last: int) -> Payload:
        """Return the message of `<symbol>@aggTrade` for the aggregate that ends at `last`."""
        sent_ms = self.stream_payload(last)["E"]
        return {"e": "aggTrade", "E": sent_ms, "s": self._symbol, **self.aggregate(last)[1]}

    def _common(self, place: int) -> Payload:
        _, row = self._row(place)
        price, size = decimals(self._prices[row]), decimals(self._sizes[row])
        time_ms = self.ts_at(place) // MS
        return {"p": price, "q": size, "T": time_ms, "m": self._is_sell[row], "M": True}
