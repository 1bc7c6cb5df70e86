"""Read closed bars from a recording's candle file or an exchange, and find the missing ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import Bar, BarSeries, Instrument, Ints, Timeframe

NS_PER_MS = 1_000_000
PAGE_BARS = 1_000  # most candles Binance gives a request, 2026-11

Kind = str | tuple[str, ...]
Columns = dict[str, npt.NDArray[Any]]

TIME, NUMBER, COUNT, TEXT = (
    "UTC timestamp",
    "number",
    "integer",
    "text",
)  # what a column must hold; or these words
CANDLE_COLUMNS: Mapping[str, Kind] = {
    "ts": TIME, "open": NUMBER, "high": NUMBER, "low": NUMBER, "close": NUMBER, "volume": NUMBER,
}  # fmt: skip


def read_candles(file: Path, instrument: Instrument, timeframe: Timeframe) -> BarSeries:
    """Return the closed bars of a `candles-*.parquet` file, oldest first.

    Raises InvalidRecording, naming the file and the row, if it cannot be read or holds what
    cannot be a bar.
    """
    columns = read_columns(file, CANDLE_COLUMNS)
    ohlcv_TC = np.column_stack([columns[name] for name in list(CANDLE_COLUMNS)[1:]])
    series = BarSeries(instrument.symbol, timeframe, columns["ts"], ohlcv_TC)
    require_sound(series, where=str(file))
    return series


def write_candles(file: Path, series: BarSeries) -> None:
    """Write a `candles-*.parquet` file that `read_candles` reads back bit for bit."""
    columns = {"ts": pa.array(series.open_ns_T, pa.timestamp("ns", tz="UTC"))}
    names = list(CANDLE_COLUMNS)[1:]
    columns |= {name: pa.array(series.ohlcv_TC[:, i]) for i, name in enumerate(names)}
    pq.write_table(pa.table(columns), file, compression="zstd")


def read_columns(file: Path, wanted: Mapping[str, Kind]) -> Columns:
    """Return columns of a Parquet file as arrays.

    Args:
        file: path of the file.
        wanted: what each column must hold, by name: TIME (int64 ns UTC), NUMBER (float64), COUNT
            (int64), TEXT (str), or a tuple of words (int8, the word's place in the tuple).

    Raises InvalidRecording, naming the file, if it is missing or unreadable, or if a column is
    not as wanted or has a hole.
    """
    require_columns(file, wanted)
    try:
        table = pq.read_table(file, columns=list(wanted), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    return {n: _as_array(table[n], kind, f"{file} column {n}") for n, kind in wanted.items()}


def require_columns(file: Path, wanted: Mapping[str, Kind]) -> None:
    """Raise InvalidRecording, naming the file, unless it is Parquet with the wanted columns.

    Reads the footer only.
    """
    try:
        present = pq.read_schema(file).names
    except FileNotFoundError:
        raise InvalidRecording(
            f"{file}: expected a Parquet file, found none; restore or re-download it"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    missing = [name for name in wanted if name not in present]
    if missing:
        raise InvalidRecording(
            f"{file}: expected columns {', '.join(wanted)}, was without {', '.join(missing)}; "
            "convert the recording to this layout"
        )


def _damaged(file: Path, error: Exception) -> InvalidRecording:
    return InvalidRecording(
        f"{file}: expected readable Parquet, was damaged ({error}); restore or re-download the file"
    )


def _as_array(column: Any, kind: Kind, where: str) -> npt.NDArray[Any]:
    """Return the column as the array of its kind; a hole or another type raises."""
    holds = pa.types
    expected = kind if isinstance(kind, str) else " or ".join(kind)
    is_text = holds.is_string(column.type) or holds.is_large_string(column.type)
    if not isinstance(kind, str) and is_text:
        column = pc.index_in(column, pa.array(kind, column.type)).cast(pa.int8())
    elif kind == TIME and holds.is_timestamp(column.type) and column.type.tz == "UTC":
        column = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    elif kind == COUNT and holds.is_integer(column.type):
        column = column.cast(pa.int64())
    elif kind == NUMBER and (holds.is_floating(column.type) or holds.is_integer(column.type)):
        column = column.cast(pa.float64())
    elif not (kind == TEXT and is_text):
        raise InvalidRecording(f"{where}: expected {expected}, was {column.type}; convert it")
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InvalidRecording(
            f"{where}: expected {expected} in every row, row {row} has none; repair the file"
        )
    array: npt.NDArray[Any] = column.to_numpy()
    return array


def require_sound(series: BarSeries, *, where: str) -> None:
    """Raise InvalidRecording, naming `where` and the row, at the first bar that cannot be there."""
    open_T, high_T, low_T, close_T, volume_T = series.ohlcv_TC.T
    opens = series.open_ns_T
    step_T = np.diff(opens, prepend=opens[:1] - 1)
    low_bound, high_bound = np.minimum(open_T, close_T), np.maximum(open_T, close_T)
    laws = {
        "finite prices and volume": np.isfinite(series.ohlcv_TC).all(axis=1),
        "positive prices and volume >= 0": (low_T > 0) & (volume_T >= 0),
        "low <= open, close <= high": (low_T <= low_bound) & (high_bound <= high_T),
        "an open later than the one before": step_T > 0,
        f"an open on a whole {series.timeframe}": opens % series.timeframe.ns == 0,
    }
    for law, holds_T in laws.items():
        if not holds_T.all():
            row = int(np.argmin(holds_T))
            raise InvalidRecording(
                f"{where} row {row}: expected {law}, was open_ns {opens[row]}, open, high, low, "
                f"close, volume {series.ohlcv_TC[row].tolist()}; repair or re-download the bars"
            )


def missing_bars(series: BarSeries) -> list[tuple[int, int]]:
    """Return the holes between first and last bar as (first missing open, next open) [ns UTC]."""
    length = series.timeframe.ns
    before = np.flatnonzero(np.diff(series.open_ns_T) > length)
    opens = series.open_ns_T
    return [(int(opens[i]) + length, int(opens[i + 1])) for i in before]


def bars_of(series: BarSeries) -> Iterator[Bar]:
    """Yield the bars of a series one by one, as the venue's own."""
    rows = zip(series.open_ns_T.tolist(), series.ohlcv_TC.tolist(), strict=True)
    for open_ns, (first, high, low, last, volume) in rows:
        yield Bar(series.symbol, series.timeframe, open_ns, first, high, low, last, volume, True)


async def fetch_history(
    exchange: Any, instrument: Instrument, timeframe: Timeframe, count: int, *, until_ns: int
) -> BarSeries:
    """Return the newest `count` bars that had closed at `until_ns`, oldest first, from an exchange.

    A bar the venue does not have is missing in the series; the one still forming is left out.

    Args:
        exchange: ccxt exchange with `fetch_ohlcv`; its own errors (ccxt.BaseError) pass through.
        instrument: what to ask for.
        timeframe: length of a bar.
        count: most bars returned.
        until_ns: the venue's time [ns UTC].

    Raises InvalidRecording, naming the row, if the venue's bars cannot be bars.
    """
    end_ns = timeframe.floor(until_ns)  # open of the bar still forming
    since_ns = end_ns - count * timeframe.ns
    rows: dict[int, list[float]] = {}
    while since_ns < end_ns:
        limit = min(PAGE_BARS, (end_ns - since_ns) // timeframe.ns)
        page = await exchange.fetch_ohlcv(
            instrument.symbol, timeframe.value, since=since_ns // NS_PER_MS, limit=limit
        )
        new = {int(row[0]) * NS_PER_MS: [float(x) for x in row[1:6]] for row in page}
        new = {open_ns: row for open_ns, row in new.items() if since_ns <= open_ns < end_ns}
        if not new:
            break
        rows |= new
        since_ns = max(new) + timeframe.ns
    opens: Ints = np.array(sorted(rows), dtype=np.int64)
    ohlcv_TC = np.array([rows[int(open_ns)] for open_ns in opens], dtype=np.float64).reshape(-1, 5)
    series = BarSeries(instrument.symbol, timeframe, opens, ohlcv_TC)
    require_sound(series, where=f"{exchange.id} {instrument.symbol} {timeframe}")
    return series
