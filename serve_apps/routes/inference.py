"""Ask for decisions and for what was inferred, and set when the orchestrator acts."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from alphapulse import interfaces
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import Prediction, Thresholds, inference_id, trace_id
from alphapulse.domain.inputs import IncompleteInput
from alphapulse.domain.market import Timeframe
from serve_apps.doors import MAX_ROWS, Behind, Limit
from serve_apps.plain import plain
from serve_apps.problems import problem

router = APIRouter()
ModelName = Literal["cnn", "rl", "moe"]
Said = Literal["buy", "sell", "hold"]
_SAID = ("version", "p_buy", "p_sell", "p_hold", "confidence", "utility_r")


class ThresholdsBody(BaseModel):
    """New thresholds; 0 <= exit <= entry <= 1."""

    model_config = ConfigDict(extra="forbid")
    entry: float = Field(ge=0, le=1)
    exit: float = Field(ge=0, le=1)


class DecideBody(BaseModel):
    """Which instrument to decide about."""

    model_config = ConfigDict(extra="forbid")
    symbol: str


class Filters(BaseModel):
    """Which rows, and which page of them; what is not named here is refused."""

    model_config = ConfigDict(extra="forbid")
    run: str | None = None
    symbol: str | None = None
    model: ModelName | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    limit: int = Field(100, ge=1, le=MAX_ROWS)
    after: str | None = Field(None, description="`next` of the page before")


class OfPredictions(Filters):
    """Which forecasts."""

    timeframe: Timeframe | None = None
    outcome: Literal["hit", "missed", "pending", "void"] | None = None
    min_confidence: float | None = Field(None, ge=0, le=1)
    max_confidence: float | None = Field(None, ge=0, le=1)


class OfInferences(OfPredictions):
    """Which inferences."""

    action: Said | None = None
    decision: Said | None = None


class OfOutcomes(Filters):
    """Which outcomes."""

    timeframe: Timeframe | None = None
    action: Said | None = None


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
async def inferences(behind: Behind, asked: Annotated[OfInferences, Query()]) -> Any:
    """Return a page of inferences; with a timeframe, of the forecasts of that timeframe."""
    return await behind.page("predictions" if asked.timeframe else "inferences", asked)


@router.get("/inferences/last")
async def last(behind: Behind, symbol: str | None = None, model: ModelName | None = None) -> Any:
    """Return what every model, or one, said last of every symbol, or one; from memory."""
    behind.known(symbol)
    said = await behind.history.last(model)
    wanted = [p for name, rows in said.items() if symbol in (None, name) for p in rows]
    return plain([_told(prediction, behind.run["id"]) for prediction in wanted])


@router.get("/inferences/{id}")
async def inference(behind: Behind, id: str) -> Any:
    """Return all that is kept of an inference; its input is rebuilt and checked."""
    shown = await behind.history.show(id)
    if shown is None:
        return problem(
            404,
            code="NotFound",
            expected="the id of a stored inference",
            came=id[:200],
            remedy="list ids with GET /inferences",
        )
    return plain(shown)


@router.get("/predictions")
async def predictions(behind: Behind, asked: Annotated[OfPredictions, Query()]) -> Any:
    """Return a page of forecasts, of all timeframes or one."""
    return await behind.page("predictions", asked)


@router.get("/outcomes")
async def outcomes(behind: Behind, asked: Annotated[OfOutcomes, Query()]) -> Any:
    """Return a page of what came of predictions and actions."""
    return await behind.page("outcomes", asked)


@router.get("/examples")
async def examples(behind: Behind, asked: Annotated[Filters, Query()]) -> Any:
    """Return a page of what came of inferences as a whole."""
    return await behind.page("examples", asked)


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


def _told(prediction: Prediction, run: str) -> dict[str, Any]:
    """Return a prediction as a route tells it, with the id the history keeps it under."""
    about = {name: getattr(prediction, name) for name in ("symbol", "event_ns", "model")}
    said = {name: getattr(prediction, name) for name in _SAID}
    return {
        "id": inference_id(run=run, **about),
        **about,
        **said,
        "action": prediction.action.value,
        "weights": dict(prediction.weights),
        "forecasts": [asdict(forecast) for forecast in prediction.forecasts],
    }
