"""Hold the indicator columns to formulas worked out from their definitions, on recorded candles."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alphapulse.domain.market import BarSeries, Floats, Timeframe
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.registry import layout

COLUMN = {name: i for i, name in enumerate(layout())}
NUM_BARS = 400
START = 200  # from here every column that is held to its definition here has settled


@pytest.fixture(scope="module", params=["ETHUSDT", "BTCUSDT"])
def rows_TC(recordings: Path, request: pytest.FixtureRequest) -> Floats:
    table = pq.read_table(recordings / f"candles-1m-{request.param}.parquet").slice(0, NUM_BARS)
    ohlcv_TC = np.column_stack(
        [table[n].to_numpy() for n in ("open", "high", "low", "close", "volume")]
    )
    series = BarSeries("X/USDT", Timeframe.M1, table["ts"].to_numpy().astype(np.int64), ohlcv_TC)
    return RowBuilder("X/USDT", Timeframe.M1).open(series)[0]


def assert_column(rows_TC: Floats, name: str, expected: list[float]) -> None:
    got_T = rows_TC[START:, COLUMN[name]]
    np.testing.assert_allclose(got_T, expected[START:], rtol=1e-9, atol=1e-9, err_msg=name)


def column(rows_TC: Floats, name: str) -> list[float]:
    values: list[float] = rows_TC[:, COLUMN[name]].tolist()
    return values


def wilder(values: list[float], period: int, first: int) -> list[float]:
    """Return Wilder's average: a plain mean of `period` values, then 1/period steps."""
    average = sum(values[first : first + period]) / period
    out = [math.nan] * (first + period - 1) + [average]
    for value in values[first + period :]:
        average = (average * (period - 1) + value) / period
        out.append(average)
    return out


def exponential(values: list[float], period: int) -> list[float]:
    average = sum(values[:period]) / period
    out = [math.nan] * (period - 1) + [average]
    for value in values[period:]:
        average += (value - average) * 2 / (period + 1)
        out.append(average)
    return out


def test_rsi_is_wilders(rows_TC: Floats) -> None:
    # Source: Wilder, New Concepts in Technical Trading Systems (1978), ch. 6.
    close = column(rows_TC, "close")
    steps = [0.0, *(b - a for a, b in pairwise(close))]
    gains = wilder([max(s, 0) for s in steps], 14, 1)
    losses = wilder([max(-s, 0) for s in steps], 14, 1)

    assert_column(rows_TC, "rsi14", [100 * g / (g + x) for g, x in zip(gains, losses, strict=True)])


def test_atr_is_wilders(rows_TC: Floats) -> None:
    # Source: Wilder (1978), ch. 3.
    high, low, close = (column(rows_TC, name) for name in ("high", "low", "close"))
    ranges = [
        max(high[i], close[i - 1]) - min(low[i], close[i - 1]) if i else 0.0
        for i in range(NUM_BARS)
    ]

    assert_column(rows_TC, "atr14", wilder(ranges, 14, 1))


def test_averages_and_bands_follow_their_definitions(rows_TC: Floats) -> None:
    close = column(rows_TC, "close")
    means = [sum(close[max(0, i - 19) : i + 1]) / 20 for i in range(NUM_BARS)]
    deviations = [float(np.std(close[max(0, i - 19) : i + 1])) for i in range(NUM_BARS)]

    assert_column(rows_TC, "ema12", exponential(close, 12))
    assert_column(rows_TC, "ema26", exponential(close, 26))
    assert_column(rows_TC, "sma20", means)
    assert_column(rows_TC, "bb_middle", means)
    bands = np.array(means) + 2 * np.array(deviations)
    np.testing.assert_allclose(rows_TC[START:, COLUMN["bb_upper"]], bands[START:], rtol=1e-7)


def test_oscillators_follow_their_definitions(rows_TC: Floats) -> None:
    high, low, close = (column(rows_TC, name) for name in ("high", "low", "close"))
    tops = [max(high[max(0, i - 13) : i + 1]) for i in range(NUM_BARS)]
    floors = [min(low[max(0, i - 13) : i + 1]) for i in range(NUM_BARS)]

    willr = [-100 * (t - c) / (t - f) for t, f, c in zip(tops, floors, close, strict=True)]
    roc = [100 * (close[i] / close[i - 10] - 1) if i >= 10 else 0.0 for i in range(NUM_BARS)]

    assert_column(rows_TC, "willr14", willr)
    assert_column(rows_TC, "roc10", roc)


def test_sigma_and_volume_columns_describe_the_last_60(rows_TC: Floats) -> None:
    returns = rows_TC[:, COLUMN["log_return"]]
    activity = np.log1p(rows_TC[:, COLUMN["volume"]])

    for name, values, function in (
        ("sigma", returns, np.std),
        ("volume_mean", activity, np.mean),
        ("volume_std", activity, np.std),
    ):
        expected = [float(function(values[i - 59 : i + 1])) for i in range(START, NUM_BARS)]
        np.testing.assert_allclose(rows_TC[START:, COLUMN[name]], expected, rtol=1e-6, err_msg=name)
