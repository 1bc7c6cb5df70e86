"""Read a symbol's recorded candles of one interval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tests.exchange.columns import ns_of


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle; what the recording does not say is None.

    Attributes:
        open_ns: start [ns UTC].
        ohlc: open, high, low, close [quote currency].
        volume: base currency.
        quote_volume: quote currency.
        num_trades: trades inside.
        bought: volume of aggressive buyers [base currency].
    """

    open_ns: int
    ohlc: tuple[float, float, float, float]
    volume: float
    quote_volume: float | None = None
    num_trades: int | None = None
    bought: float | None = None


class Candles:
    """The closed candles of one symbol and interval, as the file of the recording has them."""

    def __init__(self, file: Path) -> None:
        """Read `file`."""
        table = pq.read_table(file)
        self.open_N = ns_of(table, "ts")
        self._place = {open_ns: i for i, open_ns in enumerate(self.open_N.tolist())}
        names = ("open", "high", "low", "close", "volume", "quote_volume", "trades",
                 "taker_buy_volume")  # fmt: skip
        absent = [None] * len(self.open_N)
        columns = [table[n].to_pylist() if n in table.column_names else absent for n in names]
        self._rows = list(zip(*columns, strict=True))

    def at(self, recorded_ns: int, open_ns: int) -> Candle | None:
        """Return the candle recorded at `recorded_ns`, stamped `open_ns`; None if there is none."""
        place = self._place.get(recorded_ns)
        if place is None:
            return None
        first, high, low, last, volume, quote, trades, bought = self._rows[place]
        return Candle(open_ns, (first, high, low, last), volume, quote, trades, bought)
