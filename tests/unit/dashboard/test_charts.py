"""Do the figures show every bar, pivot and forecast where they belong, in the page's colours?"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from alphapulse.dashboard import charts, wording
from tests.unit.dashboard import api
from tests.unit.dashboard.api import ETH, EVENT_NS, equity_row, inferences, pivots

TIMEFRAMES = ("1s", "1m", "1h", "1d")


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def forecast(timeframe: str) -> dict[str, Any]:
    (row,) = inferences(ETH, "cnn", "1", timeframe)
    return row


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_candles_show_every_bar_with_its_volume(timeframe: str) -> None:
    rows = api.candles(ETH, timeframe, "90")

    figure = charts.candles(rows, timeframe=timeframe)

    bars, volume = trace(figure, "bars"), trace(figure, "volume")
    assert isinstance(bars, go.Candlestick)
    assert list(bars.x) == list(volume.x) == [row["open_at"] for row in rows]
    for name in ("open", "high", "low", "close"):
        assert list(bars[name]) == [row[name] for row in rows]
    assert list(volume.y) == [row["volume"] for row in rows]


def test_missing_bar_stays_a_gap() -> None:
    rows = api.candles(ETH, "1s", "10")
    rows[4] |= dict.fromkeys(("open", "high", "low", "close", "volume"))

    figure = charts.candles(rows, timeframe="1s")

    assert trace(figure, "bars").close[4] is None
    assert trace(figure, "volume").y[4] is None


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_forecast_lies_after_the_last_bar_at_its_price(timeframe: str) -> None:
    rows, told = api.candles(ETH, timeframe), forecast(timeframe)

    drawn = trace(charts.candles(rows, timeframe=timeframe, forecast=told), "forecast")

    assert wording.nanoseconds(drawn.x[-1]) > wording.nanoseconds(rows[-1]["open_at"])
    assert wording.nanoseconds(drawn.x[-1]) == told["pivot_ns"] // 1_000_000 * 1_000_000
    assert drawn.y[-1] == told["price"]
    assert (drawn.x[0], drawn.y[0]) == (rows[-1]["open_at"], rows[-1]["close"])


def test_forecast_says_kind_price_time_and_confidence() -> None:
    figure = charts.candles(api.candles(ETH, "1m"), timeframe="1m", forecast=forecast("1m"))

    assert "high 2,691.05 in 3 min 24 s, 42 % sure" in figure.layout.title.text


def test_forecast_whose_time_has_passed_is_not_drawn_as_one() -> None:
    rows, told = api.candles(ETH, "1s"), forecast("1s")
    told |= {"event_ns": EVENT_NS - 60_000_000_000, "pivot_ns": EVENT_NS - 55_000_000_000}

    figure = charts.candles(rows, timeframe="1s", forecast=told)

    names = [trace.name for trace in figure.data]
    assert "forecast" not in names
    assert trace(figure, "passed forecast").line.color == charts.MUTED
    assert "has passed" in figure.layout.title.text


def test_pivots_are_markers_by_level_and_lead_to_their_confirmation() -> None:
    rows, found = api.candles(ETH, "1m"), pivots(ETH, "1m")

    figure = charts.candles(rows, timeframe="1m", pivots=found)

    shown = [pivot for pivot in found if pivot["pivot_at"] >= rows[0]["open_at"]]
    assert len(shown) == len(found) - 1  # the first is older than the chart
    for pivot in shown:
        level = trace(figure, f"level {pivot['level']}")
        at = list(level.x).index(pivot["pivot_at"])
        assert level.y[at] == pivot["price"]
        assert level.marker.symbol[at] == charts.SYMBOLS[pivot["kind"]]
        assert level.marker.color == charts.LEVEL_COLOURS[pivot["level"]]
        assert wording.moment(pivot["confirm_at"]) in level.text[at]
    lines = trace(figure, "confirmation")
    expected = [v for p in shown for v in (p["pivot_at"], p["confirm_at"], None)]
    assert list(lines.x) == expected


def test_book_tells_unknown_from_empty() -> None:
    known = api.book(ETH)

    figure = charts.book(known)

    bids, asks, unknown = (trace(figure, name) for name in ("bids", "asks", "unknown"))
    assert list(unknown.y) == [b["price"] for b in known["buckets"] if b["bids"] is None]
    assert set(bids.y) == {b["price"] for b in known["buckets"] if b["bids"]}
    assert set(asks.y) == {b["price"] for b in known["buckets"] if b["asks"]}


def test_equity_is_drawn_oldest_first_with_the_drawdown_below() -> None:
    rows = [equity_row(back) for back in range(30)]  # newest first

    figure = charts.equity(rows)

    equity, drawdown = trace(figure, "equity"), trace(figure, "drawdown")
    assert list(equity.x) == sorted(equity.x)
    assert equity.y[-1] == float(rows[0]["equity"])
    assert drawdown.y[-1] == pytest.approx(-100 * float(rows[0]["drawdown"]))
    assert max(drawdown.y) <= 0


def test_one_colour_means_one_thing_on_every_figure() -> None:
    bars = trace(charts.candles(api.candles(ETH, "1s"), timeframe="1s"), "bars")
    book = charts.book(api.book(ETH))
    equity = charts.equity([equity_row(0)])

    assert bars.increasing.line.color == trace(book, "bids").marker.color == charts.UP
    assert bars.decreasing.line.color == trace(book, "asks").marker.color == charts.DOWN
    assert trace(equity, "drawdown").line.color == charts.DOWN
    assert trace(charts.experts({"cnn": 1.0}), "cnn").marker.color == charts.FORECAST


def test_experts_are_one_bar_of_their_weights() -> None:
    figure = charts.experts({"flat": 0.25, "cnn": 0.35, "rl": 0.4})

    assert [(bar.name, bar.x[0]) for bar in figure.data] == [
        ("flat", 0.25),
        ("cnn", 0.35),
        ("rl", 0.4),
    ]
    assert figure.layout.barmode == "stack"
