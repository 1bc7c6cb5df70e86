"""Every indicator of every stored bar, streamed bar by bar, equals TA-Lib over whole segments."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import talib

from alphapulse.data.recordings import read_series
from alphapulse.domain.market import Bar, BarSeries, Floats, Timeframe
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.registry import INDICATORS

FOLDERS = ("binance-spot-2024-08", "binance-spot-2025-05")
SYMBOLS = {"ETHUSDT": "ETH/USDT", "BTCUSDT": "BTC/USDT"}
TOLERANCE = 1e-9  # relative to the column's usual size
# 1h and 1d of 2024 are the beginning of those of 2025: they are walked once
NUM_BARS = {
    ("ETHUSDT", Timeframe.M1): 125_288,
    ("BTCUSDT", Timeframe.M1): 125_289,
    **dict.fromkeys(product(SYMBOLS, [Timeframe.S1]), 649),
    **dict.fromkeys(product(SYMBOLS, [Timeframe.H1]), 31_007),
    **dict.fromkeys(product(SYMBOLS, [Timeframe.D1]), 2_890),
}


def load(parent: Path, timeframe: Timeframe, name: str) -> list[BarSeries]:
    """Return the stored bars of a stream, none twice, in segments without a missing one."""
    paths = [parent / folder / f"candles-{timeframe}-{name}.parquet" for folder in FOLDERS]
    found = [read_series(p, SYMBOLS[name], timeframe) for p in paths if p.exists()]
    opens = np.concatenate([series.open_ns_T for series in found])
    rows = np.concatenate([series.ohlcv_TC for series in found])
    opens, first = np.unique(opens, return_index=True)
    rows = rows[first]
    bounds = [0, *(np.flatnonzero(np.diff(opens) != timeframe.ns) + 1).tolist(), len(opens)]
    return [BarSeries(SYMBOLS[name], timeframe, opens[a:b], rows[a:b]) for a, b in pairwise(bounds)]


def streamed(builder: RowBuilder, series: BarSeries) -> Floats:
    bars = zip(series.open_ns_T.tolist(), series.ohlcv_TC.tolist(), strict=True)
    return np.array([
        builder.close(Bar(series.symbol, series.timeframe, open_ns, *row))[0]
        for open_ns, row in bars
    ])  # fmt: skip


def batch(series: BarSeries) -> dict[str, Floats]:
    """Return every indicator over a whole segment, straight from TA-Lib's batch functions."""
    _, high, low, close, volume = series.ohlcv_TC.T.copy()
    returns = np.concatenate(([np.nan], np.log(close[1:] / close[:-1])))
    read = {
        "high": high, "low": low, "close": close, "volume": volume, "returns": returns,
        "activity": np.log1p(volume), "turnover": talib.TYPPRICE(high, low, close) * volume,
    }  # fmt: skip
    found: dict[str, Floats] = {}
    for indicator in INDICATORS:
        if indicator.columns == ("obv20",):  # of the lines themselves, not of their steps
            line = talib.OBV(close, volume)
            outputs = (np.concatenate((np.full(20, np.nan), line[20:] - line[:-20])),)
        elif indicator.columns == ("ad20",):
            line = np.concatenate(([0.0], talib.AD(high, low, close, volume)))
            outputs = (np.concatenate((np.full(19, np.nan), line[20:] - line[:-20])),)
        else:
            function = getattr(talib, indicator.function)
            made = function(*(read[name] for name in indicator.reads), **indicator.parameters)
            outputs = made if isinstance(made, tuple) else (made,)
        found |= dict(zip(indicator.columns, outputs, strict=True))
    average_volume = talib.SMA(volume, 20)
    with np.errstate(invalid="ignore", divide="ignore"):
        found["volume_score"] = (read["activity"] - found["volume_mean"]) / found["volume_std"]
        found["vwap20"] = found["turnover20"] / found["volume20"]
        found["natr14"] = talib.NATR(high, low, close, 14)
        found["relative_volume"] = volume / average_volume
    found["log_return"] = returns
    return found


@pytest.mark.parametrize("timeframe", list(Timeframe))
@pytest.mark.parametrize("name", SYMBOLS)
def test_stream_equals_batch(recordings: Path, timeframe: Timeframe, name: str) -> None:
    segments = load(recordings.parent, timeframe, name)
    builder = RowBuilder(SYMBOLS[name], timeframe)
    compared, worst = 0, ("", 0.0)

    for series in segments:
        rows_TC, expected = streamed(builder, series), batch(series)
        for column, expected_T in expected.items():
            got_T = rows_TC[:, builder.columns.index(column)]
            known_T = ~np.isnan(got_T)
            assert np.isfinite(expected_T[known_T]).all(), column
            usual = np.median(np.abs(expected_T[known_T])) if known_T.any() else 1.0
            away = np.abs(got_T - expected_T)[known_T] / np.maximum(
                np.abs(expected_T[known_T]), usual
            )
            compared += int(known_T.sum())
            if len(away) and away.max() > worst[1]:
                worst = (column, float(away.max()))

    num_bars = sum(len(series) for series in segments)
    print(
        f"{name} {timeframe}: {num_bars} bars, {compared} values, worst {worst[0]} {worst[1]:.1e}"
    )
    assert num_bars == NUM_BARS[name, timeframe]
    assert worst[1] <= TOLERANCE, worst
    assert compared > 20 * num_bars
