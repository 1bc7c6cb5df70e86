"""Nothing that comes later may reach an answer: poisoned ticks, and days that follow (ML.md 9)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from alphapulse.analysing.subjects import labels, rows
from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.recordings import read_series
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import MODELS, DecisionPoint
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import BarSeries, PivotKind, Timeframe
from alphapulse.features.known_labels import look_at_labels
from alphapulse.features.lookahead import look
from alphapulse.interfaces import DataProvider
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from experiments import known_labels
from experiments.labels import pivots_of
from tests.flows.altered import Altered, numbers_of, poisoned_from, same_bits

KEPT = Path(__file__).parents[1] / "golden" / "run"
SYMBOLS = ("ETH/USDT", "BTC/USDT")
IN_A_MINUTE = 1_723_161_278 * 10**9  # 23:54:38, inside the forming bar of every timeframe
AT_A_CLOSE = 1_723_161_300 * 10**9  # 23:55:00, where a minute closes
MONTH_NS = 30 * Timeframe.D1.ns


async def decided(provider: DataProvider, until_ns: int) -> tuple[list[DecisionPoint], list[bytes]]:
    """Return every point until an instant, and every number the models said at them."""
    settings = Settings()
    cnn, rl, moe = (local(load_model(KEPT / model)) for model in MODELS)
    feed = MarketFeed(provider, settings.market.instruments, settings.feed)
    await feed.open()
    points, said = [], []
    while (point := await feed.advance()) is not None and point.event_ns <= until_ns:
        points.append(point)
        for input in point.inputs.values():
            assert isinstance(input, ModelInput)
            thresholds = settings.decision.thresholds
            decision = await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)
            said += numbers_of(decision)
            feed.put_outputs(decision.predictions)
    return points, said


@pytest.fixture(scope="module")
def tape(recordings: Path) -> Tape:
    return Tape(recordings, Settings().market.instruments)


@pytest.fixture(scope="module")
def as_it_was(tape: Tape) -> tuple[list[DecisionPoint], list[bytes]]:
    return asyncio.run(decided(tape, AT_A_CLOSE + Timeframe.S1.ns))


@pytest.mark.parametrize("instant_ns", [IN_A_MINUTE, AT_A_CLOSE])
def test_ticks_after_an_instant_change_no_bit_of_what_was_said_until_then(
    tape: Tape, as_it_was: tuple[list[DecisionPoint], list[bytes]], instant_ns: int
) -> None:
    points, said = as_it_was

    poisoned = Altered(tape, poisoned_from(instant_ns), lambda series: series)
    later = instant_ns + Timeframe.S1.ns
    others, other_said = asyncio.run(decided(poisoned, later))

    assert [p.event_ns for p in others] == [p.event_ns for p in points[: len(others)]]
    *before, after = zip(others, points, strict=False)
    assert len(before) >= 20
    for other, point in before:
        for symbol, input in point.inputs.items():
            assert same_bits(other.inputs[symbol], input), (symbol, point.event_ns)
    numbers = len(said) // len(points) * len(before)
    assert other_said[:numbers] == said[:numbers]
    # and the poison is one: the next second shows it
    assert not any(same_bits(after[0].inputs[s], after[1].inputs[s]) for s in SYMBOLS)
    assert other_said[numbers:] != said[numbers : len(other_said)]


@pytest.fixture(
    scope="module", params=[(s, t) for s in SYMBOLS for t in list(Timeframe)[1:]], ids=str
)
def candles(recordings: Path, request: pytest.FixtureRequest) -> BarSeries:
    symbol, timeframe = request.param
    name = f"candles-{timeframe}-{symbol.replace('/', '')}.parquet"
    return read_series(recordings / name, symbol, timeframe)


def days_of(series: BarSeries) -> list[tuple[BarSeries, BarSeries]]:
    """Return the bars known on some days, and those known a month later (or at the end)."""
    first_ns, last_ns = int(series.open_ns_T[0]), int(series.open_ns_T[-1])
    days = first_ns + ((last_ns - first_ns) * np.array([0.03, 0.5])).astype(np.int64)
    return [(series.until(d), series.until(d + MONTH_NS)) for d in days.tolist()]


def test_pivots_of_a_day_are_the_same_a_month_later(candles: BarSeries) -> None:
    for level in (1, 3):
        for known, later in days_of(candles):
            day_ns = int(known.open_ns_T[-1]) + known.timeframe.ns
            found = pivots_of(known, level=level)

            assert found == [p for p in pivots_of(later, level=level) if p.confirm_ns <= day_ns]
            assert all(p.pivot_ns < p.confirm_ns for p in found)


def test_indicators_of_a_day_are_the_same_a_month_later(candles: BarSeries) -> None:
    known, later = days_of(candles)[1]

    assert MONTH_NS // 2 - Timeframe.D1.ns < later.open_ns_T[-1] - known.open_ns_T[-1] <= MONTH_NS
    assert look(rows("rows"), later, [len(known)]) == []


@pytest.mark.parametrize("name", ["next_pivots", "entries", "settled"])
def test_labels_known_on_a_day_are_the_same_a_month_later(candles: BarSeries, name: str) -> None:
    day, month = (2_000, 3_000) if candles.timeframe is Timeframe.M1 else (1_000, 1_000 + 720)
    series = candles.last(2_500 if candles.timeframe is Timeframe.D1 else month + 100)

    found = look_at_labels(labels(name, getattr(known_labels, name)), series, [day, month])

    assert found == []


def test_no_pivot_is_known_before_its_confirmation(candles: BarSeries) -> None:
    found = pivots_of(candles.last(2_000), level=2)

    for pivot in found[:: max(1, len(found) // 20)]:
        before = candles.last(2_000).until(pivot.confirm_ns - 1)
        known = {(p.kind, p.pivot_ns) for p in pivots_of(before, level=2)}
        assert (pivot.kind, pivot.pivot_ns) not in known
    assert {p.kind for p in found} == set(PivotKind)
