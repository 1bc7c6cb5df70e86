"""A user's indicator: one decorated function, streamed like the others, heard by models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Feed, load_settings
from alphapulse.data.cache import MarketCache
from alphapulse.domain.errors import ConfigError, InvalidBar
from alphapulse.domain.inputs import CHANNEL, INPUT_SPEC
from alphapulse.domain.market import SECOND_NS, Bar, Floats, Timeframe, Trade
from alphapulse.features import registry
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.inputs import pack, rebuild
from alphapulse.features.registry import Bars, Unit, indicator
from alphapulse.features.rows import COLUMN
from tests.unit.features.test_indicators import LoadSeries, bars_of, head
from tests.unit.features.test_inputs import EVENT, MakeWindow, complete, stored

ETH = "ETH/USDT"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave no indicator behind."""
    yield
    for own in registry.own():
        registry.remove(own.name)


def midpoint(bars: Bars) -> float:
    return float(bars.high.max() + bars.low.min()) / 2


def add_midpoint(*, channel: bool = True) -> Callable[[Bars], float]:
    return indicator(bars=20, unit=Unit.PRICE, channel=channel)(midpoint)


def column(builder: RowBuilder, rows_TC: Floats, name: str) -> Floats:
    values_T: Floats = rows_TC[:, builder.columns.index(name)]
    return values_T


def test_a_decorated_function_fills_a_column_of_every_stream(load_series: LoadSeries) -> None:
    add_midpoint(channel=False)
    series = head(load_series(ETH, Timeframe.H1), 300)
    builder = RowBuilder(ETH, Timeframe.H1)

    rows_TC, _ = builder.open(series)

    highs, lows = series.ohlcv_TC[:, 1], series.ohlcv_TC[:, 2]
    expected = [
        (highs[i - 19 : i + 1].max() + lows[i - 19 : i + 1].min()) / 2 for i in range(19, 300)
    ]
    values_T = column(builder, rows_TC, "midpoint")
    assert np.isnan(values_T[:19]).all()
    assert values_T[19:].tolist() == expected


def test_it_streams_like_batch_and_the_forming_bar_leaves_no_trace(load_series: LoadSeries) -> None:
    add_midpoint()
    series = head(load_series(ETH, Timeframe.M1), 300)
    expected_TC, _ = RowBuilder(ETH, Timeframe.M1).open(series)
    builder = RowBuilder(ETH, Timeframe.M1)
    builder.open(head(series, 100))

    rows = []
    for bar in bars_of(series)[100:]:
        peeked, _ = builder.peek(bar)
        row, _ = builder.close(bar)
        at = [builder.columns.index(name) for name in ("midpoint", "own_1", "own_2")]
        assert np.array_equal(peeked[at], row[at], equal_nan=True)
        rows.append(row)

    np.testing.assert_array_equal(np.array(rows), expected_TC[100:])


def test_it_forgets_what_lies_before_a_missing_bar(load_series: LoadSeries) -> None:
    add_midpoint()
    builder = RowBuilder(ETH, Timeframe.M1)
    bars = bars_of(head(load_series(ETH, Timeframe.M1), 60))
    for bar in bars[:30]:
        builder.close(bar)

    after = np.array([builder.close(bar)[0] for bar in bars[31:]])

    assert np.isnan(column(builder, after, "midpoint")).sum() == 19


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (Unit.PRICE, lambda row, value: (row[COLUMN["close"]] - value) / row[COLUMN["atr14"]]),
        (Unit.CHANGE, lambda row, value: value / row[COLUMN["atr14"]]),
        (Unit.PERCENT, lambda row, value: (value - 50) / 50),
        (Unit.RATIO, lambda row, value: value),
    ],
)
def test_its_unit_says_how_it_becomes_a_channel(
    load_series: LoadSeries, unit: Unit, expected: Callable[[Floats, float], float]
) -> None:
    indicator(bars=20, unit=unit, channel=True)(midpoint)
    builder = RowBuilder(ETH, Timeframe.H1)

    row = builder.open(head(load_series(ETH, Timeframe.H1), 200))[0][-1]

    value = float(row[builder.columns.index("midpoint")])
    assert row[COLUMN["own_1"]] == expected(row, value)
    assert np.isnan(row[COLUMN["own_2"]])


