"""Make bars and windows from the recorded candles and books, as the cache would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alphapulse.domain.market import SECOND_NS, Bar, BarSeries, Floats, Timeframe
from alphapulse.domain.windows import BookWindow, MarketWindow, StreamWindow
from alphapulse.features import registry
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.rows import BIN_BPS, BOOK_COLUMN, BOOK_COLUMNS, NUM_BINS

SYMBOLS = ("ETH/USDT", "BTC/USDT")
OHLCV = ["open", "high", "low", "close", "volume"]
LoadSeries = Callable[[str, Timeframe], BarSeries]
MakeWindow = Callable[..., MarketWindow]


@pytest.fixture(scope="session")
def load_series(recordings: Path) -> LoadSeries:
    """Return a function that gives the recorded candles of a symbol and timeframe."""
    loaded: dict[tuple[str, Timeframe], BarSeries] = {}

    def load(symbol: str, timeframe: Timeframe) -> BarSeries:
        if (symbol, timeframe) not in loaded:
            file = recordings / f"candles-{timeframe.value}-{symbol.replace('/', '')}.parquet"
            table = pq.read_table(file, columns=["ts", *OHLCV])
            open_ns_T = table["ts"].to_numpy().astype(np.int64)
            ohlcv_TC = np.column_stack([table[name].to_numpy() for name in OHLCV])
            loaded[symbol, timeframe] = BarSeries(symbol, timeframe, open_ns_T, ohlcv_TC)
        return loaded[symbol, timeframe]

    return load


@pytest.fixture(scope="session")
def book_rows(recordings: Path) -> dict[str, BookWindow]:
    """Return by symbol the recorded seconds of the book as rows; what the file lacks is NaN."""
    return {symbol: _book_of(recordings, symbol) for symbol in SYMBOLS}


def _book_of(recordings: Path, symbol: str) -> BookWindow:
    name = symbol.replace("/", "")
    book = pq.read_table(recordings / f"book-1s-{name}.parquet").to_pandas()
    candles = pq.read_table(recordings / f"candles-1s-{name}.parquet").to_pandas()
    traded = candles.set_index(candles["ts"].astype(np.int64) + SECOND_NS)
    second_ns_T = book["ts"].astype(np.int64).to_numpy()
    rows_TB = np.full((len(book), len(BOOK_COLUMNS)), np.nan)
    mid_T = ((book["bid_px_0"] + book["ask_px_0"]) / 2).to_numpy()
    for first, side, sign in ((0, "bid", -1), (NUM_BINS, "ask", 1)):
        price_TL = book[[f"{side}_px_{i}" for i in range(50)]].to_numpy()
        size_TL = book[[f"{side}_sz_{i}" for i in range(50)]].to_numpy()
        bps_TL = sign * (price_TL / mid_T[:, None] - 1) * 1e4
        for i in range(NUM_BINS):
            inside_TL = (bps_TL >= i * BIN_BPS) & (bps_TL < (i + 1) * BIN_BPS)
            is_known_T = bps_TL[:, -1] >= (i + 1) * BIN_BPS
            rows_TB[:, first + i] = np.where(is_known_T, (size_TL * inside_TL).sum(axis=1), np.nan)
    bid, ask = book["bid_sz_0"], book["ask_sz_0"]
    rows_TB[:, BOOK_COLUMN["mid"]] = mid_T
    rows_TB[:, BOOK_COLUMN["spread_bps"]] = (book["ask_px_0"] - book["bid_px_0"]) / mid_T * 1e4
    rows_TB[:, BOOK_COLUMN["imbalance"]] = (bid - ask) / (bid + ask)
    bought = traded["taker_buy_volume"].reindex(second_ns_T).to_numpy()
    volume = traded["volume"].reindex(second_ns_T).to_numpy()
    rows_TB[:, BOOK_COLUMN["bought"]] = bought
    rows_TB[:, BOOK_COLUMN["sold"]] = np.maximum(volume - bought, 0)
    rows_TB[:, BOOK_COLUMN["num_trades"]] = traded["trades"].reindex(second_ns_T).to_numpy()
    return BookWindow(symbol, second_ns_T, rows_TB, np.zeros(len(rows_TB), np.uint8))


@pytest.fixture(scope="session")
def make_window(load_series: LoadSeries, book_rows: dict[str, BookWindow]) -> MakeWindow:
    """Return a function that builds the window of an instant from the recording.

    `after` says what follows the instant in the arrays: "nothing", the recorded "future", or that
    future overwritten with 1e9 ("poison"). `factor` multiplies all prices.
    """

    def make(event_ns: int, *, after: str = "nothing", factor: float = 1.0) -> MarketWindow:
        streams = {
            (symbol, timeframe): _stream(load_series, symbol, timeframe, event_ns, after, factor)
            for symbol in SYMBOLS
            for timeframe in Timeframe
        }
        books = {
            symbol: _book_window(book_rows[symbol], event_ns, after, factor) for symbol in SYMBOLS
        }
        own = registry.channels()
        return MarketWindow(event_ns, 1, streams, books, {}, {}, event_ns, own=own)

    return make


def scaled(series: BarSeries, factor: float) -> BarSeries:
    """Return the series with all prices multiplied."""
    ohlcv_TC = series.ohlcv_TC * np.array([factor] * 4 + [1.0])
    return BarSeries(series.symbol, series.timeframe, series.open_ns_T, ohlcv_TC)


def _stream(
    load: LoadSeries, symbol: str, timeframe: Timeframe, event_ns: int, after: str, factor: float
) -> StreamWindow:
    whole = scaled(load(symbol, timeframe), factor)
    known = whole.until(event_ns)
    first, last = max(0, len(known) - 800), len(known) if after == "nothing" else len(known) + 40
    series = BarSeries(
        symbol, timeframe, whole.open_ns_T[first:last], whole.ohlcv_TC[first:last].copy()
    )
    if after == "poison":
        series.ohlcv_TC[len(known) - first :] = 1e9
    rows_TC, flags_T = RowBuilder(symbol, timeframe).open(series)
    forming = None if timeframe is Timeframe.S1 else _forming(load, symbol, timeframe, event_ns)
    if forming is None:
        return StreamWindow(symbol, timeframe, series.open_ns_T, rows_TC, flags_T, None, None, 0)
    builder = RowBuilder(symbol, timeframe)
    builder.open(known.last(len(known) - first))
    open_, high, low, close, volume = forming
    row_C, flags = builder.peek(
        Bar(
            symbol,
            timeframe,
            timeframe.floor(event_ns),
            open_ * factor,
            high * factor,
            low * factor,
            close * factor,
            volume,
        )
    )
    opened = timeframe.floor(event_ns)
    return StreamWindow(symbol, timeframe, series.open_ns_T, rows_TC, flags_T, opened, row_C, flags)


def _forming(load: LoadSeries, symbol: str, timeframe: Timeframe, event_ns: int) -> list[float]:
    """Return open, high, low, close and volume so far, from whole minutes and then seconds."""
    at, parts = timeframe.floor(event_ns), []
    for lower in (Timeframe.H1, Timeframe.M1, Timeframe.S1):
        if lower.ns < timeframe.ns:
            closed = load(symbol, lower).until(event_ns)
            start = int(np.searchsorted(closed.open_ns_T, at))
            parts.append(closed.ohlcv_TC[start:])
            at = lower.floor(event_ns)
    rows: Floats = np.concatenate(parts)
    if not len(rows):
        close = float(load(symbol, timeframe).until(event_ns).ohlcv_TC[-1, 3])
        return [close, close, close, close, 0.0]
    return [
        float(x)
        for x in (rows[0, 0], rows[:, 1].max(), rows[:, 2].min(), rows[-1, 3], rows[:, 4].sum())
    ]


def _book_window(book: BookWindow, event_ns: int, after: str, factor: float) -> BookWindow:
    stop = int(np.searchsorted(book.second_ns_T, event_ns, side="right"))
    last = stop if after == "nothing" else len(book.second_ns_T)
    rows_TB = book.rows_TC[:last].copy()
    rows_TB[:, BOOK_COLUMN["mid"]] *= factor
    if after == "poison":
        rows_TB[stop:] = 1e9
    return BookWindow(book.symbol, book.second_ns_T[:last], rows_TB, book.flags_T[:last])
