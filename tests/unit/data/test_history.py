"""Closed bars come from files and venues as they are, or with a sentence that names the row."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Market
from alphapulse.data.history import fetch_history, missing_bars, read_candles
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import BarSeries, Timeframe

ETH = Market().instruments[0]
MS = 1_000_000


@pytest.fixture
def hours(recordings: Path) -> BarSeries:
    """Return ETH's recorded hours."""
    return read_candles(recordings / "candles-1h-ETHUSDT.parquet", ETH, Timeframe.H1)


def test_candles_are_read_as_recorded(recordings: Path) -> None:
    days = read_candles(recordings / "candles-1d-ETHUSDT.parquet", ETH, Timeframe.D1)

    assert (len(days), days.symbol, days.timeframe) == (2566, "ETH/USDT", Timeframe.D1)
    assert days.open_ns_T[0] == 1_502_928_000 * 10**9  # 2017-08-17, Binance's first day
    assert days.ohlcv_TC[0].tolist() == [301.13, 312.18, 298.0, 302.0, 7030.71034]


def test_the_missing_hour_of_the_halt_of_2023_is_found(hours: BarSeries) -> None:
    one_pm = 1_679_662_800 * 10**9  # 2023-03-24 13:00 UTC (PROVENANCE.md, known gaps)

    assert missing_bars(hours) == [(one_pm, one_pm + Timeframe.H1.ns)]


def test_a_series_without_holes_misses_nothing(recordings: Path) -> None:
    minutes = read_candles(recordings / "candles-1m-ETHUSDT.parquet", ETH, Timeframe.M1)

    assert missing_bars(minutes) == []


def _write(source: Path, target: Path, change: Any) -> Path:
    columns = pq.read_table(source).slice(0, 20).to_pydict()
    change(columns)
    schema = pq.read_schema(source)
    pq.write_table(pa.table(columns, schema=schema), target)
    return target


def _set(name: str, row: int, value: Any) -> Any:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[name][row] = value(columns) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("close", 3, float("nan")), "row 3: expected finite prices"),
        (_set("low", 4, -1.0), "row 4: expected positive prices"),
        (_set("volume", 5, -0.5), "row 5: expected positive prices and volume >= 0"),
        (_set("high", 6, 1.0), "row 6: expected low <= open, close <= high"),
        (_set("ts", 7, lambda c: c["ts"][6]), "row 7: expected an open later than the one before"),
        (_set("ts", 8, lambda c: c["ts"][2]), "row 8: expected an open later than the one before"),
        (_set("volume", 9, None), "column volume: expected number in every row, row 9 has none"),
    ],
)
def test_a_wrong_row_is_named(recordings: Path, tmp_path: Path, change: Any, sentence: str) -> None:
    source = recordings / "candles-1m-ETHUSDT.parquet"
    file = _write(source, tmp_path / source.name, change)

    with pytest.raises(InvalidRecording, match=sentence) as caught:
        read_candles(file, ETH, Timeframe.M1)
    assert str(file) in str(caught.value)


def test_bars_of_another_timeframe_are_refused(recordings: Path) -> None:
    with pytest.raises(InvalidRecording, match="an open on a whole 1h"):
        read_candles(recordings / "candles-1m-ETHUSDT.parquet", ETH, Timeframe.H1)


class FakeVenue:
    """Serves a recorded series page by page as ccxt does and checks what it is asked."""

    id = "recorded"

    def __init__(self, series: BarSeries, page: int) -> None:
        self.series = series
        self.page = page
        self.asked: list[int] = []

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[float]]:
        assert symbol == self.series.symbol
        assert timeframe == self.series.timeframe.value
        assert 0 < limit <= 1000
        self.asked.append(since)
        first = int(np.searchsorted(self.series.open_ns_T, since * MS))
        rows = slice(first, first + min(limit, self.page))
        opens, values = self.series.open_ns_T[rows], self.series.ohlcv_TC[rows]
        return [[o // MS, *row] for o, row in zip(opens.tolist(), values.tolist(), strict=True)]


def test_history_is_fetched_page_by_page_without_the_forming_bar(hours: BarSeries) -> None:
    venue = FakeVenue(hours, page=100)
    forming = hours.last(1).open_ns_T[0]

    series = asyncio.run(
        fetch_history(venue, ETH, Timeframe.H1, 250, until_ns=int(forming) + 17 * MS)
    )

    assert series.open_ns_T.tolist() == hours.open_ns_T[-251:-1].tolist()
    assert np.array_equal(series.ohlcv_TC, hours.ohlcv_TC[-251:-1])
    assert len(venue.asked) == 3


def test_a_bar_the_venue_does_not_have_stays_missing(hours: BarSeries) -> None:
    two_pm = 1_679_666_400 * 10**9
    venue = FakeVenue(hours, page=1000)

    series = asyncio.run(
        fetch_history(venue, ETH, Timeframe.H1, 10, until_ns=two_pm + 4 * Timeframe.H1.ns)
    )

    assert len(series) == 9
    assert missing_bars(series) == [(two_pm - Timeframe.H1.ns, two_pm)]
