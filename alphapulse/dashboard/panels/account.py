"""Show the account: equity, result and drawdown, what risk allows and holds, what was traded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alphapulse.dashboard import charts, wording
from alphapulse.dashboard.panels.market import STILL
from alphapulse.dashboard.panels.reading import (
    Row,
    coloured,
    label,
    newest_first,
    section,
    table,
    trader,
)
from alphapulse.domain.status import Command, Snapshot
from alphapulse.interfaces import Panel


class AccountPanel(Panel):
    """The numbers of the account at a glance; one that is not there is said to be not known."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw equity, net result, drawdown and exposure."""
        risk = section(snapshot, canvas, "risk", empty="no account yet")
        if not risk:
            return None
        pnl = trader(snapshot).get("pnl") or {}
        limits = risk.get("limits") or {}
        allowed = wording.percent(limits.get("max_drawdown_pct"))
        tiles = (
            (
                "equity",
                wording.price(risk.get("equity")),
                f"peak {wording.price(risk.get('peak'))}",
            ),
            (
                "net result",
                wording.signed(pnl.get("net")),
                f"gross {wording.signed(pnl.get('gross'))}, fees {wording.price(pnl.get('fees'))}",
            ),
            ("drawdown", wording.share(risk.get("drawdown"), decimals=2), f"halts at {allowed}"),
            (
                "exposure",
                wording.percent(risk.get("exposure_pct"), decimals=1),
                f"limit a symbol {wording.percent(limits.get('max_position_pct'))}",
            ),
        )
        for column, (name, value, note) in zip(canvas.columns(len(tiles)), tiles, strict=True):
            column.metric(
                label(snapshot, name),
                value,
                note,
                delta_color="off",
                delta_arrow="off",
                border=True,
            )
        return None


class EquityPanel(Panel):
    """Equity against its peak, and the drawdown below it."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the chart, or that there is no equity yet."""
        rows = section(snapshot, canvas, "equity", empty="no equity yet")
        if rows:
            canvas.plotly_chart(charts.equity(rows), theme=None, key="equity", config=STILL)
        return None


class RiskPanel(Panel):
    """Whether trading is halted, drawdown against its limit, and open positions with stops."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw a halt, the limits and the positions."""
        risk = section(snapshot, canvas, "risk", empty="no risk figures yet")
        if risk:
            if risk["is_halted"]:
                canvas.markdown(coloured("**Trading is halted**: no position is opened.", "red"))
            self._limits(risk, canvas)
        canvas.markdown("##### Open positions")
        positions = section(snapshot, canvas, "positions", empty="no open positions")
        if positions:
            table(canvas, [self._position(row) for row in positions])
        return None

    def _limits(self, risk: Row, canvas: Any) -> None:
        limits: Mapping[str, Any] = risk.get("limits") or {}
        drawdown, allowed = risk.get("drawdown"), limits.get("max_drawdown_pct")
        if drawdown is None or not allowed:
            canvas.caption("drawdown against its limit: not known")
        else:
            used = 100 * float(drawdown) / float(allowed)
            canvas.progress(
                min(1.0, used / 100),
                text=(
                    f"drawdown {wording.share(drawdown, decimals=2)} of "
                    f"{wording.percent(allowed)} allowed"
                ),
            )
        canvas.caption(
            f"risk an entry {wording.percent(limits.get('risk_pct'), decimals=2)} of equity "
            f"&nbsp;·&nbsp; stop at {limits.get('stop_r', wording.NONE)} R "
            f"&nbsp;·&nbsp; at most {wording.percent(limits.get('max_position_pct'))} of equity in "
            f"a symbol &nbsp;·&nbsp; open now "
            f"{wording.percent(risk.get('exposure_pct'), decimals=1)}"
        )

    def _position(self, row: Row) -> Row:
        return {
            "symbol": row["symbol"],
            "quantity": wording.quantity(row["quantity"]),
            "entry": wording.price(row["entry_price"]),
            "since": wording.time_of_day(row["entry_ns"]),
            "price": wording.price(row["price"]),
            "stop": wording.price(row["stop_price"], none="no stop"),
            "unrealised": wording.signed(row["unrealised"]),
        }


class OrdersPanel(Panel):
    """The newest orders with their verdict, and the newest fills."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw both tables."""
        left, right = canvas.columns([3, 2])
        left.markdown("##### Orders")
        orders = section(snapshot, left, "orders", empty="no orders yet")
        if orders:
            table(left, [self._order(row) for row in newest_first(orders)])
        right.markdown("##### Fills")
        fills = section(snapshot, right, "fills", empty="no fills yet")
        if fills:
            table(right, [self._fill(row) for row in newest_first(fills)])
        return None

    def _order(self, row: Row) -> Row:
        state = {"filled": "green", "refused": "orange"}.get(row["state"], "gray")
        flag = "" if row["is_stored"] else " (its inference is not stored)"
        return {
            "time": wording.time_of_day(row["event_ns"]),
            "symbol": row["symbol"],
            "quantity": wording.quantity(row["quantity"]),
            "purpose": row["purpose"],
            "stop": wording.price(row["stop_price"], none=wording.NONE),
            "state": coloured(row["state"], state),
            "reason": wording.literal(row["reason"]) + flag,
        }

    def _fill(self, row: Row) -> Row:
        return {
            "time": wording.time_of_day(row["event_ns"]),
            "symbol": row["symbol"],
            "quantity": wording.quantity(row["quantity"]),
            "price": wording.price(row["price"]),
            "fee": wording.price(row["fee"]),
            "from": row["source"],
        }
