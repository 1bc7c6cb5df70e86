"""What `up` tells people while it works."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def iso(ts_ns: int | None) -> str | None:
    """Return `ts_ns` [ns UTC] as ISO-8601 Z, None for None."""
    if ts_ns is None:
        return None
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")


def status_text(status: dict[str, Any]) -> str:
    """Return the one line that says where the run is."""
    parts = [
        f"{symbol} {iso(latest['event_ns'])} {latest['action']} {latest['confidence']:.2f}"
        for symbol, latest in status["latest"].items()
    ]
    made = sum(sum(actions.values()) for actions in status["decisions"].values())
    p50 = status["decision_ms"]["p50"]
    parts.append(f"{made} decisions" + (f", {p50:.0f} ms each" if p50 is not None else ""))
    if status["pending"]:
        parts.append(f"{status['pending']} records wait for the store")
    return "  ".join(parts)
