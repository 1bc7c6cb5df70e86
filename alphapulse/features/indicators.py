"""Turn bars into rows of indicators and pivots, streamed and equal to batch bit for bit."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import talib
import talib.stream

from alphapulse.domain.errors import InvalidBar
from alphapulse.domain.market import Bar, BarFlag, BarSeries, Flags, Floats, Ints, Pivot, Timeframe
from alphapulse.features.own import OwnColumns, Prices
from alphapulse.features.pivot_points import SessionLevels
from alphapulse.features.pivots import WilliamsStructure
from alphapulse.features.registry import INDICATORS, SERIES, WARM_UP, Indicator, layout
from alphapulse.features.row_code import packer, row_code, sample_code

# axes: T bar, oldest first · C column of `registry.layout()` · I input series

# plain integers: operators of an IntFlag take a microsecond each
VALID, FORMING, EMPTY, VENUE, WARMUP = (
    int(flag)
    for flag in (BarFlag.VALID, BarFlag.FORMING, BarFlag.EMPTY, BarFlag.VENUE, BarFlag.WARMUP)
)
NUM_PIVOTS_KEPT = 2_000
LONGEST = max(indicator.warm_up for indicator in INDICATORS)
NAN = math.nan

Call = Callable[..., Any]  # of an indicator: what it gives for the next bar
Sample = tuple[float, ...]  # what indicators read of a bar, in the order of SERIES


def batch(indicator: Indicator, series_IT: Floats) -> list[Floats]:
    """Return the outputs of an indicator over a whole segment, float64 (T,), NaN before warm-up.

    Args:
        indicator: of the registry.
        series_IT: float64 (I, T) in the order of SERIES, from the segment's first bar.
    """
    reads = [series_IT[SERIES.index(name)] for name in indicator.reads]
    outputs = getattr(talib, indicator.function)(*reads, **indicator.parameters)
    found = list(outputs) if len(indicator.columns) > 1 else [outputs]
    for output_T in found:
        output_T[: indicator.warm_up - 1] = NAN
    return found


def opened(indicator: Indicator, samples: Sequence[Sample]) -> Any:
    """Return the streaming handle of an indicator that has seen a segment so far."""
    series_IT = np.array(samples).T.copy()
    reads = [series_IT[SERIES.index(name)] for name in indicator.reads]
    return getattr(talib.stream, indicator.function)(*reads, **indicator.parameters)


def _always(value: Any) -> Call:
    return lambda *_: value


_NOTHING = tuple(
    _always(NAN if len(i.columns) == 1 else (NAN,) * len(i.columns)) for i in INDICATORS
)


class RowBuilder:
    """Makes the rows of one stream; a missing bar starts everything anew, closed rows never change.

    ```python
    builder = RowBuilder("ETH/USDT", Timeframe.M1)
    rows_TC, flags_T = builder.open(history)
    row_C, flags = builder.close(bar)  # commits
    row_C, flags = builder.peek(forming)  # commits nothing
    ```

    Attributes:
        columns: names of a row's columns: those of `features.rows.COLUMNS`, then the others.
        own: names of the users' indicators in the columns `own_1`, `own_2`.
        pivots: the newest confirmed pivots of all levels, oldest first, at most 2000.
    """

    def __init__(self, symbol: str, timeframe: Timeframe) -> None:
        self.columns = layout()
        self.pivots: deque[Pivot] = deque(maxlen=NUM_PIVOTS_KEPT)
        self._symbol = symbol
        self._timeframe = timeframe
        self._structure = WilliamsStructure(symbol, timeframe)
        self._levels = SessionLevels(timeframe)
        self._own = OwnColumns()
        self.own = self._own.channels
        self._pack = packer(self.columns)
        self._row = row_code(self.columns, self._own.names, asks=True)
        self.reset()

    def reset(self) -> None:
        """Begin a new segment: the next bar is its first, whatever its time."""
        self._structure.reset()
        self._own.reset()
        self._updates: list[Call] = [*_NOTHING]
        self._peeks: list[Call] = [*_NOTHING]
        self._num_closed = 0
        self._start: list[Sample] = []  # of the segment, until every handle is open
        self._next_ns: int | None = None
        self._close = NAN

    def open(self, series: BarSeries, *, newest: int | None = None) -> tuple[Floats, Flags]:
        """Start from the closed candles of the venue and return their rows.

        Args:
            series: closed bars, oldest first; may be empty; a longer step is a missing bar.
            newest: how many rows to return, all unless it is said; all bars count for them.

        Returns:
            float64 (T, C) rows and uint8 (T,) flags: VALID and VENUE, EMPTY where nobody traded,
            WARMUP where a channel of the models has too few bars behind it.
        """
        self.reset()
        self._levels = SessionLevels(self._timeframe)
        first = 0 if newest is None else max(len(series) - newest, 0)
        rows = [np.empty((0, len(self.columns)))]
        flags_T = np.full(len(series), VALID | VENUE, np.uint8)
        cuts = np.flatnonzero(np.diff(series.open_ns_T) != self._timeframe.ns) + 1
        bounds = [0, *cuts.tolist(), len(series)] if len(series) else []
        for start, stop in pairwise(bounds):
            self.reset()
            part = slice(start, stop)
            made = self._open_segment(
                series.open_ns_T[part], series.ohlcv_TC[part], skip=max(first - start, 0)
            )
            rows.append(made)
            flags_T[start : min(start + WARM_UP - 1, stop)] |= np.uint8(WARMUP)
        flags_T[series.ohlcv_TC[:, 4] == 0] |= np.uint8(EMPTY)
        return np.concatenate(rows), flags_T[first:]

    def _open_segment(self, open_ns_T: Ints, ohlcv_TC: Floats, *, skip: int) -> Floats:
        """Open a segment and return the rows of its bars after the first `skip`."""
        bars = ohlcv_TC.tolist()
        closes = [NAN, *(bar[3] for bar in bars)]
        read = sample_code()
        samples = [read(*bar, before) for bar, before in zip(bars, closes, strict=False)]
        series_IT = np.array(samples).T.copy()
        outputs_OT: list[Floats] = []
        for i, indicator in enumerate(INDICATORS):
            if len(bars) < indicator.warm_up:
                outputs_OT += [np.full(len(bars), NAN)] * len(indicator.columns)
            else:
                outputs_OT += batch(indicator, series_IT)
                self._use(i, opened(indicator, samples))
        self._num_closed = len(bars)
        self._start = samples if len(bars) < LONGEST else []
        row = row_code(self.columns, self._own.names, asks=False)
        outputs_TO = np.array(outputs_OT)[:, skip:].T.tolist()
        made = []
        for t, (open_ns, bar) in enumerate(zip(open_ns_T.tolist(), bars, strict=True)):
            self._commit(open_ns, bar)
            if t < skip:
                self._own.pass_by(bar)
                continue
            structure, levels = self._structure, self._levels.state
            told = (closes[t], structure.state, structure.context, levels, self._own.close)
            made.append(row(self._pack, outputs_TO[t - skip], *bar, *told))
        self._next_ns = int(open_ns_T[-1]) + self._timeframe.ns
        self._close = closes[-1]
        return np.frombuffer(b"".join(made)).reshape(-1, len(self.columns))

    def close(self, bar: Bar) -> tuple[Floats, int]:
        """Take the next closed bar and return its final row.

        Returns:
            Read-only float64 (C,) row and its BarFlag bits.

        Raises:
            InvalidBar: the bar is not newer than the last closed one.
        """
        if not self._continues(bar):
            self.reset()
        prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        due = self._due(prices, commit=True) if self._num_closed < LONGEST else {}
        self._commit(bar.open_ns, prices)
        structure, levels = self._structure, self._levels.state
        made = self._row(
            self._pack, self._updates, *prices, self._close, structure.state, structure.context,
            levels, self._own.close,
        )  # fmt: skip
        for i, handle in due.items():
            self._use(i, handle)
        self._num_closed += 1
        self._next_ns = bar.close_ns
        self._close = bar.close
        return np.frombuffer(made), self._flags(bar, self._num_closed)

    def peek(self, bar: Bar) -> tuple[Floats, int]:
        """Return the row of the forming bar so far, as `close` does, with FORMING; commit nothing.

        Its pivots are those confirmed by closed bars. A forming bar that does not follow the last
        closed one begins a segment of its own.
        """
        if not self._continues(bar):
            alone = copy.copy(self)
            alone._structure = WilliamsStructure(self._symbol, self._timeframe)
            alone._own = OwnColumns(self._own.indicators)
            alone.reset()
            return alone.peek(bar)
        prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        calls = self._peeks
        if self._num_closed < LONGEST:
            due = self._due(prices, commit=False)
            calls = [_always(due[i].value) if i in due else call for i, call in enumerate(calls)]
        structure, levels = self._structure, self._levels.peek(bar.open_ns)
        made = self._row(
            self._pack, calls, *prices, self._close, structure.state, structure.context, levels,
            self._own.peek,
        )  # fmt: skip
        return np.frombuffer(made), self._flags(bar, self._num_closed + 1) | FORMING

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

    def _commit(self, open_ns: int, prices: Prices) -> None:
        open_, high, low, close, _ = prices
        self.pivots.extend(self._structure.update(open_ns, open_, high, low, close))
        self._levels.update(open_ns, high, low, close)

    def _due(self, prices: Prices, *, commit: bool) -> dict[int, Any]:
        """Return the handles of the indicators whose first valid bar this is, which it opens."""
        samples = self._start if commit else self._start.copy()
        samples.append(sample_code()(*prices, self._close))
        due = {
            i: opened(indicator, samples)
            for i, indicator in enumerate(INDICATORS)
            if indicator.warm_up == len(samples)
        }
        if commit:
            for i, handle in due.items():
                self._updates[i] = _always(handle.value)
            if len(samples) == LONGEST:
                self._start = []
        return due

    def _use(self, i: int, handle: Any) -> None:
        self._updates[i], self._peeks[i] = handle.update, handle.peek

    def _flags(self, bar: Bar, num_bars: int) -> int:
        flags = VALID
        if bar.is_venue:
            flags |= VENUE
        if bar.volume == 0:
            flags |= EMPTY
        if num_bars < WARM_UP:
            flags |= WARMUP
        return flags
