"""Rows made bar by bar equal rows made at once, and the forming bar leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from talib.abstract import Function

from alphapulse.domain.errors import InvalidBar
from alphapulse.domain.market import Bar, BarFlag, BarSeries, Floats, Timeframe
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.pivot_points import SESSION_LEVELS, PivotPoints
from alphapulse.features.registry import CONTEXT, INDICATORS, WARM_UP, layout
from alphapulse.features.rows import COLUMN

LoadSeries = Callable[[str, Timeframe], BarSeries]
SYMBOLS = ("ETH/USDT", "BTC/USDT")
_LEVELS = ("l1_", "l2_", "l3_", "l4_", "l5_")
PIVOTS = [i for i, n in enumerate(layout()) if n in CONTEXT or n.startswith(_LEVELS)]
OTHERS = [i for i in range(len(layout())) if i not in PIVOTS]


def bars_of(series: BarSeries) -> list[Bar]:
    rows = zip(series.open_ns_T.tolist(), series.ohlcv_TC.tolist(), strict=True)
    return [Bar(series.symbol, series.timeframe, ns, *row, is_venue=True) for ns, row in rows]


def head(series: BarSeries, count: int, *, start: int = 0) -> BarSeries:
    part = slice(start, start + count)
    return BarSeries(series.symbol, series.timeframe, series.open_ns_T[part], series.ohlcv_TC[part])


def stream(series: BarSeries, num_opened: int) -> tuple[Floats, list[int]]:
    """Return rows and flags with the first bars opened at once and the rest closed one by one."""
    builder = RowBuilder(series.symbol, series.timeframe)
    rows_TC, flags_T = builder.open(head(series, num_opened))
    closed = [builder.close(bar) for bar in bars_of(series)[num_opened:]]
    rows = np.array([*rows_TC, *(row for row, _ in closed)])
    return rows, [*flags_T.tolist(), *(flags for _, flags in closed)]


def assert_same_bits(one: Floats, other: Floats) -> None:
    for i, name in enumerate(layout()):
        np.testing.assert_array_equal(one[:, i], other[:, i], err_msg=name)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("num_opened", [0, 20, 60, 61, 173, 174, 999, 1000, 1200])
def test_streamed_rows_equal_batch_rows_bit_for_bit(
    load_series: LoadSeries, symbol: str, num_opened: int
) -> None:
    series = head(load_series(symbol, Timeframe.M1), 1500)
    expected_TC, expected_T = RowBuilder(symbol, Timeframe.M1).open(series)

    rows_TC, flags = stream(series, num_opened)

    assert_same_bits(rows_TC, expected_TC)
    assert flags == expected_T.tolist()


@pytest.mark.parametrize("newest", [0, 1, 300, 1500, 2000])
def test_only_the_newest_rows_are_made_if_that_is_all_one_wants(
    load_series: LoadSeries, newest: int
) -> None:
    whole = load_series("BTC/USDT", Timeframe.H1)
    gap = int(np.flatnonzero(np.diff(whole.open_ns_T) > Timeframe.H1.ns)[0]) + 1
    series = head(whole, 1500, start=gap - 1300)
    expected_TC, expected_T = RowBuilder("BTC/USDT", Timeframe.H1).open(series)
    builder = RowBuilder("BTC/USDT", Timeframe.H1)

    rows_TC, flags_T = builder.open(series, newest=newest)

    assert len(rows_TC) == min(newest, 1500)
    assert_same_bits(rows_TC, expected_TC[1500 - len(rows_TC) :])
    assert np.array_equal(flags_T, expected_T[1500 - len(rows_TC) :])


@pytest.mark.parametrize("num_opened", [0, 61, 300])
def test_seconds_without_trades_stream_like_batch(load_series: LoadSeries, num_opened: int) -> None:
    series = load_series("ETH/USDT", Timeframe.S1)
    expected_TC, expected_T = RowBuilder("ETH/USDT", Timeframe.S1).open(series)

    rows_TC, flags = stream(series, num_opened)

    assert_same_bits(rows_TC, expected_TC)
    assert flags == expected_T.tolist()
    assert sum(f & BarFlag.EMPTY > 0 for f in flags) == 41


def test_missing_bar_starts_everything_anew(load_series: LoadSeries) -> None:
    whole = load_series("BTC/USDT", Timeframe.H1)
    gap = int(np.flatnonzero(np.diff(whole.open_ns_T) > Timeframe.H1.ns)[0]) + 1
    series = head(whole, 400, start=gap - 200)
    alone_TC, _ = RowBuilder("BTC/USDT", Timeframe.H1).open(head(whole, 200, start=gap))

    rows_TC, flags = stream(series, 100)

    apart = [i for i, name in enumerate(layout()) if name not in SESSION_LEVELS]
    np.testing.assert_array_equal(rows_TC[200:, apart], alone_TC[:, apart])
    assert np.isnan(rows_TC[200, apart[COLUMN["log_return"] :]]).all()
    warming = [i for i, f in enumerate(flags) if f & BarFlag.WARMUP]
    assert warming == [*range(WARM_UP - 1), *range(200, 200 + WARM_UP - 1)]


def test_forming_row_equals_the_closed_row_and_leaves_no_trace(load_series: LoadSeries) -> None:
    bars = bars_of(head(load_series("ETH/USDT", Timeframe.M1), 200))
    builder, untouched = (RowBuilder("ETH/USDT", Timeframe.M1) for _ in range(2))

    for bar in bars:
        peeked, peeked_flags = builder.peek(bar)
        row, flags = builder.close(bar)

        assert np.array_equal(peeked[OTHERS], row[OTHERS], equal_nan=True)
        assert peeked_flags == flags | BarFlag.FORMING
        assert np.array_equal(row, untouched.close(bar)[0], equal_nan=True)
    assert list(builder.pivots) == list(untouched.pivots)


def test_forming_row_shows_only_pivots_of_closed_bars(load_series: LoadSeries) -> None:
    bars = bars_of(head(load_series("ETH/USDT", Timeframe.M1), 500))
    builder = RowBuilder("ETH/USDT", Timeframe.M1)

    before = np.full(len(PIVOTS), np.nan)
    for bar in bars:
        assert np.array_equal(builder.peek(bar)[0][PIVOTS], before, equal_nan=True)
        before = builder.close(bar)[0][PIVOTS]


def test_forming_bar_after_a_gap_stands_alone(load_series: LoadSeries) -> None:
    series = load_series("ETH/USDT", Timeframe.M1)
    builder = RowBuilder("ETH/USDT", Timeframe.M1)
    builder.open(head(series, 200))
    following, later = bars_of(head(series, 2, start=200))

    row, flags = builder.peek(later)

    assert row[:5].tolist() == [later.open, later.high, later.low, later.close, later.volume]
    assert np.isnan(row[5:]).all()
    assert flags & BarFlag.WARMUP
    assert not builder.close(following)[1] & BarFlag.WARMUP


def test_forming_bar_of_a_new_day_has_the_levels_of_the_day_before(
    load_series: LoadSeries,
) -> None:
    series = load_series("ETH/USDT", Timeframe.H1)
    bars = bars_of(
        head(series, 49, start=int(np.argmin(series.open_ns_T % (24 * Timeframe.H1.ns))))
    )
    builder = RowBuilder("ETH/USDT", Timeframe.H1)
    for bar in bars[:48]:
        builder.close(bar)
    day = bars[24:48]

    row, _ = builder.peek(bars[48])

    levels = PivotPoints.classic(
        max(bar.high for bar in day), min(bar.low for bar in day), day[-1].close
    )
    at = builder.columns.index
    assert [row[at(name)] for name in ("p", "r1", "s1")] == [levels.p, levels.r1, levels.s1]
    assert builder.close(bars[48])[0][at("p")] == levels.p


def test_a_price_by_volume_needs_volume() -> None:
    builder = RowBuilder("ETH/USDT", Timeframe.S1)
    at = builder.columns.index
    rows = []
    for i in range(60):
        volume = 0.1 + 0.3 * i if i < 30 else 0.0  # sums that leave a rest when they are undone
        price = 100 + 0.1 * i
        bar = Bar("ETH/USDT", Timeframe.S1, i * Timeframe.S1.ns, *[price] * 4, volume=volume)
        rows.append(builder.close(bar)[0])

    for name in ("vwap20", "relative_volume"):
        known = [i for i, row in enumerate(rows) if not np.isnan(row[at(name)])]
        assert known == list(range(19, 49)), name


def test_flags_say_who_made_the_bar(load_series: LoadSeries) -> None:
    bar = bars_of(load_series("ETH/USDT", Timeframe.M1))[0]
    own = Bar(bar.symbol, bar.timeframe, bar.open_ns, 1.0, 1.0, 1.0, 1.0, 0.0, is_empty=True)

    _, venue_flags = RowBuilder("ETH/USDT", Timeframe.M1).close(bar)
    _, own_flags = RowBuilder("ETH/USDT", Timeframe.M1).close(own)

    assert venue_flags == BarFlag.VALID | BarFlag.VENUE | BarFlag.WARMUP
    assert own_flags == BarFlag.VALID | BarFlag.EMPTY | BarFlag.WARMUP


def test_columns_appear_once_they_have_settled(load_series: LoadSeries) -> None:
    rows_TC, flags = stream(head(load_series("ETH/USDT", Timeframe.M1), 1100), 0)

    firsts = {name: int(np.isnan(rows_TC[:, i]).sum()) for i, name in enumerate(layout())}

    assert firsts["close"] == 0
    assert firsts["log_return"] == 1
    assert firsts["sigma"] == 60
    for indicator in INDICATORS:
        for name in indicator.columns:
            assert firsts[name] == indicator.warm_up - 1, name
    assert firsts["rsi14"] == 14 + 4 * 14
    assert firsts["ema200"] == 199 + 4 * 200
    assert firsts["volume_score"] == 59
    assert [bool(f & BarFlag.WARMUP) for f in flags] == [True] * 173 + [False] * 927


def test_lookbacks_are_those_of_the_library() -> None:
    for indicator in INDICATORS:
        reference = Function(indicator.function)
        reference.parameters = dict(indicator.parameters)

        # two series begin with the second bar of a segment: they compare a bar with the one before
        starts = int(indicator.reads[0] in ("returns", "obv_step"))
        assert indicator.lookback == reference.lookback + starts, indicator.columns


def test_closed_bar_that_comes_again_is_refused(load_series: LoadSeries) -> None:
    series = load_series("ETH/USDT", Timeframe.M1)
    builder = RowBuilder("ETH/USDT", Timeframe.M1)
    builder.open(head(series, 10))

    with pytest.raises(InvalidBar, match="its row is already written"):
        builder.close(bars_of(series)[9])
