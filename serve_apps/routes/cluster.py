"""See how the cluster is, and start and stop its processes."""

import asyncio
import dataclasses
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from alphapulse import logs
from serve_apps.doors import Behind, Limit
from serve_apps.plain import plain

router = APIRouter()


@router.get("/ping")
async def ping() -> dict[str, str]:
    """Say that the door is open; the only route without a token."""
    return {"status": "ok"}


@router.get("/health")
async def health(behind: Behind) -> JSONResponse:
    """Return 200 if every process answers, else 503, with the state of each."""
    rows = await behind.processes()
    healthy = all(row["state"] == "running" for row in rows)
    body = {"status": "ok" if healthy else "degraded", "processes": rows}
    return JSONResponse(body, status_code=200 if healthy else 503)


@router.get("/ready")
async def ready(behind: Behind) -> JSONResponse:
    """Return 200 once a first decision was made, else 503."""
    status = await behind.trader.status()
    made = status["first_at_s"] is not None
    return JSONResponse({"ready": made}, status_code=200 if made else 503)


@router.get("/status")
async def status(behind: Behind) -> Any:
    """Return the run, the trader's tally, and the counters of feed, store and learning."""
    trader, feed, store, learning = await asyncio.gather(
        behind.trader.status(),
        behind.market.view("counters"),
        behind.history.counters(),
        behind.feedback.status(),
    )
    told = {"run": behind.run, "trader": trader, "feed": feed, "store": dict(store)}
    return plain(told | dict(learning))


@router.get("/errors")
async def errors(behind: Behind) -> Any:
    """Return the errors table: code, how often, first and last time, remedy."""
    return [dataclasses.asdict(row) for row in logs.read_errors(behind.home.logs_path)]


@router.get("/config")
async def config(behind: Behind) -> Any:
    """Return every setting in force; secrets are none of them."""
    return behind.settings.as_dict()


@router.get("/processes")
async def processes(behind: Behind) -> list[dict[str, Any]]:
    """Return name, kind, process id and state of every process, actor and replica."""
    rows = await behind.processes()
    return [*behind.wishes(rows), *rows]


@router.get("/processes/audit")
async def audit(behind: Behind, limit: Limit = 100) -> Any:
    """Return what people asked for, newest first."""
    return behind.control.audit(limit)


@router.post("/processes/{name}/{action}")
async def wish(behind: Behind, name: str, action: Literal["start", "stop"]) -> Any:
    """Start or stop a process; asking twice changes nothing, and all of it is kept."""
    changed = behind.wish(name, is_wanted=action == "start")
    rows = behind.wishes(await behind.processes())
    return next(row for row in rows if row["name"] == name) | {"changed": changed}
