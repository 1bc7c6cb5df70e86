"""Show what the policy advises and the orchestrator decides, how sure, and why."""

from __future__ import annotations

import json
from typing import Any

from alphapulse.dashboard import charts, wording
from alphapulse.dashboard.panels.market import STILL
from alphapulse.dashboard.panels.reading import Row, action, label, newest_first, section, table
from alphapulse.domain.status import Command, Snapshot
from alphapulse.interfaces import Panel


class DecisionsPanel(Panel):
    """The newest decision a symbol with the experts' weights, then a table of the last ones."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw both, or that nothing was decided yet."""
        rows = section(snapshot, canvas, "decisions", empty="no decisions yet")
        if not rows:
            return None
        advice = {
            (row["symbol"], row["event_ns"]): row for row in snapshot.sections.get("advice") or ()
        }
        newest: dict[str, Row] = {}
        for row in rows:
            newest.setdefault(row["symbol"], row)
        order = list(snapshot.sections.get("market") or ())  # as on the rest of the page
        symbols = sorted(newest, key=lambda s: (order.index(s) if s in order else len(order), s))
        for column, symbol in zip(canvas.columns(len(symbols)), symbols, strict=True):
            row = newest[symbol]
            self._newest(snapshot, column, row, advice.get((symbol, row.get("event_ns"))))
        lines = [
            self._line(row, advice.get((row["symbol"], row["event_ns"])))
            for row in newest_first([row for row in rows if "event_ns" in row])
        ]
        if lines:
            table(canvas, lines)
        return None

    def _newest(self, snapshot: Snapshot, canvas: Any, row: Row, heard: Row | None) -> None:
        decided = _decided(row)
        canvas.markdown(
            f"{label(snapshot, row['symbol'])}: orchestrator **{action(decided['action'])}** "
            f"{wording.share(decided['confidence'])} sure, "
            f"{wording.words(decided['reason'], none='reason not known')} &nbsp;·&nbsp; "
            f"RL {_advice(heard)}"
        )
        if row.get("weights"):
            shares = json.loads(row["weights"])
            figure = charts.experts(shares)
            canvas.plotly_chart(figure, theme=None, key=f"experts {row['symbol']}", config=STILL)

    def _line(self, row: Row, heard: Row | None) -> Row:
        decided = _decided(row)
        return {
            "time": wording.time_of_day(row["event_ns"]),
            "symbol": row["symbol"],
            "RL advises": _advice(heard),
            "orchestrator prefers": f"{action(row['action'])} {wording.share(row['confidence'])}",
            "decided": action(decided["action"]),
            "why": wording.words(decided["reason"]),
            "gain expected [R]": wording.number(row.get("utility_r"), decimals=3, none="–"),
            "weights": wording.weights(row.get("weights")),
            "thresholds": (
                f"{wording.number(row.get('entry_threshold'), decimals=2, none='–')} / "
                f"{wording.number(row.get('exit_threshold'), decimals=2, none='–')}"
            ),
        }


def _decided(row: Row) -> Row:
    return {
        "action": row.get("decision_action", row["action"]),
        "confidence": row.get("decision_confidence", row["confidence"]),
        "reason": row.get("decision_reason"),
    }


def _advice(heard: Row | None) -> str:
    if heard is None:
        return "not known"
    return f"{action(heard['action'])} {wording.share(heard['confidence'])}"
