"""Turn bars into rows of indicators and pivots, streamed and equal to batch bit for bit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from struct import Struct
from typing import Any

import numpy as np
import talib
import talib.stream

from alphapulse.domain.errors import InvalidBar
from alphapulse.domain.market import Bar, BarFlag, BarSeries, Flags, Floats, Ints, Pivot, Timeframe
from alphapulse.features.own import OwnColumns, Prices
from alphapulse.features.pivot_points import SESSION_LEVELS, SessionLevels
from alphapulse.features.pivots import WilliamsStructure
from alphapulse.features.registry import (
    CONTEXT,
    DERIVED,
    INDICATORS,
    SERIES,
    WARM_UP,
    Indicator,
    layout,
)
from alphapulse.features.rows import COLUMN, COLUMNS

# axes: T bar, oldest first · C column of `registry.layout()` · I input series · O output

# plain integers: operators of an IntFlag take a microsecond each
VALID, FORMING, EMPTY, VENUE, WARMUP = (
    int(flag)
    for flag in (BarFlag.VALID, BarFlag.FORMING, BarFlag.EMPTY, BarFlag.VENUE, BarFlag.WARMUP)
)
NUM_OHLCV = 5
NUM_PIVOTS_KEPT = 2_000
LEAST_VOLUME = 1e-6  # of 20 bars [base currency]: less is what rounding leaves of a sum of zeros
NAN = math.nan

Call = Callable[..., Any]  # a handle's `update` or `peek`

# Handles with equal arguments are asked together: half the time of a Python call is its arguments.
_GROUPED = tuple(sorted(INDICATORS, key=lambda i: (i.reads, len(i.columns) > 1)))
_GROUPS = [(reads, list(some)) for reads, some in groupby(_GROUPED, key=lambda i: i.reads)]
_OUTPUTS = tuple(name for indicator in _GROUPED for name in indicator.columns)
_AT = {name: i for i, name in enumerate(_OUTPUTS)}
_MEAN, _STD, _TURNOVER, _VOLUME, _ATR = (
    _AT[name] for name in ("volume_mean", "volume_std", "turnover20", "volume20", "atr14")
)
LONGEST = max(indicator.warm_up for indicator in INDICATORS)


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


def opened(indicator: Indicator, series_IT: Floats) -> Any:
    """Return the streaming handle of an indicator that has seen a segment so far."""
    reads = [series_IT[SERIES.index(name)] for name in indicator.reads]
    return getattr(talib.stream, indicator.function)(*reads, **indicator.parameters)


def sample_of(bar: Sequence[float], before: float) -> tuple[float, ...]:
    """Return what indicators read of a bar, in the order of SERIES.

    Args:
        bar: open, high, low, close [quote currency], volume [base currency].
        before: close of the bar before; NaN for the first of a segment.
    """
    _, high, low, close, volume = bar
    width = high - low
    signed = volume if close > before else -volume if close < before else 0.0
    return (
        high,
        low,
        close,
        volume,
        math.log(close / before),
        math.log1p(volume),
        (high + low + close) / 3 * volume,
        signed if before == before else NAN,
        (2 * close - high - low) / width * volume if width > 0 else 0.0,
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
        self._pack = Struct(f"{len(self.columns)}d").pack
        made = (
            *COLUMNS[: NUM_OHLCV + 1], *_OUTPUTS, *DERIVED,
            *COLUMNS[COLUMN["l1_high"] : COLUMN["own_1"]], *CONTEXT, *SESSION_LEVELS,
            *COLUMNS[COLUMN["own_1"] :], *self._own.names,
        )  # fmt: skip
        self._arranged = itemgetter(*map(made.index, self.columns))
        self.reset()

    def reset(self) -> None:
        """Begin a new segment: the next bar is its first, whatever its time."""
        self._structure.reset()
        self._own.reset()
        self._handles: list[Any] = [None] * len(_GROUPED)
        self._updates: list[tuple[Call, list[Call], list[Call]]] = []
        self._peeks: list[tuple[Call, list[Call], list[Call]]] = []
        self._num_closed = 0
        self._start: list[tuple[float, ...]] = []  # samples of the segment, until all handles open
        self._next_ns: int | None = None
        self._close = NAN

    def open(self, series: BarSeries) -> tuple[Floats, Flags]:
        """Start from the closed candles of the venue and return their rows.

        Args:
            series: closed bars, oldest first; may be empty; a longer step is a missing bar.

        Returns:
            float64 (T, C) rows and uint8 (T,) flags: VALID and VENUE, EMPTY where nobody traded,
            WARMUP where a channel of the models has too few bars behind it.
        """
        self.reset()
        self._levels = SessionLevels(self._timeframe)
        rows_TC = np.empty((len(series), len(self.columns)))
        flags_T = np.full(len(series), VALID | VENUE, np.uint8)
        cuts = np.flatnonzero(np.diff(series.open_ns_T) != self._timeframe.ns) + 1
        bounds = [0, *cuts.tolist(), len(series)] if len(series) else []
        for start, stop in pairwise(bounds):
            self.reset()
            part = slice(start, stop)
            rows_TC[part] = self._open_segment(series.open_ns_T[part], series.ohlcv_TC[part])
            flags_T[start : min(start + WARM_UP - 1, stop)] |= np.uint8(WARMUP)
        flags_T[series.ohlcv_TC[:, 4] == 0] |= np.uint8(EMPTY)
        return rows_TC, flags_T

    def _open_segment(self, open_ns_T: Ints, ohlcv_TC: Floats) -> Floats:
        bars: list[Prices] = list(map(tuple, ohlcv_TC.tolist()))
        closes = [NAN, *(bar[3] for bar in bars)]
        samples = [sample_of(bar, before) for bar, before in zip(bars, closes[:-1], strict=True)]
        series_IT = np.array(samples).T.copy()
        outputs_OT = np.full((len(_OUTPUTS), len(bars)), NAN)
        self._num_closed = len(bars)
        for i, indicator in enumerate(_GROUPED):
            if len(bars) < indicator.warm_up:
                continue
            found = batch(indicator, series_IT)
            first = _AT[indicator.columns[0]]
            outputs_OT[first : first + len(found)] = found
            self._handles[i] = opened(indicator, series_IT)
        if len(bars) < LONGEST:
            self._start = samples
        else:
            self._group()
        outputs_TO = outputs_OT.T.tolist()
        rows = [
            self._arranged(self._finish(open_ns, bar, sample, outputs))
            for open_ns, bar, sample, outputs in zip(
                open_ns_T.tolist(), bars, samples, outputs_TO, strict=True
            )
        ]
        self._next_ns = int(open_ns_T[-1]) + self._timeframe.ns
        self._close = closes[-1]
        return np.array(rows)

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
        sample = sample_of(prices, self._close)
        outputs = _asked(self._updates, sample) if self._updates else self._warming(sample, True)
        made = self._finish(bar.open_ns, prices, sample, outputs)
        self._num_closed += 1
        self._next_ns = bar.close_ns
        self._close = bar.close
        return self._row(made), self._flags(bar, self._num_closed)

    def peek(self, bar: Bar) -> tuple[Floats, int]:
        """Return the row of the forming bar so far, as `close` does, with FORMING; commit nothing.

        Its pivots are those confirmed by closed bars. A forming bar that does not follow the last
        closed one begins a segment of its own.
        """
        if not self._continues(bar):
            return RowBuilder(self._symbol, self._timeframe).peek(bar)
        prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        sample = sample_of(prices, self._close)
        outputs = _asked(self._peeks, sample) if self._peeks else self._warming(sample, False)
        own = self._own.peek(prices, outputs[_ATR])
        levels = self._levels.peek(bar.open_ns)
        made = _made(prices, sample, outputs, self._structure, levels, own)
        return self._row(made), self._flags(bar, self._num_closed + 1) | FORMING

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

    def _finish(
        self, open_ns: int, prices: Prices, sample: tuple[float, ...], outputs: list[float]
    ) -> list[float]:
        """Commit a closed bar to pivots, levels and users' indicators; return its columns."""
        open_, high, low, close, _ = prices
        self.pivots.extend(self._structure.update(open_ns, open_, high, low, close))
        self._levels.update(open_ns, high, low, close)
        own = self._own.close(prices, outputs[_ATR])
        return _made(prices, sample, outputs, self._structure, self._levels.state, own)

    def _warming(self, sample: tuple[float, ...], commit: bool) -> list[float]:
        """Return the outputs while some have too few bars behind them, NaN for those."""
        num_bars = self._num_closed + 1
        outputs: list[float] = []
        for i, indicator in enumerate(_GROUPED):
            handle = self._handles[i]
            if handle is not None:
                arguments = [sample[SERIES.index(name)] for name in indicator.reads]
                output = (handle.update if commit else handle.peek)(*arguments)
            elif num_bars >= indicator.warm_up:
                handle = opened(indicator, np.array([*self._start, sample]).T.copy())
                output = handle.value
                if commit:
                    self._handles[i] = handle
            else:
                output = (NAN,) * len(indicator.columns)
            outputs += output if isinstance(output, tuple) else (output,)
        if commit:
            self._start.append(sample)
            if num_bars >= LONGEST:
                self._start = []
                self._group()
        return outputs

    def _group(self) -> None:
        """Prepare to ask all handles, now that all are open."""
        handles = iter(self._handles)
        for reads, indicators in _GROUPS:
            arguments = itemgetter(*map(SERIES.index, reads))
            some = [next(handles) for _ in indicators]
            num_single = sum(len(indicator.columns) == 1 for indicator in indicators)
            for grouped, calls in (
                (self._updates, [handle.update for handle in some]),
                (self._peeks, [handle.peek for handle in some]),
            ):
                grouped.append((arguments, calls[:num_single], calls[num_single:]))

    def _row(self, made: list[float]) -> Floats:
        return np.frombuffer(self._pack(*self._arranged(made)))

    def _flags(self, bar: Bar, num_bars: int) -> int:
        flags = VALID
        if bar.is_venue:
            flags |= VENUE
        if bar.volume == 0:
            flags |= EMPTY
        if num_bars < WARM_UP:
            flags |= WARMUP
        return flags


