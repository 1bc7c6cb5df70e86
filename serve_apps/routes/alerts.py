"""Tell what a person must know now, each with what to do about it."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from alphapulse.data.alerts import feed_alerts
from alphapulse.domain.status import Alert
from serve_apps.doors import Behind
from serve_apps.plain import plain

NEAR = 0.8  # share of the drawdown limit from which on people are warned
router = APIRouter()


@router.get("/alerts")
async def alerts(behind: Behind) -> Any:
    """Return what a person must know now, each with what to do about it."""
    risk, market = await asyncio.gather(behind.trader.view("risk"), behind.market.view("snapshot"))
    found = trading_alerts(risk)
    found += feed_alerts(market, behind.settings.feed, event_ns=risk["event_ns"])
    return plain([asdict(alert) for alert in found])


def trading_alerts(risk: Mapping[str, Any]) -> list[Alert]:
    """Return what a person must know of the account: that it is halted, or nearly."""
    found = [
        Alert(
            "TradingHalted",
            halt["reason"],
            "look at the cause, then `alphapulse resume --reason TEXT`",
            halt["event_ns"],
        )
        for halt in risk["halts"]
        if halt["cleared_ns"] is None
    ]
    limit_pct, drawdown_pct = risk["limits"]["max_drawdown_pct"], 100 * float(risk["drawdown"])
    if NEAR * limit_pct <= drawdown_pct and not risk["is_halted"]:
        found.append(
            Alert(
                "DrawdownNear",
                f"drawdown {drawdown_pct:.2f} % of at most {limit_pct:g} %",
                "look at what is open; `alphapulse halt --reason TEXT` closes it",
                risk["event_ns"],
            )
        )
    return found
