"""Turn the state of the account into what a person must know, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from alphapulse.domain.quality import Explanation
from alphapulse.domain.status import Alert

NEAR = 0.8  # share of the drawdown limit from which on people are warned


class RiskCode(StrEnum):
    """What `GET /alerts` and the table `alerts` call it."""

    TRADING_HALTED = "TradingHalted"
    DRAWDOWN_NEAR = "DrawdownNear"


EXPLAINED: Mapping[RiskCode, Explanation] = {
    RiskCode.TRADING_HALTED: Explanation(
        "trading was halted by a person or a limit: what was open is closed, nothing is opened",
        "look at the cause, then `alphapulse resume --reason TEXT`",
    ),
    RiskCode.DRAWDOWN_NEAR: Explanation(
        "the drawdown comes near the limit at which trading halts",
        "look at what is open; `alphapulse halt --reason TEXT` closes it",
    ),
}


def trading_alerts(risk: Mapping[str, Any]) -> list[Alert]:
    """Return what a person must know of the account: that it is halted, or nearly.

    Args:
        risk: what `Desk.risk` says.
    """
    found = [
        _alert(RiskCode.TRADING_HALTED, halt["reason"], halt["event_ns"])
        for halt in risk["halts"]
        if halt["cleared_ns"] is None
    ]
    limit_pct, drawdown_pct = risk["limits"]["max_drawdown_pct"], 100 * float(risk["drawdown"])
    if NEAR * limit_pct <= drawdown_pct and not risk["is_halted"]:
        told = f"drawdown {drawdown_pct:.2f} % of at most {limit_pct:g} %"
        found.append(_alert(RiskCode.DRAWDOWN_NEAR, told, risk["event_ns"]))
    return found


def _alert(code: RiskCode, message: str, event_ns: int) -> Alert:
    return Alert(code, message, EXPLAINED[code].remedy, event_ns)
