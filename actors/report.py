"""What `up` tells people: the status line and the summary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rich.table import Table


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


def summary_table(summary: dict[str, Any]) -> Table:
    """Return the summary for people."""
    table = Table(title="run summary", show_header=False)
    for key, value in summary.items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict) else str(value))
    return table
