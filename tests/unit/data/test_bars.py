"""Bars made of recorded trades equal the published ones; what was not seen is never made up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse.data.bars import BarMaker
from alphapulse.data.trade_bars import TradeBars
from alphapulse.domain.market import LOTS, SECOND_NS, TIMEFRAMES, Bar, BarSeries, Timeframe

MINUTE, HOUR = Timeframe.M1.ns, Timeframe.H1.ns
T0 = 1_723_161_600 * SECOND_NS  # 2024-08-09 00:00 UTC
FIRST_WHOLE = pd.Timestamp("2024-08-08T23:54:16Z").value
VENUE_SYMBOLS = ("ETHUSDT", "BTCUSDT")


def trade(maker: BarMaker, ts_ns: int, price: float, size: float) -> None:
    maker.trades(np.array([ts_ns]), np.array([price]), np.array([round(size * LOTS)]))


def run(recordings: Path, name: str) -> tuple[BarMaker, list[Bar]]:
    trades = pd.read_parquet(recordings / f"trades-{name}.parquet")
    maker, bars = BarMaker(name, gap_s=5.0), []
    boundary = FIRST_WHOLE
    for ts, price, size in zip(
        trades["ts"].astype("int64"), trades["price"], trades["size"], strict=True
    ):
        while ts >= boundary:
            maker.heard(boundary - 1)  # the depth stream of the recording is never silent
            bars += maker.close(boundary)
            boundary += SECOND_NS
        maker.heard(ts)
        trade(maker, ts, price, size)
    return maker, bars


def published(recordings: Path, name: str, timeframe: str) -> pd.DataFrame:
    return pd.read_parquet(recordings / f"candles-{timeframe}-{name}.parquet")


def table(bars: list[Bar], timeframe: Timeframe) -> tuple[np.ndarray, np.ndarray]:
    kept = [bar for bar in bars if bar.timeframe is timeframe]
    rows = [(b.open, b.high, b.low, b.close, b.volume) for b in kept]
    return np.array([b.open_ns for b in kept]), np.array(rows)


@pytest.mark.parametrize("name", VENUE_SYMBOLS)
def test_every_second_equals_the_recorded_candle_exactly(recordings: Path, name: str) -> None:
    expected = published(recordings, name, "1s")

    open_ns, rows = table(run(recordings, name)[1], Timeframe.S1)

    wanted = expected[["open", "high", "low", "close", "volume"]].to_numpy()[: len(rows)]
    assert open_ns[0] == FIRST_WHOLE
    assert (
        len(rows) >= len(expected) - 1
    )  # the last second is only over when somebody trades after it
    assert (open_ns == expected["ts"].astype("int64").to_numpy()[: len(rows)]).all()
    assert (rows[:, :4] == wanted[:, :4]).all()
    np.testing.assert_allclose(rows[:, 4], wanted[:, 4], rtol=1e-12)


@pytest.mark.parametrize("name", VENUE_SYMBOLS)
def test_every_whole_minute_equals_the_published_candle(recordings: Path, name: str) -> None:
    expected = published(recordings, name, "1m").set_index("ts")

    open_ns, rows = table(run(recordings, name)[1], Timeframe.M1)

    assert open_ns[0] == pd.Timestamp("2024-08-08T23:55Z").value
    assert len(rows) == 10
    wanted = expected.loc[pd.to_datetime(open_ns, utc=True)]
    assert (rows[:, :4] == wanted[["open", "high", "low", "close"]].to_numpy()).all()
    np.testing.assert_allclose(rows[:, 4], wanted["volume"].to_numpy(), rtol=1e-9)


def test_forming_day_is_the_venues_hours_and_minutes_and_the_trades_since(
    recordings: Path,
) -> None:
    candles = {tf: published(recordings, "ETHUSDT", tf).set_index("ts") for tf in ("1m", "1h")}
    day, now = pd.Timestamp("2024-08-09", tz="UTC"), pd.Timestamp("2024-08-09T00:03:20Z")
    maker = BarMaker("ETHUSDT", gap_s=5.0)
    trades = pd.read_parquet(recordings / "trades-ETHUSDT.parquet")
    trades = trades[(trades["ts"] >= day + pd.Timedelta("3min")) & (trades["ts"] < now)]
    for timeframe, table_ in candles.items():
        closed = table_[table_.index + pd.Timedelta(timeframe) <= day + pd.Timedelta("3min")]
        opens = closed.index.as_unit("ns").astype("int64").to_numpy()
        rows = closed[["open", "high", "low", "close", "volume"]].to_numpy()
        maker.seed(BarSeries("ETHUSDT", Timeframe(timeframe), opens, rows))

    for ts, price, size in zip(
        trades["ts"].astype("int64"), trades["price"], trades["size"], strict=True
    ):
        trade(maker, ts, price, size)
    forming = maker.forming(Timeframe.D1, now.value)

    minutes = candles["1m"].loc[day : day + pd.Timedelta("2min")]
    assert forming is not None
    bar, is_partial = forming
    assert is_partial
    assert bar.open == minutes["open"].iloc[0]
    assert bar.high == max(minutes["high"].max(), trades["price"].max())
    assert bar.low == min(minutes["low"].min(), trades["price"].min())
    assert bar.close == trades["price"].iloc[-1]
    assert bar.volume == pytest.approx(minutes["volume"].sum() + trades["size"].sum(), rel=1e-9)


def test_hour_and_day_that_began_before_the_first_tick_are_not_rolled_up(recordings: Path) -> None:
    _, bars = run(recordings, "ETHUSDT")

    assert {bar.timeframe for bar in bars} == {Timeframe.S1, Timeframe.M1}


def seconds(maker: BarMaker, from_ns: int, count: int, *, price: float = 10.0) -> list[Bar]:
    bars = []
    for i in range(count):
        maker.heard(from_ns + i * SECOND_NS)
        trade(maker, from_ns + i * SECOND_NS, price, 0.1)
        bars += maker.close(from_ns + (i + 1) * SECOND_NS)
    return bars


def candle(open_ns: int, timeframe: Timeframe = Timeframe.M1, volume: float = 6.0) -> Bar:
    return Bar("X", timeframe, open_ns, 10.0, 10.0, 10.0, 10.0, volume, is_venue=True)


def test_second_without_trades_repeats_the_close_and_is_empty() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0, 1)

    (bar,) = maker.close(T0 + 2 * SECOND_NS)

    assert (bar.is_empty, bar.open, bar.close, bar.volume) == (True, 10.0, 10.0, 0.0)


def test_no_second_is_made_before_the_first_trade() -> None:
    maker = BarMaker("X", gap_s=5.0)
    maker.heard(T0)

    assert maker.close(T0 + SECOND_NS) == []


def test_seconds_that_overlap_a_gap_are_missing() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0, 10)
    maker.gap(T0 + 10_500_000_000, T0 + 12_300_000_000)

    made = [bar for i in range(10, 13) for bar in maker.close(T0 + (i + 1) * SECOND_NS)]

    assert made == []
    assert seconds(maker, T0 + 13 * SECOND_NS, 1)[0].open_ns == T0 + 13 * SECOND_NS


def test_a_gap_told_late_leaves_what_lies_between_it_and_the_last_whole() -> None:
    maker = BarMaker("X", gap_s=5.0)
    for begin_s, end_s in ((10, 11), (5, 6), (5, 7)):
        maker.gap(T0 + begin_s * SECOND_NS, T0 + end_s * SECOND_NS)

    down = [s for s in range(13) if maker.has_gap(T0 + s * SECOND_NS, T0 + (s + 1) * SECOND_NS)]

    assert down == [5, 6, 7, 10, 11]


def test_price_from_before_a_gap_makes_no_empty_second_after_it() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0, 2)
    maker.gap(T0 + 2 * SECOND_NS, T0 + 2_500_000_000)
    maker.close(T0 + 3 * SECOND_NS)
    maker.heard(T0 + 3_100_000_000)

    assert maker.close(T0 + 4 * SECOND_NS) == []


def test_silence_beyond_the_limit_counts_as_a_gap() -> None:
    maker = BarMaker("X", gap_s=2.0)
    seconds(maker, T0, 1)

    made = [maker.close(T0 + i * SECOND_NS) for i in range(2, 6)]

    assert [len(bars) for bars in made] == [1, 0, 0, 0]
    assert maker.is_down(T0 + 5 * SECOND_NS)


def test_minute_with_a_gap_is_the_venues_candle() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0, 30)
    maker.gap(T0 + 29 * SECOND_NS, T0 + 31_000_000_000)  # told after second 29 had been made
    maker.close(T0 + 31 * SECOND_NS)
    maker.close(T0 + 32 * SECOND_NS)
    rest = seconds(maker, T0 + 32 * SECOND_NS, 27)
    maker.heard(T0 + 59 * SECOND_NS)
    maker.venue(candle(T0))

    bars = rest + maker.close(T0 + MINUTE)

    assert [bar for bar in bars if bar.timeframe is Timeframe.M1] == [candle(T0)]
    assert maker.forming(Timeframe.H1, T0 + MINUTE)[1]  # type: ignore[index]


def test_candle_that_comes_late_still_enters_while_nothing_newer_has() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0 + MINUTE - 2 * SECOND_NS, 2)
    maker.venue(candle(T0))

    bars = seconds(maker, T0 + MINUTE, 1)

    assert candle(T0) in bars


def test_candle_of_a_bar_made_from_trades_is_compared_and_not_used() -> None:
    maker = BarMaker("X", gap_s=5.0)
    bars = seconds(maker, T0, 59)
    maker.venue(candle(T0, volume=7.0))

    bars += seconds(maker, T0 + 59 * SECOND_NS, 1)

    (minute,) = [bar for bar in bars if bar.timeframe is Timeframe.M1]
    assert (minute.is_venue, minute.volume) == (False, 6.0)
    assert maker.counters == {"venue_compared": 1, "venue_mismatch": 1}


def test_forming_bar_is_partial_until_its_period_began_after_the_first_tick() -> None:
    maker = BarMaker("X", gap_s=5.0)
    seconds(maker, T0 + MINUTE - 2 * SECOND_NS, 1)
    maker.venue(candle(T0))
    partial = maker.forming(Timeframe.M1, T0 + MINUTE - SECOND_NS)
    seconds(maker, T0 + MINUTE - SECOND_NS, 3)

    whole = maker.forming(Timeframe.M1, T0 + MINUTE + 2 * SECOND_NS)
    hour = maker.forming(Timeframe.H1, T0 + MINUTE + 2 * SECOND_NS)

    assert partial is not None
    assert partial[1]
    assert whole == (replace(candle(T0 + MINUTE), volume=0.2, is_venue=False), False)
    assert hour == (replace(candle(T0, Timeframe.H1), volume=6.2, is_venue=False), True)


def test_candles_alone_make_whole_forming_bars_from_closed_lower_ones() -> None:
    maker = BarMaker("X", gap_s=5.0)
    opens = np.arange(T0 - 2 * HOUR, T0, MINUTE)
    maker.seed(BarSeries("X", Timeframe.M1, opens, np.tile([10.0, 12.0, 9.0, 11.0, 2.0], (120, 1))))
    maker.venue(candle(T0))

    made = maker.close(T0 + MINUTE)
    hour, minute = (maker.forming(tf, T0 + MINUTE) for tf in (Timeframe.H1, Timeframe.M1))

    assert made == [candle(T0)]
    assert hour == (Bar("X", Timeframe.H1, T0, 10.0, 10.0, 10.0, 10.0, 6.0), False)
    assert minute == (
        Bar("X", Timeframe.M1, T0 + MINUTE, 10.0, 10.0, 10.0, 10.0, 0.0, is_empty=True), False
    )  # fmt: skip


def test_hour_of_sixty_whole_minutes_is_made_of_its_trades() -> None:
    maker = BarMaker("X", gap_s=5.0)
    bars = []
    for i in range(3_600):
        maker.heard(T0 + i * SECOND_NS)
        if i % 7 == 0:  # most seconds are empty
            trade(maker, T0 + i * SECOND_NS, 10.0 + (i % 13), 0.1)
        bars += maker.close(T0 + (i + 1) * SECOND_NS)

    minutes = [bar for bar in bars if bar.timeframe is Timeframe.M1]
    (hour,) = [bar for bar in bars if bar.timeframe is Timeframe.H1]
    assert len(minutes) == 60
    assert (hour.open, hour.close) == (minutes[0].open, minutes[-1].close)
    assert (hour.low, hour.high) == (10.0, 22.0)
    assert hour.volume == 51.5  # 515 trades of 0.1, summed without rounding
    assert maker.forming(Timeframe.D1, T0 + HOUR) == (replace(hour, timeframe=Timeframe.D1), False)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(1, 10**6), st.integers(1, 10**10)),
        min_size=1,
        max_size=60,
    ),
    st.data(),
)
def test_bars_are_the_same_however_the_trades_are_cut_into_batches(
    trades: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    waits_N, cents_N, lots_N = np.array(trades).T
    columns = (T0 + np.cumsum(waits_N) * 1_000_000, cents_N / 100, lots_N)
    cuts = data.draw(st.lists(st.integers(0, len(trades)), max_size=8).map(sorted))
    whole, parts = (TradeBars(keep=(64,) * 4) for _ in range(2))
    whole.add(*columns)
    for first, end in pairwise((0, *cuts, len(trades))):
        parts.add(*(column[first:end] for column in columns))

    for timeframe in TIMEFRAMES:
        assert parts.whole(timeframe).tolist() == whole.whole(timeframe).tolist()


def test_bars_of_four_timeframes_are_those_worked_out_by_hand() -> None:
    bars = TradeBars(keep=(64,) * 4)
    seconds = np.array([0, 0, 2, 58, 61]) * SECOND_NS
    bars.add(T0 + seconds, np.array([10.0, 12.0, 9.0, 11.0, 10.5]), np.array([1, 2, 3, 4, 5]))

    closed = bars.closed(Timeframe.S1)
    assert closed[:4].tolist() == [
        (T0, 10.0, 12.0, 10.0, 12.0, 3, 2),
        (T0 + SECOND_NS, 12.0, 12.0, 12.0, 12.0, 0, 0),
        (T0 + 2 * SECOND_NS, 9.0, 9.0, 9.0, 9.0, 3, 1),
        (T0 + 3 * SECOND_NS, 9.0, 9.0, 9.0, 9.0, 0, 0),
    ]
    assert len(closed) == 61
    assert bars.whole(Timeframe.M1).tolist() == [
        (T0, 10.0, 12.0, 9.0, 11.0, 10, 4),
        (T0 + MINUTE, 10.5, 10.5, 10.5, 10.5, 5, 1),
    ]
    assert bars.whole(Timeframe.D1).tolist() == [(T0, 10.0, 12.0, 9.0, 10.5, 15, 5)]
