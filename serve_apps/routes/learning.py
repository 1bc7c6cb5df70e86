"""Look at models and training rounds; promote a checkpoint and go back."""

import asyncio
import dataclasses
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from serve_apps.doors import Behind, Limit
from serve_apps.plain import plain

router = APIRouter()


class PromoteBody(BaseModel):
    """Which model is to answer with another checkpoint."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=3, max_length=500)
    model: Literal["cnn", "rl", "moe"]


@router.get("/models")
async def models(behind: Behind) -> Any:
    """Return every registered checkpoint, the ones that answer now, and the promotions."""
    live, promotions = await asyncio.gather(
        behind.trader.versions(), behind.trader.view("promotions")
    )
    rows = [dataclasses.asdict(entry) for entry in behind.registry.entries()]
    kept = [dataclasses.asdict(promotion) for promotion in promotions]
    return plain({"live": dict(live), "models": rows, "promotions": kept})


@router.post("/models/{checkpoint}/promote")
async def promote(behind: Behind, checkpoint: str, body: PromoteBody) -> Any:
    """Let a checkpoint answer from the next decision on."""
    promotion = await behind.trader.promote(body.model, checkpoint, reason=body.reason)
    behind.control.note("promote", target=checkpoint, detail=body.reason, asked_by="http")
    return plain(dataclasses.asdict(promotion))


@router.post("/models/rollback")
async def rollback(behind: Behind, body: PromoteBody) -> Any:
    """Let the checkpoint before the present one answer again from the next decision on."""
    promotion = await behind.trader.rollback(body.model, reason=body.reason)
    behind.control.note("rollback", target=body.model, detail=body.reason, asked_by="http")
    return plain(dataclasses.asdict(promotion))


@router.get("/training")
async def training(behind: Behind, limit: Limit = 50) -> Any:
    """Return the newest training rounds of this run with their verdicts, newest first."""
    rounds = behind.rounds.all(run=behind.run["id"], limit=limit)
    return plain({"rounds": [dataclasses.asdict(row) for row in reversed(rounds)]})
