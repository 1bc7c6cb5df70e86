"""Mark an instrument at an instant: what trading needs to know of it, and nothing a model would."""

from __future__ import annotations

import math

import numpy as np

from alphapulse.domain.market import BarFlag, Mark, Timeframe
from alphapulse.domain.windows import MarketWindow, StreamWindow
from alphapulse.features.grid import shows_forming
from alphapulse.features.rows import COLUMN

VALID = int(BarFlag.VALID)


def mark_of(window: MarketWindow, symbol: str) -> Mark | None:
    """Return prices and risk of `symbol` at the window's instant, None before its first price.

    Low and high are those of the bar that closed at the instant: of the last second, or of the last
    minute where candles are all there is; without one, the price itself. The risk is that of the
    models' input (`models.network.volatility_SF`) to the bit.
    """
    if (symbol, Timeframe.M1) not in window.streams:
        return None
    price = window.close(symbol)
    low = high = price
    seconds = window.streams.get((symbol, Timeframe.S1))
    lowest = seconds or window.streams[symbol, Timeframe.M1]
    if len(lowest.open_ns_T) and lowest.open_ns_T[-1] + lowest.timeframe.ns == window.event_ns:
        row_C = lowest.rows_TC[-1]
        low, high = min(low, float(row_C[COLUMN["low"]])), max(high, float(row_C[COLUMN["high"]]))
    hours = window.streams.get((symbol, Timeframe.H1))
    risk = math.nan if hours is None else _volatility(hours, window.event_ns)
    return Mark(price=price, low=low, high=high, risk=risk)


def _volatility(stream: StreamWindow, event_ns: int) -> float:
    """Return ATR / close of the newest valid row, NaN while there is none with an ATR."""
    if shows_forming(stream, event_ns) and stream.forming_flags & VALID:
        row_C = stream.forming_C
    else:
        valid_T = np.flatnonzero(stream.flags_T & VALID)
        row_C = stream.rows_TC[valid_T[-1]] if len(valid_T) else None
    if row_C is None:
        return math.nan
    atr, close = float(row_C[COLUMN["atr14"]]), float(row_C[COLUMN["close"]])
    return float(np.float32(atr / close)) if atr > 0 else math.nan
