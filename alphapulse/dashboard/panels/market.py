"""Show the market: candles of every timeframe with pivots and forecasts, and the book."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from alphapulse.dashboard import charts
from alphapulse.dashboard.panels.reading import Row, section
from alphapulse.domain.market import TIMEFRAMES
from alphapulse.domain.status import Command, Snapshot
from alphapulse.interfaces import Panel

STILL = {"displayModeBar": False}
LEGEND = (
    "▼ ▲ confirmed high and low, by level :gray[1] :orange[2] **3**; the dotted line ends at the "
    "bar that confirmed it &nbsp;·&nbsp; :violet[◆ the CNN's next pivot, at its time and price]"
)


class CandlesPanel(Panel):
    """The chosen symbol in four timeframes, with confirmed pivots and the CNN's next pivot.

    Attributes:
        memory: where the choice of the symbol is kept, under `symbol`.
    """

    def __init__(self, memory: MutableMapping[Any, Any]) -> None:
        self.memory = memory

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the choice and a chart a timeframe."""
        market = section(snapshot, canvas, "market", empty="no market data yet")
        if not market:
            return None
        self.memory.setdefault("symbol", snapshot.sections.get("symbol") or next(iter(market)))
        canvas.segmented_control(
            "symbol", list(market), key="symbol", label_visibility="collapsed", required=True
        )
        candles = section(snapshot, canvas, "candles", empty="no candles yet")
        if not candles:
            return None
        names = [timeframe.value for timeframe in TIMEFRAMES]
        for pair in (names[:2], names[2:]):
            for column, name in zip(canvas.columns(2), pair, strict=True):
                self._chart(snapshot, column, name)
        canvas.caption(LEGEND)
        return None

    def _chart(self, snapshot: Snapshot, canvas: Any, timeframe: str) -> None:
        sections = snapshot.sections
        rows = sections["candles"].get(timeframe)
        if not rows:
            canvas.caption(f"{timeframe}: no candles yet")
            return
        forecasts = sections.get("forecasts", {}).get(timeframe) or [None]
        figure = charts.candles(
            rows,
            timeframe=timeframe,
            pivots=sections.get("pivots", {}).get(timeframe) or (),
            forecast=forecasts[-1],
        )
        canvas.plotly_chart(figure, theme=None, key=f"candles {timeframe}", config=STILL)
        if forecasts[-1] is None:
            canvas.caption(f"{timeframe}: no forecast yet")


class BookPanel(Panel):
    """Resting sizes by price around the middle, for the chosen symbol."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the book, or that it is not known."""
        known: Row | None = section(snapshot, canvas, "book", empty="no order book yet")
        if not known:
            return None
        if not known["is_known"]:
            canvas.caption(f"{known['symbol']}: the book is not known at the moment")
            return None
        sides = [value for bucket in known["buckets"] for value in (bucket["bids"], bucket["asks"])]
        num_unknown = sum(value is None for value in sides)
        note = f"; {num_unknown} of {len(sides)} levels not known" if num_unknown else ""
        canvas.caption(f"{known['symbol']} :green[bids] and :red[asks] within 1 %{note}")
        canvas.plotly_chart(charts.book(known), theme=None, key="book", config=STILL)
        return None
