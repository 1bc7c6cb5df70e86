"""Look at orders and risk; halt trading and resume it."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from serve_apps.doors import Behind, Limit
from serve_apps.plain import plain

NEAR = 0.8  # share of the drawdown limit from which on people are warned
router = APIRouter()


class ReasonBody(BaseModel):
    """Why a person asks for it; it is kept."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=3, max_length=500)


@router.get("/orders")
async def orders(behind: Behind, limit: Limit = 100) -> Any:
    """Return the newest orders, refused ones with the reason, oldest first."""
    return plain(await behind.trader.view("orders", limit=limit))


@router.get("/fills")
async def fills(behind: Behind, limit: Limit = 100) -> Any:
    """Return the newest fills, oldest first; money is text."""
    return plain(await behind.trader.view("fills", limit=limit))


@router.get("/equity")
async def equity(behind: Behind, limit: Limit = 900) -> Any:
    """Return cash, equity, peak and drawdown at the newest instants, oldest first."""
    return plain(await behind.trader.view("equity", limit=limit))


@router.get("/positions")
async def positions(behind: Behind) -> Any:
    """Return what is open, at current prices."""
    return plain(await behind.trader.view("positions"))


@router.get("/risk")
async def risk(behind: Behind) -> Any:
    """Return the limits, where the account stands against them, and every halt."""
    return plain(await behind.trader.view("risk"))


@router.post("/halt")
async def halt(behind: Behind, body: ReasonBody) -> Any:
    """Halt trading: what is open is closed, nothing is opened until `resume`."""
    await behind.trader.halt(body.reason)
    behind.control.note("halt", target="trader", detail=body.reason, asked_by="http")
    return await risk(behind)


@router.post("/resume")
async def resume(behind: Behind, body: ReasonBody) -> Any:
    """Clear the halt; 422 if there is none."""
    await behind.trader.resume(body.reason)
    behind.control.note("resume", target="trader", detail=body.reason, asked_by="http")
    return await risk(behind)


@router.get("/alerts")
async def alerts(behind: Behind) -> Any:
    """Return what a person must know now, each with what to do about it."""
    stands, market = await asyncio.gather(risk(behind), behind.market.view("snapshot"))
    now_ns = stands["event_ns"]
    found = [
        {
            "code": "TradingHalted",
            "message": halt["reason"],
            "remedy": "look at the cause, then `alphapulse resume --reason TEXT`",
            "event_ns": halt["event_ns"],
        }
        for halt in stands["halts"]
        if halt["cleared_ns"] is None
    ]
    limit_pct, drawdown_pct = stands["limits"]["max_drawdown_pct"], 100 * stands["drawdown"]
    if NEAR * limit_pct <= drawdown_pct and not stands["is_halted"]:
        found.append(
            {
                "code": "DrawdownNear",
                "message": f"drawdown {drawdown_pct:.2f} % of at most {limit_pct:g} %",
                "remedy": "look at what is open; `alphapulse halt --reason TEXT` closes it",
                "event_ns": now_ns,
            }
        )
    found += [
        {
            "code": "FeedDown",
            "message": f"{symbol}: no events from the venue",
            "remedy": "check the network and the venue; no prediction is made until it answers",
            "event_ns": now_ns,
        }
        for symbol, state in market["symbols"].items()
        if state["is_down"]
    ]
    return found
