"""Make rows of the tables that are appended beside the inferences; an id is that of its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from alphapulse.domain.learning import TrainingRound
from alphapulse.domain.status import Alert
from alphapulse.storage.run import now
from alphapulse.storage.tables import ALL


def round_row(round: TrainingRound) -> dict[str, Any]:
    """Return what is known of a training round now as a row of `training_rounds`."""
    row = asdict(round)
    for name in ("run", "job"):
        del row[name]
    row |= {"event_ns": row.pop("confirm_ns"), "symbol": ALL, "state": round.state.value}
    row["figures"] = json.dumps(row["figures"], sort_keys=True)
    return {"id": _id(round.run, json.dumps(row, sort_keys=True)), **row}


def alert_row(alert: Alert, run: str) -> dict[str, Any]:
    """Return an alert that begins as a row of `alerts`."""
    return {
        "id": _id(run, alert.code, alert.event_ns),
        "symbol": ALL,
        "event_ns": alert.event_ns,
        "code": str(alert.code),
        "message": alert.message,
        "remedy": alert.remedy,
        "raised_at": now(),
    }


def _id(*content: object) -> str:
    return hashlib.sha256("|".join(map(str, content)).encode()).digest()[:16].hex()
