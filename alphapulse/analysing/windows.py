"""Make the windows of recorded instants, and ones whose later part is overwritten."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alphapulse.config import Settings
from alphapulse.data.cache import MarketCache
from alphapulse.data.history import bars_of
from alphapulse.data.recordings import read_series
from alphapulse.domain.errors import NoData
from alphapulse.domain.inputs import INPUT_SPEC, IncompleteInput, ModelInput
from alphapulse.domain.market import (
    SECOND_NS,
    Bar,
    BarFlag,
    BarSeries,
    Floats,
    Timeframe,
)
from alphapulse.domain.windows import BookWindow, MarketWindow, StreamWindow
from alphapulse.features.inputs import PeerTable, build
from alphapulse.features.rows import BOOK_COLUMNS

# axes: N instant, oldest first
NUM_INSTANTS = 120  # newest whole minutes of the candles
NUM_LATER = 40  # rows appended to each stream


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: the instants whose inputs are complete.

    Attributes:
        windows_N: what was known at each.
        inputs_N: the primary symbol's inputs.
        close_N: float64 (N,) its price at each [quote currency].
    """

    windows_N: Sequence[MarketWindow]
    inputs_N: Sequence[ModelInput]
    close_N: Floats


def candles_of(recording: Path, settings: Settings) -> list[BarSeries]:
    """Return the candles of 1m, 1h and 1d of both symbols that models are taught.

    Raises InvalidRecording if one is missing.
    """
    return [
        read_series(recording / f"candles-{t}-{i.venue_symbol}.parquet", i.symbol, t)
        for i in settings.market.taught
        for t in (Timeframe.M1, Timeframe.H1, Timeframe.D1)
    ]


def ask(series: Sequence[BarSeries], settings: Settings, *, count: int = NUM_INSTANTS) -> Asked:
    """Return the newest minutes of candles at which an input is complete.

    Args:
        series: candles of every symbol and timeframe, as `candles_of` reads them.
        settings: of market and feed.
        count: minutes looked at.

    Raises NoData if none is complete.
    """
    instruments, minute_ns = settings.market.taught, Timeframe.M1.ns
    end_ns = min(int(s.open_ns_T[-1]) for s in series if s.timeframe is Timeframe.M1) + minute_ns
    at_ns = end_ns - (count - 1) * minute_ns
    cache = MarketCache(instruments, settings.feed)
    for stream in series:
        cache.seed(stream.until(at_ns - minute_ns))
    windows, inputs = [], []
    closing = _closing(series, at_ns - minute_ns, end_ns)
    for instant_ns in range(at_ns, end_ns + 1, minute_ns):
        while closing and closing[0].close_ns <= instant_ns:
            cache.apply(closing.popleft())
        cache.close_until(instant_ns)
        window = cache.window(instant_ns)
        if isinstance(input := built(window, settings), ModelInput):
            windows.append(window)
            inputs.append(input)
    if not inputs:
        raise NoData(
            f"models: expected a complete input in the last {count} minutes of candles, was none; "
            "name a recording with a longer history"
        )
    return Asked(windows, inputs, np.array([input.price for input in inputs]))


def _closing(series: Sequence[BarSeries], from_ns: int, until_ns: int) -> deque[Bar]:
    """Return the bars that close after `from_ns`, until `until_ns`, in order."""
    bars = [bar for stream in series for bar in bars_of(_since(stream, from_ns).until(until_ns))]
    return deque(sorted(bars, key=lambda bar: (bar.ts_ns, bar.symbol, bar.timeframe.ns)))


def _since(series: BarSeries, from_ns: int) -> BarSeries:
    return series.last(len(series) - len(series.until(from_ns)))


def built(window: MarketWindow, settings: Settings) -> ModelInput | IncompleteInput:
    """Return the primary symbol's input when flat and without peers."""
    symbol, reference = (i.symbol for i in settings.market.taught[:2])
    account_A = np.zeros(INPUT_SPEC.num_account_fields, np.float32)
    return build(window, symbol=symbol, reference=reference, peers=PeerTable(), account_A=account_A)


def with_later(window: MarketWindow, fill: float) -> MarketWindow:
    """Return the window with rows of `fill` after its instant in every stream and book."""
    streams = {key: _longer(stream, fill) for key, stream in window.streams.items()}
    symbols = {symbol for symbol, _ in streams}
    books = {symbol: _longer_book(window, symbol, fill) for symbol in symbols}
    return replace(window, streams=streams, books=books)


def _longer(stream: StreamWindow, fill: float) -> StreamWindow:
    ns = stream.timeframe.ns
    last_ns = int(stream.open_ns_T[-1]) if len(stream.open_ns_T) else 0
    later_ns = last_ns + ns * np.arange(1, NUM_LATER + 1)
    rows = np.full((NUM_LATER, stream.rows_TC.shape[1]), fill)
    flags = np.full(NUM_LATER, int(BarFlag.VALID), np.uint8)
    return replace(
        stream,
        open_ns_T=np.concatenate([stream.open_ns_T, later_ns]),
        rows_TC=np.concatenate([stream.rows_TC, rows]),
        flags_T=np.concatenate([stream.flags_T, flags]),
    )


def _longer_book(window: MarketWindow, symbol: str, fill: float) -> BookWindow:
    book = window.books.get(symbol)
    later_ns = window.event_ns + SECOND_NS * np.arange(1, NUM_LATER + 1)
    rows = np.full((NUM_LATER, len(BOOK_COLUMNS)), fill)
    flags = np.zeros(NUM_LATER, np.uint8)
    if book is None:
        return BookWindow(symbol, later_ns, rows, flags)
    return BookWindow(
        symbol,
        np.concatenate([book.second_ns_T, later_ns]),
        np.concatenate([book.rows_TC, rows]),
        np.concatenate([book.flags_T, flags]),
    )