def test_models_see_it_in_a_free_channel_and_the_layout_tells(make_window: MakeWindow) -> None:
    before = complete(make_window(EVENT))
    add_midpoint()

    window = make_window(EVENT)
    built = complete(window)

    own, free = CHANNEL["own_1"], CHANNEL["own_2"]
    assert built.spec.own == ("midpoint",)
    assert built.spec.content_hash != INPUT_SPEC.content_hash
    assert built.known_SFTC[..., own].all()
    assert built.bars_SFTC[..., own].std() > 0.1
    assert not built.known_SFTC[..., free].any()
    others = [c for name, c in CHANNEL.items() if name != "own_1"]
    assert np.array_equal(built.bars_SFTC[..., others], before.bars_SFTC[..., others])
    registry.remove("midpoint")  # whoever rebuilds it need not have the function
    again = rebuild(pack(window, built), stored(window))
    assert again.content_hash == built.content_hash
    assert again.spec == built.spec


def test_what_it_returns_must_be_a_number(load_series: LoadSeries) -> None:
    @indicator(bars=2, unit="ratio")
    def growth(bars: Bars) -> float:
        return float("inf")

    builder = RowBuilder(ETH, Timeframe.M1)

    with pytest.raises(InvalidBar, match="indicator growth: expected one finite number or NaN"):
        builder.open(head(load_series(ETH, Timeframe.M1), 3))


def test_what_it_raises_is_told_with_its_name(load_series: LoadSeries) -> None:
    @indicator(bars=2, unit="ratio")
    def growth(bars: Bars) -> float:
        return 1 / 0

    with pytest.raises(InvalidBar, match="finite number or NaN, was ZeroDivisionError: division"):
        RowBuilder(ETH, Timeframe.M1).open(head(load_series(ETH, Timeframe.M1), 3))


def test_the_forming_bar_after_a_gap_is_seen_as_it_will_close(load_series: LoadSeries) -> None:
    add_midpoint()
    builder = RowBuilder(ETH, Timeframe.H1)
    bars = bars_of(head(load_series(ETH, Timeframe.H1), 120))
    for bar in bars[:100]:
        builder.close(bar)
    registry.remove("midpoint")  # what is being built goes on as it began

    peeked, _ = builder.peek(bars[102])
    row, _ = builder.close(bars[102])

    assert not np.isnan(row[builder.columns.index("p")])
    assert np.array_equal(peeked, row, equal_nan=True)


def test_it_gets_the_newest_bars_and_no_others() -> None:
    seen: list[Bars] = []

    @indicator(bars=3, unit="price")
    def newest(bars: Bars) -> float:
        seen.append(bars)
        return float(bars.close[-1])

    builder = RowBuilder(ETH, Timeframe.M1)
    for i in range(5):
        bar = Bar(ETH, Timeframe.M1, i * Timeframe.M1.ns, *[float(10 + i)] * 4, volume=float(i))
        builder.close(bar)

    assert [bars.close.tolist() for bars in seen] == [[10, 11, 12], [11, 12, 13], [12, 13, 14]]
    assert seen[-1].volume.tolist() == [2, 3, 4]


def test_a_taken_name_is_refused() -> None:
    def rsi14(bars: Bars) -> float:
        return 50.0

    with pytest.raises(ConfigError, match="indicator rsi14: expected a name of its own"):
        indicator(bars=1, unit="percent")(rsi14)


def test_a_third_channel_is_refused() -> None:
    def one(bars: Bars) -> float:
        return 1.0

    def two(bars: Bars) -> float:
        return 2.0

    for function in (one, two):
        indicator(bars=1, unit="ratio", channel=True)(function)

    with pytest.raises(ConfigError, match="expected a free channel of 2, was none beside one, two"):
        add_midpoint()


def test_a_size_is_no_channel() -> None:
    with pytest.raises(ConfigError, match="divide by a volume"):
        indicator(bars=1, unit="size", channel=True)(midpoint)


def test_modules_named_in_the_settings_are_loaded_where_rows_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_a_test.py").write_text(
        "from alphapulse.features.registry import indicator\n"
        "@indicator(bars=2, unit='ratio', channel=True)\n"
        "def growth(bars):\n"
        "    return bars.close[-1] / bars.close[0]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.toml").write_text('[feed]\nindicators = ["mine_of_a_test"]\n')
    settings = load_settings(tmp_path)

    cache = MarketCache(settings.market.instruments, settings.feed)
    registry.remove("growth")  # as where windows of another process become inputs

    cache.apply(Trade(ETH, SECOND_NS, SECOND_NS, 1, 2_600.0, 1.0, is_buy=True))
    cache.close_until(2 * SECOND_NS)
    assert cache.window(2 * SECOND_NS).own == ("growth",)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="expected a module that can be imported"):
        MarketCache([], Feed(indicators=("nobody.wrote_this",)))
