"""Check that bars, trades and series cannot be built wrong, and that time is cut right."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.errors import InvalidBar, InvalidEvent
from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BarSeries,
    Instrument,
    Timeframe,
    Trade,
)
from alphapulse.domain.windows import MarketWindow, StreamWindow

BAR: dict[str, Any] = {
    "symbol": "ETH/USDT",
    "timeframe": Timeframe.M1,
    "open_ns": 0,
    "open": 2.0,
    "high": 3.0,
    "low": 1.0,
    "close": 2.5,
    "volume": 4.0,
}
TRADE: dict[str, Any] = {
    "symbol": "ETH/USDT",
    "ts_ns": 1,
    "received_ns": 2,
    "trade_id": 7,
    "price": 2.0,
    "size": 1.0,
    "is_buy": True,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": 2.1},
        {"high": 2.4},
        {"low": 0.0},
        {"low": -1.0},
        {"high": math.inf},
        {"close": math.nan},
        {"open": math.nan},
        {"volume": -1.0},
        {"volume": math.nan},
    ],
    ids=str,
)
def test_bar_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidBar, match=r"ETH/USDT 1m at 0: expected .* was .*; drop"):
        Bar(**{**BAR, **wrong})


def test_bar_is_visible_from_its_close() -> None:
    bar = Bar(**BAR)

    assert bar.close_ns == 60 * SECOND_NS
    assert bar.ts_ns == bar.close_ns - 1


@pytest.mark.parametrize(
    "wrong", [{"price": 0.0}, {"price": math.nan}, {"size": 0.0}, {"size": math.inf}], ids=str
)
def test_trade_without_price_or_size_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidEvent, match="ETH/USDT trade 7: expected a positive finite price"):
        Trade(**{**TRADE, **wrong})


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bar(**BAR).close = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(("tick_size", "bucket_size"), [(0.0, 1.0), (0.1, 0.01), (math.nan, 1.0)])
def test_instrument_needs_a_tick_within_its_bucket(tick_size: float, bucket_size: float) -> None:
    with pytest.raises(InvalidEvent, match="0 < tick_size <= bucket_size"):
        Instrument(symbol="ETH/USDT", tick_size=tick_size, bucket_size=bucket_size)


@given(st.integers(min_value=0, max_value=2**62), st.sampled_from(TIMEFRAMES))
def test_floor_is_the_open_of_the_bar_that_holds_the_time(ts_ns: int, timeframe: Timeframe) -> None:
    open_ns = timeframe.floor(ts_ns)

    assert open_ns % timeframe.ns == 0
    assert open_ns <= ts_ns < open_ns + timeframe.ns


def series(num_bars: int) -> BarSeries:
    open_ns_T = np.arange(num_bars, dtype=np.int64) * Timeframe.M1.ns
    return BarSeries("ETH/USDT", Timeframe.M1, open_ns_T, np.ones((num_bars, 5)))


@given(st.integers(min_value=0, max_value=20), st.integers(min_value=0, max_value=20 * 60))
def test_until_keeps_the_bars_that_had_closed(num_bars: int, second: int) -> None:
    ts_ns = second * SECOND_NS

    kept = series(num_bars).until(ts_ns)

    assert len(kept) == min(num_bars, second // 60)
    assert len(kept.ohlcv_TC) == len(kept)


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (3, 3), (9, 5)])
def test_last_keeps_the_newest_bars(count: int, kept: int) -> None:
    newest = series(5).last(count)

    assert len(newest) == kept
    assert newest.open_ns_T[-1] == 4 * Timeframe.M1.ns


@pytest.mark.parametrize(("forming", "price"), [(5.0, 5.0), (None, 4.0)])
def test_newest_price_is_the_forming_minute_or_the_last_closed_one(
    forming: float | None, price: float
) -> None:
    stream = StreamWindow(
        symbol="ETH/USDT",
        timeframe=Timeframe.M1,
        open_ns_T=np.zeros(1, np.int64),
        rows_TC=np.array([[1.0, 2.0, 3.0, 4.0]]),
        flags_T=np.ones(1, np.uint8),
        forming_open_ns=None if forming is None else Timeframe.M1.ns,
        forming_C=None if forming is None else np.full(4, forming),
        forming_flags=0,
    )
    window = MarketWindow(1, 1, {("ETH/USDT", Timeframe.M1): stream}, {}, {}, {}, 1)

    assert window.close("ETH/USDT") == price


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("ETH/USDT", "ETHUSDT"),
        ("ETH/USDT:USDT", "ETHUSDT"),  # a perpetual margined in USDT
        ("ETH/USD:ETH", "ETHUSD_PERP"),  # and one margined in coins
    ],
)
def test_instrument_is_named_as_binance_names_it(symbol: str, name: str) -> None:
    assert Instrument(symbol, tick_size=0.01, bucket_size=1.0).venue_symbol == name
