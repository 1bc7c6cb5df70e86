"""Ask for decisions and for what was inferred, and set when the orchestrator acts."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from alphapulse import interfaces
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import Thresholds, trace_id
from alphapulse.domain.inputs import IncompleteInput
from alphapulse.domain.market import Timeframe
from serve_apps.doors import MAX_ROWS, Behind, Limit
from serve_apps.plain import plain

router = APIRouter()


class ThresholdsBody(BaseModel):
    """New thresholds; 0 <= exit <= entry <= 1."""

    model_config = ConfigDict(extra="forbid")
    entry: float = Field(ge=0, le=1)
    exit: float = Field(ge=0, le=1)


class DecideBody(BaseModel):
    """Which instrument to decide about."""

    model_config = ConfigDict(extra="forbid")
    symbol: str


@router.post("/decide")
async def decide(behind: Behind, body: DecideBody) -> Any:
    """Decide on the newest input of a symbol; the history keeps only the trader's decisions."""
    behind.known(body.symbol)
    point = await behind.market.latest()
    input = point.inputs[body.symbol]
    if isinstance(input, IncompleteInput):
        raise Unavailable(f"input incomplete ({input.reason}): {'; '.join(input.missing)}")
    trace = trace_id(run=behind.run["id"], symbol=body.symbol, event_ns=point.event_ns)
    thresholds, versions = await asyncio.gather(
        behind.trader.thresholds(), behind.trader.versions()
    )
    decision = await behind.models["moe"].decide.remote(input, thresholds, trace, versions)
    return plain(
        {
            "symbol": decision.symbol,
            "event_ns": decision.event_ns,
            "trace_id": trace,
            "action": decision.action.value,
            "confidence": decision.confidence,
            "utility_r": decision.utility_r,
            "reason": decision.reason,
            "weights": dict(decision.of("moe").weights),
            "models": {
                p.model: {
                    "version": p.version,
                    "action": p.action.value,
                    "p_buy": p.p_buy,
                    "p_sell": p.p_sell,
                    "p_hold": p.p_hold,
                    "confidence": p.confidence,
                }
                for p in decision.predictions
            },
        }
    )


@router.get("/decisions")
async def decisions(
    behind: Behind,
    symbol: str | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    limit: Limit = 100,
) -> Any:
    """Return the newest decisions from the history."""
    return await behind.rows(
        interfaces.Query(
            run=behind.run["id"],
            symbol=behind.known(symbol),
            model="moe",
            from_ns=from_ns,
            to_ns=to_ns,
            limit=limit,
        )
    )


@router.get("/inferences")
async def inferences(
    behind: Behind,
    symbol: str | None = None,
    model: Literal["cnn", "rl", "moe"] | None = None,
    timeframe: Timeframe | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    limit: Limit = 100,
) -> Any:
    """Return the newest inferences; with a timeframe, the forecasts of that timeframe."""
    return await behind.rows(
        interfaces.Query(
            table="predictions" if timeframe else "inferences",
            symbol=behind.known(symbol),
            model=model,
            timeframe=timeframe,
            from_ns=from_ns,
            to_ns=to_ns,
            limit=limit,
        )
    )


@router.get("/outcomes")
async def outcomes(
    behind: Behind,
    symbol: str | None = None,
    model: Literal["cnn", "rl", "moe"] | None = None,
    timeframe: Timeframe | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    limit: Limit = 100,
) -> Any:
    """Return what came of the newest settled predictions and actions."""
    return await behind.rows(
        interfaces.Query(
            table="outcomes",
            symbol=behind.known(symbol),
            model=model,
            timeframe=timeframe,
            from_ns=from_ns,
            to_ns=to_ns,
            limit=limit,
        )
    )


@router.get("/accuracy")
async def accuracy(behind: Behind) -> Any:
    """Return how often each model was right, by timeframe, over the newest settled rows."""
    query = interfaces.Query(table="outcomes", run=behind.run["id"], limit=MAX_ROWS)
    frame = await behind.history.query(query)
    groups = frame.groupby(["model", "timeframe", "level"], sort=True)
    return plain(
        [
            {
                "model": model,
                "timeframe": timeframe,
                "level": level,
                "num": len(rows),
                "hit_rate": rows["hit"].mean(),
                "mean_result_r": rows["result"].mean(),
            }
            for (model, timeframe, level), rows in groups
        ]
    )


@router.get("/thresholds")
async def thresholds(behind: Behind) -> dict[str, float]:
    """Return the thresholds in force."""
    now = await behind.trader.thresholds()
    return {"entry": now.entry, "exit": now.exit}


@router.put("/thresholds")
async def set_thresholds(behind: Behind, body: ThresholdsBody) -> dict[str, float]:
    """Set the thresholds from the next decision on."""
    now = await behind.trader.thresholds(Thresholds(entry=body.entry, exit=body.exit))
    return {"entry": now.entry, "exit": now.exit}
