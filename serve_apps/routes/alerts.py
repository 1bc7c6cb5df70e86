"""Tell what a person must know now, each with what to do about it."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from alphapulse.alerting import standing
from serve_apps.doors import Behind
from serve_apps.plain import plain

router = APIRouter()


@router.get("/alerts")
async def alerts(behind: Behind) -> Any:
    """Return what a person must know now, each with what to do about it.

    Of an actor that does not answer, the alert that says so is told.
    """
    found = await standing(behind.trader, behind.market, behind.history, behind.settings)
    return plain([asdict(alert) for alert in found.alerts])
