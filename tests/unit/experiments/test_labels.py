"""Answers are those of the recorded market, and nothing is answered before it was known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Settings
from alphapulse.data.history import read_candles
from alphapulse.domain.market import BarSeries, PivotKind, Timeframe
from experiments.labels import (
    BUY,
    HOLD,
    SELL,
    entry_results,
    pivot_answers,
    pivots_of,
    teacher_actions,
)

MINUTE_NS = Timeframe.M1.ns


@pytest.fixture(scope="module")
def minutes(recordings: Path) -> BarSeries:
    instrument = Settings().market.instruments[0]
    series = read_candles(recordings / "candles-1m-ETHUSDT.parquet", instrument, Timeframe.M1)
    return BarSeries(series.symbol, Timeframe.M1, series.open_ns_T[:3000], series.ohlcv_TC[:3000])


def answers(series: BarSeries, at_N: np.ndarray, cut_ns: int) -> dict[str, np.ndarray]:
    ones = np.ones(len(at_N))
    pivots = pivots_of(series, level=2)
    return pivot_answers(
        pivots, timeframe=Timeframe.M1, at_N=at_N, price_N=ones, volatility_N=ones, cut_ns=cut_ns
    )


def test_the_next_pivot_is_the_first_that_opens_at_or_after_the_instant(
    minutes: BarSeries,
) -> None:
    pivots = pivots_of(minutes, level=2)
    at_N = minutes.open_ns_T[500:2000:7]

    found = answers(minutes, at_N, int(minutes.open_ns_T[-1]))

    for at, p_high, log_bars, move in zip(
        at_N, found["p_high"], found["log_bars"], found["move"], strict=True
    ):
        expected = min((p for p in pivots if p.pivot_ns >= at), key=lambda p: p.pivot_ns)
        same_bar = {p.kind for p in pivots if p.pivot_ns == expected.pivot_ns}
        assert len(same_bar) == 2 or (p_high == 1) == (expected.kind is PivotKind.HIGH)
        assert np.expm1(log_bars) == pytest.approx((expected.pivot_ns - at) / MINUTE_NS, rel=1e-5)
        assert len(same_bar) == 2 or move == pytest.approx(np.log(expected.price), rel=1e-6)


def test_done_is_a_pivot_that_is_past_and_not_confirmed(minutes: BarSeries) -> None:
    pivots = pivots_of(minutes, level=2)
    at_N = minutes.open_ns_T[500:2000:7]

    found = answers(minutes, at_N, int(minutes.open_ns_T[-1]))

    expected = [any(p.pivot_ns < at < p.confirm_ns for p in pivots) for at in at_N]
    assert found["p_done"].tolist() == [float(done) for done in expected]
    assert 0.3 < found["p_done"].mean() < 0.7


def test_answers_known_at_a_cut_do_not_change_with_what_comes_later(minutes: BarSeries) -> None:
    at_N = minutes.open_ns_T[500:2000]
    cut_ns = int(minutes.open_ns_T[1500])
    shorter = minutes.until(cut_ns)

    early, late = answers(shorter, at_N, cut_ns), answers(minutes, at_N, cut_ns)
    whole = answers(minutes, at_N, int(minutes.open_ns_T[-1]))

    for head in ("p_high", "log_bars", "move", "p_done"):
        np.testing.assert_array_equal(early[head], late[head])
        known = ~np.isnan(early[head])
        np.testing.assert_array_equal(early[head][known], whole[head][known])
        assert not known[at_N >= cut_ns].any()
        assert known[: len(known) // 2].all()


def test_results_are_settled_at_the_stop_or_after_three_hundred_bars(minutes: BarSeries) -> None:
    at_N = minutes.open_ns_T[500:2600:50]
    risk_N = np.full(len(at_N), 0.006)
    cut_ns = int(minutes.open_ns_T[-1])

    found = entry_results(minutes, at_N=at_N, risk_N=risk_N, cost=0.001, cut_ns=cut_ns)

    for at, (long, short) in zip(at_N, found, strict=True):
        i = int(np.searchsorted(minutes.open_ns_T, at))
        entry, ahead = minutes.ohlcv_TC[i - 1, 3], minutes.ohlcv_TC[i : i + 300]
        stopped = np.log(ahead[:, 2].min() / entry) <= -0.006
        gross = -1.0 if stopped else np.log(ahead[-1, 3] / entry) / 0.006
        assert long == pytest.approx(np.clip(gross - 0.002 / 0.006, -1.5, 3.0), abs=1e-6)
        assert -1.5 <= short <= 3.0


def test_results_need_all_their_bars_before_the_cut(minutes: BarSeries) -> None:
    at_N = minutes.open_ns_T[[1000, 1199, 1200, 1201]]
    cut_ns = int(minutes.open_ns_T[1500])

    found = entry_results(minutes, at_N=at_N, risk_N=np.ones(4), cost=0.0, cut_ns=cut_ns)

    assert np.isnan(found[:, 0]).tolist() == [False, False, False, True]


def test_the_teacher_is_the_best_of_all_paths() -> None:
    closes = [100.0, 101.0, 100.9, 103.0, 99.0, 98.9, 104.0]
    ohlcv_TC = np.array([[c, c, c, c, 1.0] for c in closes])
    open_ns_T = np.arange(len(closes), dtype=np.int64) * MINUTE_NS
    series = BarSeries("ETH/USDT", Timeframe.M1, open_ns_T, ohlcv_TC)
    at_N = open_ns_T[1:]

    found = teacher_actions(series, at_N=at_N, cost=0.002, cut_ns=len(closes) * MINUTE_NS)

    assert found[:, 0].tolist() == [BUY, HOLD, BUY, HOLD, HOLD, BUY]
    assert found[:, 1].tolist() == [HOLD, HOLD, HOLD, SELL, HOLD, HOLD]


def test_a_dear_teacher_never_trades(minutes: BarSeries) -> None:
    at_N = minutes.open_ns_T[500:600]

    found = teacher_actions(minutes, at_N=at_N, cost=0.5, cut_ns=int(minutes.open_ns_T[-1]))

    assert (found[:, 0] == HOLD).all()
