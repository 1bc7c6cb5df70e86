"""Draw the figures of the monitor: candles with pivots and forecast, the book, the equity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from alphapulse.dashboard import wording

Row = Mapping[str, Any]

# one meaning, one colour, on every part of the page
UP, DOWN, MUTED, ACCENT = "#3fb68b", "#e0626c", "#8a94a6", "#6ea8fe"
FORECAST = "#b79cf0"
TEXT, GRID = "#c9d1de", "rgba(138,148,166,0.14)"
LEVEL_COLOURS = {1: "#8a94a6", 2: "#f0b35a", 3: "#fff0b8"}
LEVEL_SIZES = {1: 5, 2: 8, 3: 11}
KINDS = {"H": "high", "L": "low"}
SYMBOLS = {"H": "triangle-down", "L": "triangle-up"}
CANDLES_HEIGHT, BOOK_HEIGHT, EQUITY_HEIGHT = 262, 560, 300  # [px]


def candles(
    rows: Sequence[Row],
    *,
    timeframe: str,
    pivots: Iterable[Row] = (),
    forecast: Row | None = None,
) -> go.Figure:
    """Return the chart of one stream.

    Args:
        rows: bars as the API gives them, oldest first; the last may be forming.
        timeframe: of the bars, as it is called.
        pivots: confirmed pivots; a line leads from each to the bar that confirmed it.
        forecast: the CNN's newest row; drawn in grey once its time has passed.

    Returns:
        A figure with the traces `bars`, `volume`, `confirmation`, `level 1` to `level 3`, and
        `forecast` or `passed forecast`.
    """
    figure = _figure(CANDLES_HEIGHT, revision=timeframe)
    times = [row["open_at"] for row in rows]
    figure.add_trace(_volume(rows, times))
    figure.add_trace(
        go.Candlestick(
            name="bars",
            x=times,
            open=[row["open"] for row in rows],
            high=[row["high"] for row in rows],
            low=[row["low"] for row in rows],
            close=[row["close"] for row in rows],
            increasing={"line": {"color": UP, "width": 1}, "fillcolor": UP},
            decreasing={"line": {"color": DOWN, "width": 1}, "fillcolor": DOWN},
        )
    )
    shown = [pivot for pivot in pivots if times and pivot["pivot_at"] >= times[0]]
    if shown:
        figure.add_trace(_confirmations(shown))
    for level in sorted({pivot["level"] for pivot in shown}):
        figure.add_trace(_level(level, [pivot for pivot in shown if pivot["level"] == level]))
    told = ""
    if forecast is not None and rows:
        lies_ahead = forecast["pivot_ns"] > wording.nanoseconds(times[-1])
        figure.add_trace(_forecast(forecast, rows[-1], lies_ahead=lies_ahead))
        told = describe(forecast) if lies_ahead else "the newest forecast has passed"
    figure.update_layout(
        title={"text": _title(timeframe, told), "x": 0.01, "y": 0.98, "font": {"size": 13}},
        yaxis2={
            "overlaying": "y",
            "side": "left",
            "visible": False,
            "range": [0, 5 * max((row["volume"] or 0.0 for row in rows), default=0.0) or 1.0],
        },
        xaxis={"rangeslider": {"visible": False}},
    )
    return figure


def describe(forecast: Row) -> str:
    """Return in words what the CNN expects: kind, price, time ahead and confidence."""
    ahead_s = (forecast["pivot_ns"] - forecast["event_ns"]) / wording.SECOND_NS
    return (
        f"{KINDS[forecast['kind']]} {wording.price(forecast['price'])} "
        f"in {wording.duration(ahead_s)}, {wording.share(forecast['confidence'])} sure"
    )


def book(known: Row) -> go.Figure:
    """Return resting sizes by price bucket; a side the feed has not told reads as unknown."""
    figure = _figure(BOOK_HEIGHT, revision=known["symbol"])
    buckets = known["buckets"]
    for side, colour in (("asks", DOWN), ("bids", UP)):
        told = [bucket for bucket in buckets if bucket[side]]
        figure.add_trace(_sizes(told, side, colour))
    unknown = [b["price"] for b in buckets if b["bids"] is None or b["asks"] is None]
    if unknown:
        figure.add_trace(
            go.Scatter(
                name="unknown",
                x=[0] * len(unknown),
                y=unknown,
                mode="markers",
                marker={"symbol": "line-ns-open", "color": MUTED, "size": 6},
                hovertemplate="%{y:,.2f}: not known<extra></extra>",
            )
        )
    if known.get("bid") is not None and known.get("ask") is not None:
        middle = (known["bid"] + known["ask"]) / 2
        figure.add_hline(y=middle, line={"color": ACCENT, "width": 1, "dash": "dot"})
    figure.update_layout(barmode="overlay", bargap=0.15)
    return figure


def equity(rows: Sequence[Row]) -> go.Figure:
    """Return equity with its peak, and below it the drawdown [%]; rows in any order."""
    figure = make_subplots(
        rows=2, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06
    )
    _dress(figure, EQUITY_HEIGHT, revision="equity")
    ordered = sorted(rows, key=lambda row: row["event_ns"])
    times = [wording.iso(row["event_ns"]) for row in ordered]
    lines = (("equity", ACCENT, None), ("peak", MUTED, "dot"))
    for name, colour, dash in lines:
        values = [float(row[name]) for row in ordered]
        line = {"color": colour, "width": 1.6 if dash is None else 1, "dash": dash}
        figure.add_trace(go.Scatter(name=name, x=times, y=values, line=line), row=1, col=1)
    figure.add_trace(
        go.Scatter(
            name="drawdown",
            x=times,
            y=[-100 * float(row["drawdown"]) for row in ordered],
            line={"color": DOWN, "width": 1.2},
            fill="tozeroy",
            fillcolor="rgba(224,98,108,0.18)",
            hovertemplate="%{y:.3f} %<extra>drawdown</extra>",
        ),
        row=2,
        col=1,
    )
    figure.update_yaxes(title={"text": "drawdown [%]", "font": {"size": 10}}, row=2, col=1)
    return figure


def experts(shares: Mapping[str, float]) -> go.Figure:
    """Return the weights of the experts as one bar."""
    figure = _figure(46, revision="experts")
    colours = {"cnn": FORECAST, "rl": ACCENT, "flat": MUTED}
    for name, value in shares.items():
        figure.add_trace(
            go.Bar(
                name=name,
                x=[value],
                y=["weights"],
                orientation="h",
                marker={"color": colours.get(name, TEXT)},
                text=f"{name} {wording.share(value)}",
                textposition="inside",
                insidetextanchor="middle",
                textfont={"color": "#10151d", "size": 11},
                hovertemplate=f"{name} {wording.share(value, decimals=1)}<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", margin={"l": 0, "r": 0, "t": 4, "b": 4})
    figure.update_xaxes(visible=False, range=[0, 1])
    figure.update_yaxes(visible=False)
    return figure


def _figure(height: int, *, revision: str) -> go.Figure:
    return _dress(go.Figure(), height, revision=revision)


def _dress(figure: go.Figure, height: int, *, revision: str) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 6, "r": 6, "t": 30, "b": 6},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "size": 11},
        hovermode="closest",
        uirevision=revision,  # what a person zoomed into stays when newer data comes
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(
        gridcolor=GRID, zeroline=False, side="right", automargin=True, tickformat=",.5~f"
    )
    return figure


def _title(timeframe: str, told: str) -> str:
    return f"<b>{timeframe}</b>  <span style='color:{FORECAST};font-size:11px'>{told}</span>"


def _volume(rows: Sequence[Row], times: Sequence[str]) -> go.Bar:
    return go.Bar(
        name="volume",
        x=times,
        y=[row["volume"] for row in rows],
        yaxis="y2",
        marker={"color": "rgba(138,148,166,0.28)", "line": {"width": 0}},
        hovertemplate="volume %{y:,.4f}<extra></extra>",
    )


def _confirmations(pivots: Sequence[Row]) -> go.Scatter:
    times: list[str | None] = []
    prices: list[float | None] = []
    for pivot in pivots:
        times += [pivot["pivot_at"], pivot["confirm_at"], None]
        prices += [pivot["price"], pivot["price"], None]
    return go.Scatter(
        name="confirmation",
        x=times,
        y=prices,
        mode="lines",
        line={"color": "rgba(240,179,90,0.45)", "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )


def _level(level: int, pivots: Sequence[Row]) -> go.Scatter:
    return go.Scatter(
        name=f"level {level}",
        x=[pivot["pivot_at"] for pivot in pivots],
        y=[pivot["price"] for pivot in pivots],
        mode="markers",
        marker={
            "symbol": [SYMBOLS[pivot["kind"]] for pivot in pivots],
            "color": LEVEL_COLOURS[level],
            "size": LEVEL_SIZES[level],
        },
        text=[
            f"level {level} {KINDS[p['kind']]} {wording.price(p['price'])}<br>"
            f"at {wording.moment(p['pivot_at'])}<br>confirmed {wording.moment(p['confirm_at'])}"
            for p in pivots
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def _forecast(forecast: Row, last: Row, *, lies_ahead: bool) -> go.Scatter:
    colour = FORECAST if lies_ahead else MUTED
    at = wording.iso(forecast["pivot_ns"])
    start = [(last["open_at"], last["close"])] if lies_ahead else []
    points = [*start, (at, forecast["price"])]
    return go.Scatter(
        name="forecast" if lies_ahead else "passed forecast",
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines+markers",
        line={"color": colour, "width": 1.4, "dash": "dash"},
        marker={
            "symbol": [*("circle" for _ in start), "diamond"],
            "size": [*(3 for _ in start), 11],
            "color": colour,
            "opacity": 0.95,
        },
        text=[describe(forecast)] * len(points),
        hovertemplate="CNN: %{text}<extra></extra>",
    )


def _sizes(buckets: Sequence[Row], side: str, colour: str) -> go.Bar:
    return go.Bar(
        name=side,
        x=[bucket[side] for bucket in buckets],
        y=[bucket["price"] for bucket in buckets],
        orientation="h",
        marker={"color": colour, "opacity": 0.75, "line": {"width": 0}},
        hovertemplate=f"{side} %{{x:,.4f}} at %{{y:,.2f}}<extra></extra>",
    )