def _asked(
    groups: list[tuple[Call, list[Call], list[Call]]], sample: tuple[float, ...]
) -> list[float]:
    outputs: list[float] = []
    for arguments_of, single, several in groups:
        arguments = arguments_of(sample)
        if arguments.__class__ is float:
            outputs += [call(arguments) for call in single]
            for call in several:
                outputs += call(arguments)
        else:
            outputs += [call(*arguments) for call in single]
            for call in several:
                outputs += call(*arguments)
    return outputs


def _made(
    prices: Prices,
    sample: tuple[float, ...],
    outputs: list[float],
    structure: WilliamsStructure,
    levels: Sequence[float],
    own: list[float],
) -> list[float]:
    """Return all columns of a row, in the order `RowBuilder` arranges them from."""
    close, volume, std, volume20 = prices[3], prices[4], outputs[_STD], outputs[_VOLUME]
    is_traded = volume20 > LEAST_VOLUME
    return [
        *prices,
        sample[4],
        *outputs,
        (sample[5] - outputs[_MEAN]) / std if std > 0 else NAN,
        outputs[_TURNOVER] / volume20 if is_traded else NAN,
        100 * outputs[_ATR] / close,
        20 * volume / volume20 if is_traded else NAN,
        *structure.state,
        *structure.context,
        *levels,
        *own,
    ]
