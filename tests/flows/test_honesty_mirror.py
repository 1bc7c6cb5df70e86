"""Up must mirror down: where code decides, exactly; where weights do, on average (ML.md 9, 18).

The mirror is the negated log price: p becomes c / p, highs lows, bids asks, bought sold. Where a
formula is linear in prices, the mirror is 2 c - p.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.analysing.windows import Asked, ask, candles_of
from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import MODELS, Action, Prediction, Thresholds
from alphapulse.domain.inputs import INPUT_SPEC, ModelInput, Tensor
from alphapulse.domain.learning import LEVELS
from alphapulse.domain.market import BarSeries, Floats, PivotKind, Timeframe
from alphapulse.domain.windows import BookWindow, MarketWindow
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.inputs import PeerTable, build
from alphapulse.features.registry import layout
from alphapulse.features.rows import BOOK_COLUMN, BOOK_COLUMNS
from alphapulse.models.decide import conclude
from alphapulse.models.loading import load_model
from alphapulse.models.network import volatility_SF
from alphapulse.models.vote import vote
from experiments.labels import entry_results, pivot_answers, pivots_of
from tests.flows.altered import mirrored

KEPT = Path(__file__).parents[1] / "golden" / "run"
OTHER = {PivotKind.HIGH: PivotKind.LOW, PivotKind.LOW: PivotKind.HIGH}
TURNED = {Action.BUY: Action.SELL, Action.SELL: Action.BUY, Action.HOLD: Action.HOLD}
NUM_MINUTES, EVERY = 240, 4  # minutes of candles, of which every fourth is asked
Said = Mapping[str, Prediction]


@pytest.fixture(scope="module")
def candles(recordings: Path) -> list[BarSeries]:
    return candles_of(recordings, Settings())


@pytest.fixture(scope="module")
def mirror(candles: list[BarSeries]) -> list[BarSeries]:
    """Return the candles mirrored about the newest price of each symbol."""
    newest = {s.symbol: float(s.ohlcv_TC[-1, 3]) for s in candles if s.timeframe is Timeframe.M1}
    return [mirrored(series, newest[series.symbol]) for series in candles]


def test_pivots_of_every_recorded_candle_mirror_exactly(
    candles: list[BarSeries], mirror: list[BarSeries]
) -> None:
    for series, turned in zip(candles, mirror, strict=True):
        for level in (1, 3):
            found = {(p.kind, p.pivot_ns, p.confirm_ns) for p in pivots_of(series, level=level)}
            swapped = {
                (OTHER[p.kind], p.pivot_ns, p.confirm_ns) for p in pivots_of(turned, level=level)
            }
            assert found == swapped
            assert len(found) > 40


def test_pivot_labels_mirror_but_where_one_bar_holds_both_pivots(
    candles: list[BarSeries], mirror: list[BarSeries]
) -> None:
    """One bar that holds the next high and the next low is taught as a low (`pivot_answers`).

    Measured on the recording: no instant of 1m, 3.0 and 3.3 % of 1h, 3.5 and 4.5 % of 1d.
    """
    shares = {}
    for series, turned in zip(candles, mirror, strict=True):
        level = LEVELS[series.timeframe]
        a, b = (
            pivot_answers(
                pivots_of(side, level=level),
                timeframe=side.timeframe,
                at_N=side.open_ns_T + side.timeframe.ns,
                price_N=side.ohlcv_TC[:, 3],
                volatility_N=np.full(len(side), 1e-2),
                cut_ns=int(side.open_ns_T[-1]) + side.timeframe.ns,
            )
            for side in (series, turned)
        )
        is_known_N = ~np.isnan(a["p_high"])
        is_both_N = is_known_N & (a["p_high"] == 0) & (b["p_high"] == 0)
        alone_N = is_known_N & ~is_both_N

        assert np.array_equal(np.isnan(b["p_high"]), ~is_known_N)
        assert np.array_equal(a["p_high"][alone_N], 1 - b["p_high"][alone_N])
        for name in ("log_bars", "p_done", "unique"):
            assert np.array_equal(a[name], b[name], equal_nan=True)
        np.testing.assert_allclose(a["move"][alone_N], -b["move"][alone_N], atol=1e-5)
        shares[series.symbol, series.timeframe] = is_both_N.sum() / is_known_N.sum()
    assert max(shares.values()) < 0.05, shares
    assert not shares["ETH/USDT", Timeframe.M1]


def test_results_of_long_and_short_entries_swap(
    candles: list[BarSeries], mirror: list[BarSeries]
) -> None:
    for series, turned in zip(candles, mirror, strict=True):
        if series.timeframe is not Timeframe.M1:
            continue
        at_N = series.open_ns_T[1_000:-400:50]
        asked = {"at_N": at_N, "risk_N": np.full(len(at_N), 5e-3), "cost": 1e-3}
        a, b = (
            entry_results(side, **asked, cut_ns=int(side.open_ns_T[-1]))
            for side in (series, turned)
        )

        np.testing.assert_allclose(a, b[:, ::-1], atol=1e-5)
        assert (a[:, 0] != a[:, 1]).mean() > 0.5


# What a column becomes where prices p are 2 c - p: sign, and share of 2 c.
LINEAR = {
    "rsi14": (-1, 0, 100.0), "adx14": (1, 0, 0.0), "atr14": (1, 0, 0.0), "cci20": (-1, 0, 0.0),
    "willr14": (-1, 0, -100.0), "aroonosc14": (-1, 0, 0.0), "ema12": (-1, 1, 0.0),
    "ema26": (-1, 1, 0.0), "sma20": (-1, 1, 0.0), "macd_hist": (-1, 0, 0.0),
    "bb_middle": (-1, 1, 0.0),
}  # fmt: skip


def test_indicators_mirror_to_rounding(candles: list[BarSeries]) -> None:
    (series,) = [s for s in candles if (s.symbol, s.timeframe) == ("ETH/USDT", Timeframe.M1)]
    series = series.last(5_000)
    twice = 2 * float(series.ohlcv_TC[-1, 3])
    ohlc_TC, volume_T = series.ohlcv_TC[:, :4], series.ohlcv_TC[:, 4]
    turned = replace(series, ohlcv_TC=np.column_stack([twice - ohlc_TC[:, [0, 2, 1, 3]], volume_T]))

    rows_TC, turned_TC = (
        RowBuilder(side.symbol, side.timeframe).open(side)[0] for side in (series, turned)
    )

    for name, (sign, share, offset) in LINEAR.items():
        column = layout().index(name)
        expected_T = sign * rows_TC[:, column] + share * twice + offset
        np.testing.assert_allclose(turned_TC[:, column], expected_T, atol=1e-6, err_msg=name)


# A book column is negated, swapped with another, or stays.
NEGATED = ("imbalance", "microprice_bps", "ofi", "ofi_levels")
SWAPPED = {"bought": "sold", "sold": "bought"}


def mirrored_book(book: BookWindow, price: float) -> BookWindow:
    rows_TB = book.rows_TC.copy()
    for name, place in BOOK_COLUMN.items():
        side, _, number = name.partition("_")
        other = SWAPPED.get(name, name)
        if side in ("bid", "ask") and number.isdecimal():
            other = f"{'ask' if side == 'bid' else 'bid'}_{number}"
        rows_TB[:, place] = book.rows_TC[:, BOOK_COLUMN[other]] * (-1 if name in NEGATED else 1)
    rows_TB[:, BOOK_COLUMN["mid"]] = price**2 / book.rows_TC[:, BOOK_COLUMN["mid"]]
    return replace(book, rows_TC=rows_TB)


def test_book_of_the_input_mirrors_to_rounding(recordings: Path) -> None:
    settings = Settings()

    async def window_at(instant_ns: int) -> MarketWindow:
        instruments = settings.market.instruments
        feed = MarketFeed(Tape(recordings, instruments), instruments, settings.feed)
        await feed.open()
        await feed.skip_to(instant_ns)
        return feed.cache.window(instant_ns)

    window = asyncio.run(window_at(1_723_161_540 * 10**9))  # 23:59:00
    turned = {s: mirrored_book(book, window.close(s)) for s, book in window.books.items()}

    a, b = (
        build(
            side,
            symbol="ETH/USDT",
            reference="BTC/USDT",
            peers=PeerTable(),
            account_A=np.zeros(INPUT_SPEC.num_account_fields, np.float32),
        )
        for side in (window, replace(window, books=turned))
    )

    assert isinstance(a, ModelInput)
    assert isinstance(b, ModelInput)
    assert a.known_STB.any()
    for name, place in BOOK_COLUMN.items():
        seen_ST = b.book_STB[..., place]
        side, _, number = name.partition("_")
        other = SWAPPED.get(name, name)
        if number.isdecimal():
            other = f"{'ask' if side == 'bid' else 'bid'}_{number}"
        sign = -1 if name in (*NEGATED, "mid") else 1
        expected_ST = sign * a.book_STB[..., BOOK_COLUMN[other]]
        np.testing.assert_allclose(seen_ST, expected_ST, atol=1e-5, err_msg=name)
        known_ST = a.known_STB[..., BOOK_COLUMN[other]]
        assert np.array_equal(b.known_STB[..., place], known_ST), name
    assert len(BOOK_COLUMNS) == INPUT_SPEC.num_book_columns


@pytest.fixture(scope="module")
def asked(candles: list[BarSeries], mirror: list[BarSeries]) -> tuple[Asked, Asked]:
    settings = Settings()
    return ask(candles, settings, count=NUM_MINUTES), ask(mirror, settings, count=NUM_MINUTES)


@pytest.fixture(scope="module")
def said(asked: tuple[Asked, Asked]) -> tuple[list[Said], list[Said]]:
    """Return what the models say of the market and of its mirror, at the same instants."""
    models = [load_model(KEPT / name) for name in MODELS]

    def ask_all(input: ModelInput) -> Said:
        upstream: dict[str, Prediction] = {}
        for model in models:
            upstream[model.name] = model.predict(input, upstream=upstream)
        return upstream

    straight, turned = ([ask_all(i) for i in side.inputs_N[::EVERY]] for side in asked)
    return straight, turned


def test_vote_mirrors_to_rounding(
    asked: tuple[Asked, Asked], said: tuple[list[Said], list[Said]]
) -> None:
    for input, of in zip(asked[0].inputs_N[::EVERY], said[0], strict=True):
        unit_F: Floats = volatility_SF(input.bars_SFTC, input.flags_SFT)[0]
        forecasts = of["cnn"].forecasts
        turned = [replace(f, p_high=f.p_low, p_low=f.p_high, move=-f.move) for f in forecasts]

        a, b = (vote(side, unit_F, cost=1e-4) for side in (forecasts, turned))

        assert (a.p_buy, a.p_sell, a.p_hold) == pytest.approx((b.p_sell, b.p_buy, b.p_hold))
        assert a.action is TURNED[b.action]
        assert (a.confidence, a.utility_r) == pytest.approx((b.confidence, b.utility_r))


@pytest.mark.parametrize("position", [-1.0, 0.0, 1.0])
def test_what_a_prediction_becomes_mirrors(
    said: tuple[list[Said], list[Said]], position: float
) -> None:
    for of in said[0]:
        for action in Action:
            p = replace(of["moe"], action=action, utility_r=0.1, confidence=0.55)
            turned = replace(p, action=TURNED[action], p_buy=p.p_sell, p_sell=p.p_buy)
            rules = {"upstream": {}, "thresholds": Thresholds(entry=0.6, exit=0.5)}

            a = conclude(p, position=position, **rules)
            b = conclude(turned, position=-position, **rules)

            assert (a.action, a.reason) == (TURNED[b.action], b.reason)


# On average over 60 instants in 4 hours. The kept CNN says on ETH/USDT
#   P(H) 0.50 0.39 0.60 on 1m 1h 1d, and of the mirror P(L) 0.58 0.45 0.75: 0.08 0.06 0.15 apart;
#   correlated 0.90 0.86 0.96. Buy 0.15 and sell 0.39; of the mirror sell 0.20 and buy 0.24.
# All that code decides mirrors exactly (above), so the rest is in the weights and what they were
# taught by: one month of candles, which is hardly more than one path of 300 days; its mirror is
# another path. The spread of P(H) on 1m is 0.20, and the instants of an hour see nearly the same
# bars: a mean of 60 has an error of some 0.07. 0.25 leaves room for three of those.
APART, TOGETHER = 0.25, 0.5


def test_forecasts_of_the_cnn_turn_with_the_market(said: tuple[list[Said], list[Said]]) -> None:
    straight, turned = said
    assert len(straight) == len(turned) == NUM_MINUTES // EVERY
    for place, forecast in enumerate(straight[0]["cnn"].forecasts):
        high_N: Tensor = np.array([s["cnn"].forecasts[place].p_high for s in straight])
        low_N: Tensor = np.array([s["cnn"].forecasts[place].p_low for s in turned])

        assert abs(high_N.mean() - low_N.mean()) < APART, forecast.timeframe
        assert np.corrcoef(high_N, low_N)[0, 1] > TOGETHER, forecast.timeframe


@pytest.mark.parametrize("name", ["cnn", "moe"])
def test_votes_turn_with_the_market(said: tuple[list[Said], list[Said]], name: str) -> None:
    straight, turned = said
    buys, sells = (np.mean([getattr(s[name], p) for s in straight]) for p in ("p_buy", "p_sell"))
    sold, bought = (np.mean([getattr(s[name], p) for s in turned]) for p in ("p_sell", "p_buy"))

    assert abs(buys - sold) < APART
    assert abs(sells - bought) < APART


def test_policy_sells_only_what_it_holds(said: tuple[list[Said], list[Said]]) -> None:
    """The policy is flat or long, never short: flat, it has no sell that could mirror a buy.

    Measured when flat: buy 0.14 and sell 0.001; of the mirror buy 0.16 and sell 0.001.
    """
    for side in said:
        assert np.mean([s["rl"].p_sell for s in side]) < 0.05
