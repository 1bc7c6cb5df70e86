"""Look at the market as the cluster sees it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from alphapulse.domain.market import Timeframe
from serve_apps.doors import Behind
from serve_apps.plain import plain

router = APIRouter()


@router.get("/snapshot")
async def snapshot(behind: Behind) -> Any:
    """Return the newest state of the market cache under one version number."""
    return plain(await behind.market.view("snapshot"))


@router.get("/candles")
async def candles(
    behind: Behind,
    symbol: str,
    timeframe: Timeframe,
    count: Annotated[int, Query(ge=1, le=600)] = 300,
) -> Any:
    """Return the newest closed bars and the forming one."""
    behind.known(symbol)
    return plain(
        await behind.market.view("candles", symbol=symbol, timeframe=timeframe, count=count)
    )


@router.get("/book")
async def book(behind: Behind, symbol: str) -> Any:
    """Return the book within one percent of the mid, in buckets; unknown levels are null."""
    behind.known(symbol)
    return plain(await behind.market.view("book", symbol=symbol))


@router.get("/pivots")
async def pivots(
    behind: Behind,
    symbol: str,
    timeframe: Timeframe,
    count: Annotated[int, Query(ge=1, le=2000)] = 300,
) -> Any:
    """Return the newest confirmed pivots of the Williams structure, all levels, oldest first."""
    behind.known(symbol)
    found = await behind.market.view("pivots", symbol=symbol, timeframe=timeframe)
    return plain(found[-count:])
