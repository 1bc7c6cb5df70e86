"""What `up` tells people while it works."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from alphapulse.storage.home import Run


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
    if status["lost"]:
        parts.append(f"{status['lost']} records lost")
    return "  ".join(parts)


def summary(
    run: Run,
    *,
    trader: Mapping[str, Any],
    feed: Mapping[str, Any],
    learning: Mapping[str, Any],
    num_errors: int,
    started_at_s: float,
) -> dict[str, Any]:
    """Return what an `up` has done, as it is printed at its end; money is text.

    Args:
        run: the run it worked on.
        trader: status of the trader; empty, as the next two, where none was started.
        feed: counters of the feed.
        learning: status of settlement and training.
        num_errors: errors logged in this `up`.
        started_at_s: when it began [s since the epoch].
    """
    first = trader.get("first_at_s")
    settlement, training = learning.get("settlement", {}), learning.get("training", {})
    return {
        "source": run.manifest.source,
        "recording": run.manifest.recording,
        "run": run.id,
        "from": iso(trader.get("from_ns")),
        "to": iso(trader.get("to_ns")),
        "events": feed.get("events", 0),
        "bars": feed.get("bars", {}),
        "decisions": trader.get("decisions", {}),
        "inferences": trader.get("inferences", {}),
        "incomplete": trader.get("incomplete", 0),
        "settled": settlement.get("settled", 0),
        "examples": settlement.get("examples", 0),
        "training_rounds": training.get("rounds", 0),
        "promotions": training.get("promotions", 0),
        "hot_swaps": trader.get("hot_swaps", 0),
        "orders": trader.get("orders", 0),
        "fills": trader.get("fills", 0),
        "pnl": trader.get("pnl", {"gross": "0", "fees": "0", "net": "0"}),
        "halts": trader.get("halts", 0),
        "is_halted": trader.get("is_halted", False),
        "errors": num_errors,
        "first_decision_s": None if first is None else round(first - started_at_s, 2),
        "wall_s": round(time.time() - started_at_s, 2),
        "decision_ms": trader.get("decision_ms", {"p50": None, "p99": None}),
    }
