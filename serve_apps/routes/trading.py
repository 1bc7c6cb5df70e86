"""Look at orders and risk; halt trading and resume it."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from serve_apps.doors import Behind, Limit
from serve_apps.plain import plain

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
