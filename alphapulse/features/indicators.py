"""Turn bars into rows of TA-Lib indicators and pivots, streamed and equal to batch bit for bit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import talib
import talib.stream

from alphapulse.domain.errors import InvalidBar
from alphapulse.domain.market import Bar, BarFlag, BarSeries, Flags, Floats, Ints, Pivot, Timeframe
from alphapulse.features.pivots import WilliamsStructure
from alphapulse.features.rows import COLUMN, COLUMNS

# axes: T bar, oldest first · C column of features.rows.COLUMNS · I input series of the indicators

# plain integers: operators of an IntFlag take a microsecond each
VALID, FORMING, EMPTY, VENUE, WARMUP = (
    int(flag)
    for flag in (BarFlag.VALID, BarFlag.FORMING, BarFlag.EMPTY, BarFlag.VENUE, BarFlag.WARMUP)
)
NUM_OHLCV = 5
FIRST_PIVOT = COLUMN["l1_high"]
NUM_PIVOTS_KEPT = 2_000

# What indicators read, by name; `returns` and `activity` are log return and log1p(volume).
SERIES: tuple[str, ...] = ("high", "low", "close", "volume", "returns", "activity")
_GROUPS: tuple[tuple[int, ...], ...] = ((2,), (0, 1, 2), (0, 1, 2, 3), (0, 1), (4,), (5,))
CLOSE, HLC, HLCV, HL, RETURNS, ACTIVITY = range(6)


@dataclass(frozen=True, slots=True)
class Indicator:
    """One TA-Lib function, what it reads and which columns it fills.

    Attributes:
        function: TA-Lib name.
        group: which series it reads, index of the groups above.
        bars_needed: bars of a segment until its first value.
        columns: names filled, in the order of the function's outputs; None is not kept.
        parameters: of the function.
    """

    function: str
    group: int
    bars_needed: int
    columns: tuple[str | None, ...]
    parameters: Mapping[str, float] = field(default_factory=dict)

    def batch(self, series_IT: Floats) -> list[Floats]:
        """Return its outputs over a whole segment, float64 (T,) each."""
        function = getattr(talib, self.function)
        outputs = function(*series_IT[list(_GROUPS[self.group])], **self.parameters)
        return list(outputs) if len(self.columns) > 1 else [outputs]

    def open(self, series_IT: Floats) -> Any:
        """Return the streaming handle that has seen the segment so far."""
        function = getattr(talib.stream, self.function)
        return function(*series_IT[list(_GROUPS[self.group])], **self.parameters)


MACD_PERIODS = {"fastperiod": 12, "slowperiod": 26, "signalperiod": 9}
BAND_PARAMETERS = {"timeperiod": 20, "nbdevup": 2.0, "nbdevdn": 2.0, "matype": 0}
INDICATORS: tuple[Indicator, ...] = (
    Indicator("STDDEV", RETURNS, 61, ("sigma",), {"timeperiod": 60, "nbdev": 1.0}),
    Indicator("SMA", ACTIVITY, 60, ("volume_mean",), {"timeperiod": 60}),
    Indicator("STDDEV", ACTIVITY, 60, ("volume_std",), {"timeperiod": 60, "nbdev": 1.0}),
    Indicator("RSI", CLOSE, 15, ("rsi14",), {"timeperiod": 14}),
    Indicator("MFI", HLCV, 15, ("mfi14",), {"timeperiod": 14}),
    Indicator("ADX", HLC, 28, ("adx14",), {"timeperiod": 14}),
    Indicator("ATR", HLC, 15, ("atr14",), {"timeperiod": 14}),
    Indicator("CCI", HLC, 20, ("cci20",), {"timeperiod": 20}),
    Indicator("WILLR", HLC, 14, ("willr14",), {"timeperiod": 14}),
    Indicator("ROC", CLOSE, 11, ("roc10",), {"timeperiod": 10}),
    Indicator("AROONOSC", HL, 15, ("aroonosc14",), {"timeperiod": 14}),
    Indicator("EMA", CLOSE, 12, ("ema12",), {"timeperiod": 12}),
    Indicator("EMA", CLOSE, 26, ("ema26",), {"timeperiod": 26}),
    Indicator("SMA", CLOSE, 20, ("sma20",), {"timeperiod": 20}),
    Indicator("MACD", CLOSE, 34, (None, None, "macd_hist"), MACD_PERIODS),
    Indicator("BBANDS", CLOSE, 20, ("bb_upper", "bb_middle", "bb_lower"), BAND_PARAMETERS),
)
# rows of a segment before its 61st bar have WARMUP
WARMUP_BARS = max(indicator.bars_needed for indicator in INDICATORS)


class RowBuilder:
    """Makes the rows of one stream; a missing bar starts everything anew, closed rows never change.

    ```python
    builder = RowBuilder("ETH/USDT", Timeframe.M1)
    rows_TC, flags_T = builder.open(history)
    row_C, flags = builder.close(bar)  # commits
    row_C, flags = builder.peek(forming)  # commits nothing
    ```

    Attributes:
        pivots: the newest confirmed pivots of all levels, oldest first, at most 2000.
    """

    def __init__(self, symbol: str, timeframe: Timeframe) -> None:
        self._symbol = symbol
        self._timeframe = timeframe
        self._structure = WilliamsStructure(symbol, timeframe)
        self.pivots: deque[Pivot] = deque(maxlen=NUM_PIVOTS_KEPT)
        self._fresh: deque[Pivot] = deque(maxlen=NUM_PIVOTS_KEPT)
        self.reset()

    def reset(self) -> None:
        """Begin a new segment: the next bar is its first, whatever its time."""
        self._structure.reset()
        self._handles: list[Any] = [None] * len(INDICATORS)
        self._num_closed = 0
        # samples of the segment, until every handle is open
        self._start: list[tuple[float, ...]] = []
        self._next_ns: int | None = None
        self._close = math.nan

    def open(self, series: BarSeries) -> tuple[Floats, Flags]:
        """Start from the closed candles of the venue and return their rows.

        Args:
            series: closed bars, oldest first; may be empty; a longer step is a missing bar.

        Returns:
            float64 (T, C) rows and uint8 (T,) flags: VALID and VENUE, EMPTY where nobody traded,
            WARMUP.
        """
        self.reset()
        rows_TC = np.full((len(series), len(COLUMNS)), np.nan)
        rows_TC[:, :NUM_OHLCV] = series.ohlcv_TC
        cuts = np.flatnonzero(np.diff(series.open_ns_T) != self._timeframe.ns) + 1
        bounds = [0, *cuts.tolist(), len(series)] if len(series) else []
        for start, stop in pairwise(bounds):
            self.reset()
            self._open_segment(series.open_ns_T[start:stop], rows_TC[start:stop])
        flags_T = np.full(len(series), VALID | VENUE, np.uint8)
        flags_T[rows_TC[:, COLUMN["volume"]] == 0] |= np.uint8(EMPTY)
        flags_T[np.isnan(rows_TC[:, :FIRST_PIVOT]).any(axis=1)] |= np.uint8(WARMUP)
        return rows_TC, flags_T

    def _open_segment(self, open_ns_T: Ints, rows_TC: Floats) -> None:
        closes = rows_TC[:, COLUMN["close"]].tolist()
        volumes = rows_TC[:, COLUMN["volume"]].tolist()
        rows_TC[1:, COLUMN["log_return"]] = [math.log(b / a) for a, b in pairwise(closes)]
        activity_T = [math.log1p(volume) for volume in volumes]
        series_IT = np.array([*rows_TC[:, 1:6].T, activity_T])
        self._num_closed = len(rows_TC)
        for i, indicator in enumerate(INDICATORS):
            if self._num_closed < indicator.bars_needed:
                continue
            for name, output_T in zip(indicator.columns, indicator.batch(series_IT), strict=True):
                if name:
                    rows_TC[:, COLUMN[name]] = output_T
            self._handles[i] = indicator.open(series_IT)
        if self._num_closed < WARMUP_BARS:
            self._start = [tuple(sample) for sample in series_IT.T.tolist()]
        rows_TC[:, FIRST_PIVOT:] = self._walk_pivots(open_ns_T, rows_TC)
        self._next_ns = int(open_ns_T[-1]) + self._timeframe.ns
        self._close = closes[-1]

    def _walk_pivots(self, open_ns_T: Ints, rows_TC: Floats) -> list[list[float]]:
        states = []
        bars = zip(open_ns_T.tolist(), rows_TC[:, :4].tolist(), strict=True)
        for open_ns, (open_, high, low, close) in bars:
            self.pivots.extend(self._structure.update(open_ns, open_, high, low, close))
            states.append(self._structure.state.copy())
        return states

    def close(self, bar: Bar) -> tuple[Floats, int]:
        """Take the next closed bar and return its final row.

        Returns:
            float64 (C,) row and its BarFlag bits.

        Raises:
            InvalidBar: the bar is not newer than the last closed one.
        """
        if not self._continues(bar):
            self.reset()
        values = self._measure(bar, commit=True)
        confirmed = self._structure.update(bar.open_ns, bar.open, bar.high, bar.low, bar.close)
        self.pivots.extend(confirmed)
        self._fresh.extend(confirmed)
        self._next_ns = bar.close_ns
        self._close = bar.close
        return self._row(bar, values, self._structure.state)

    def peek(self, bar: Bar) -> tuple[Floats, int]:
        """Return the row of the forming bar so far, as `close` does, with FORMING; commit nothing.

        Its pivots are those confirmed by closed bars. A forming bar that does not follow the last
        closed one begins a segment of its own.
        """
        if not self._continues(bar):
            return RowBuilder(self._symbol, self._timeframe).peek(bar)
        row_C, flags = self._row(bar, self._measure(bar, commit=False), self._structure.state)
        return row_C, flags | FORMING

    def _continues(self, bar: Bar) -> bool:
        """Return whether `bar` follows the last closed one or is the first of its segment."""
        if self._next_ns is None or bar.open_ns == self._next_ns:
            return True
        if bar.open_ns < self._next_ns:
            raise InvalidBar(
                f"{self._symbol} {self._timeframe}: expected a bar that opens at {self._next_ns} "
                f"or later, was {bar.open_ns}; drop it, its row is already written"
            )
        return False

    def drain_pivots(self) -> list[Pivot]:
        """Return the pivots that `close` confirmed since the last call; none are from `open`."""
        fresh = list(self._fresh)
        self._fresh.clear()
        return fresh

    def _measure(self, bar: Bar, *, commit: bool) -> list[float]:
        """Return the columns between prices and pivots, NaN where too few bars have closed."""
        change = math.log(bar.close / self._close)  # NaN on the first bar of a segment
        high, low, close, volume = bar.high, bar.low, bar.close, bar.volume
        activity = math.log1p(volume)
        sample = (high, low, close, volume, change, activity)
        # by group, in the order of _GROUPS
        arguments = ((close,), sample[:3], sample[:4], sample[:2], (change,), (activity,))
        num_bars = self._num_closed + 1
        values = [change]
        for i, indicator in enumerate(INDICATORS):
            handle = self._handles[i]
            if handle is not None:
                output = (handle.update if commit else handle.peek)(*arguments[indicator.group])
            elif num_bars >= indicator.bars_needed:
                handle = indicator.open(np.array([*self._start, sample]).T.copy())
                output = handle.value
                if commit:
                    self._handles[i] = handle
            else:
                output = (math.nan,) * len(indicator.columns)
            if isinstance(output, float):
                values.append(output)
            else:
                values += [v for v, name in zip(output, indicator.columns, strict=True) if name]
        if commit:
            self._num_closed = num_bars
            self._start = [*self._start, sample] if num_bars < WARMUP_BARS else []
        return values

    def _row(self, bar: Bar, values: list[float], pivots: list[float]) -> tuple[Floats, int]:
        row_C = np.array([bar.open, bar.high, bar.low, bar.close, bar.volume, *values, *pivots])
        flags = VALID
        if bar.is_venue:
            flags |= VENUE
        if bar.volume == 0:
            flags |= EMPTY
        if math.isnan(sum(values)):
            flags |= WARMUP
        return row_C, flags
