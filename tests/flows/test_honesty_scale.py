"""The scale of an input is that of the stored bars as of its instant, and prices have no unit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import MODELS, DecisionPoint, Prediction
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import Instrument, Timeframe
from alphapulse.features.inputs import stored_rows
from alphapulse.features.rows import COLUMN
from alphapulse.interfaces import DataProvider
from alphapulse.models.loading import load_model
from tests.flows.altered import Altered, dearer, poisoned_from, times

KEPT = Path(__file__).parents[1] / "golden" / "run"
BEFORE_MIDNIGHT = 1_723_161_270 * 10**9  # 23:54:30: the forming day is nearly over
AFTER_MIDNIGHT = 1_723_161_610 * 10**9  # 00:00:10: it has just begun
INSTANTS = (BEFORE_MIDNIGHT, AFTER_MIDNIGHT)
DAY_NS = Timeframe.D1.ns
TENFOLD = 10.0


async def points_at(
    provider: DataProvider,
    instruments: tuple[Instrument, ...],
    instants: Sequence[int] = INSTANTS,
) -> list[DecisionPoint]:
    settings = Settings()
    found = []
    feed = MarketFeed(provider, instruments, settings.feed)
    await feed.open()
    for instant_ns in instants:
        await feed.skip_to(instant_ns - Timeframe.S1.ns)
        point = await feed.advance()
        assert point is not None
        assert point.event_ns == instant_ns
        rows = stored_rows(feed.cache.window(instant_ns), newer_than={})  # skipped ones too
        found.append(replace(point, rows=rows))
    return found


@pytest.fixture(scope="module")
def instruments() -> tuple[Instrument, ...]:
    return Settings().market.instruments


@pytest.fixture(scope="module")
def points(recordings: Path, instruments: tuple[Instrument, ...]) -> list[DecisionPoint]:
    return asyncio.run(points_at(Tape(recordings, instruments), instruments))


@pytest.fixture(scope="module")
def tenfold(recordings: Path, instruments: tuple[Instrument, ...]) -> list[DecisionPoint]:
    """Return the same instants where everything costs ten times as much, price steps too."""
    tape = Tape(recordings, instruments)
    provider = Altered(tape, times(TENFOLD), lambda series: dearer(series, TENFOLD))
    dear = tuple(
        replace(i, tick_size=i.tick_size * TENFOLD, bucket_size=i.bucket_size * TENFOLD)
        for i in instruments
    )
    return asyncio.run(points_at(provider, dear))


def input_of(point: DecisionPoint, symbol: str) -> ModelInput:
    input = point.inputs[symbol]
    assert isinstance(input, ModelInput)
    return input


def raw(folder: Path, name: str, symbol: str, columns: list[str]) -> list[np.ndarray]:
    table = pq.read_table(folder / f"{name}-{symbol.replace('/', '')}.parquet", columns=columns)
    found = [table[c].to_numpy() for c in columns]
    return [found[0].astype(np.int64), *found[1:]]


@pytest.mark.parametrize("place", [0, 1], ids=["before midnight", "after midnight"])
def test_scale_is_that_of_the_stored_bars_as_of_the_instant(
    points: list[DecisionPoint], place: int
) -> None:
    point = points[place]

    for symbol, package in point.packages.items():
        input = input_of(point, symbol)
        for side, of in enumerate((input.symbol, input.reference)):
            (ref,) = [r for r in package.streams if (r.symbol, r.stream) == (of, "1d")]
            days = [r.values_C for r in point.rows if (r.symbol, r.stream) == (of, "1d")]
            bars = np.array([*days[-299:], ref.forming_C])
            low, high = bars[:, COLUMN["low"]].min(), bars[:, COLUMN["high"]].max()
            assert input.scale_S2[side].tolist() == [low, high]


@pytest.mark.parametrize("place", [0, 1], ids=["before midnight", "after midnight"])
def test_scale_is_that_of_the_recorded_candles_and_trades_before_the_instant(
    points: list[DecisionPoint], recordings: Path, place: int
) -> None:
    point = points[place]
    at_ns, day_ns = point.event_ns, Timeframe.D1.floor(point.event_ns)

    for symbol, built in point.inputs.items():
        opens, lows, highs = raw(recordings, "candles-1d", symbol, ["ts", "low", "high"])
        days = (opens < day_ns) & (opens >= day_ns - 299 * DAY_NS)
        assert days.sum() == 299
        at, low_T, high_T = raw(recordings, "candles-1m", symbol, ["ts", "low", "high"])
        traded_ns, price_N = raw(recordings, "trades", symbol, ["ts", "price"])
        minutes = (at >= day_ns) & (at + Timeframe.M1.ns <= min(int(traded_ns[0]), at_ns))
        today = price_N[(traded_ns >= day_ns) & (traded_ns < at_ns)]
        low = min(lows[days].min(), today.min(), *low_T[minutes])
        high = max(highs[days].max(), today.max(), *high_T[minutes])
        assert built.scale_S2[0].tolist() == [low, high]


def test_scale_knows_the_forming_day_up_to_the_instant(
    recordings: Path, instruments: tuple[Instrument, ...]
) -> None:
    tape = Tape(recordings, instruments)
    wild_ns = BEFORE_MIDNIGHT - 10 * Timeframe.S1.ns
    wild = Altered(tape, poisoned_from(wild_ns), lambda series: series)

    (point,) = asyncio.run(points_at(wild, instruments, INSTANTS[:1]))

    for symbol, built in point.inputs.items():
        traded_ns, price_N = raw(recordings, "trades", symbol, ["ts", "price"])
        shown = price_N[(traded_ns >= wild_ns) & (traded_ns < point.event_ns)]
        assert input_of(point, symbol).scale_S2[0, 1] == 1_000.0 * shown.max()
        assert built.scale_S2[0, 0] < 1_000.0 * shown.min()


def test_prices_ten_times_as_high_leave_every_channel_within_1e_5(
    points: list[DecisionPoint], tenfold: list[DecisionPoint]
) -> None:
    for point, dear in zip(points, tenfold, strict=True):
        for symbol in point.inputs:
            a, b = input_of(point, symbol), input_of(dear, symbol)
            assert b.price == pytest.approx(TENFOLD * a.price)
            np.testing.assert_allclose(b.scale_S2, TENFOLD * a.scale_S2, rtol=1e-12)
            for name in ("bars_SFTC", "book_STB"):
                np.testing.assert_allclose(getattr(b, name), getattr(a, name), atol=1e-5, rtol=1e-5)
            assert np.array_equal(a.flags_SFT, b.flags_SFT)
            assert np.array_equal(a.known_STB, b.known_STB)


def test_prices_ten_times_as_high_leave_every_output_within_1e_5(
    points: list[DecisionPoint], tenfold: list[DecisionPoint]
) -> None:
    models = [load_model(KEPT / name) for name in MODELS]

    for point, dear in zip(points, tenfold, strict=True):
        for symbol in point.inputs:
            said: list[dict[str, Prediction]] = []
            for one in (point, dear):
                upstream: dict[str, Prediction] = {}
                for model in models:
                    upstream[model.name] = model.predict(input_of(one, symbol), upstream=upstream)
                said.append(upstream)
            for name, a in said[0].items():
                b = said[1][name]
                assert a.action is b.action
                for number in ("p_buy", "p_sell", "p_hold", "confidence", "utility_r"):
                    assert getattr(b, number) == pytest.approx(getattr(a, number), abs=1e-5)
                for f, g in zip(a.forecasts, b.forecasts, strict=True):
                    assert g.price == pytest.approx(TENFOLD * f.price, rel=1e-5)
                    assert (g.p_high, g.move, g.p_done) == pytest.approx(
                        (f.p_high, f.move, f.p_done), abs=1e-5
                    )
