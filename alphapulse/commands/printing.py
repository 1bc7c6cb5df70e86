"""Print what a command answers: one JSON object, or tables for people."""

from __future__ import annotations

import json
from typing import Any

SHOWN = {
    "inferences": ("id", "event_ns", "symbol", "model", "action", "confidence", "decision_reason"),
    "predictions": (
        *("event_ns", "symbol", "timeframe", "level", "kind", "price"),
        *("pivot_ns", "p_done", "confidence"),
    ),
    "outcomes": (
        *("event_ns", "known_ns", "symbol", "model", "timeframe", "level"),
        *("kind", "action", "reason", "hit", "result"),
    ),
    "examples": (
        *("event_ns", "known_ns", "symbol", "model", "state"),
        *("hit", "loss", "stratum"),
    ),
    "orders": ("event_ns", "symbol", "purpose", "order_id", "inference_id"),
    "training_rounds": ("event_ns", "model", "trigger", "state", "num_compared", "reason"),
    "alerts": ("event_ns", "symbol", "code", "message", "remedy"),
    "recordings": ("path", "replay", "content_hash", "reason"),
    "files": (
        *("file", "rows", "first_ns", "last_ns"),
        *("gaps", "missing", "longest_gap_s", "complete_pct"),
    ),
}


def print_answer(answer: dict[str, Any], as_json: bool) -> None:
    """Print `answer` as JSON, or for people: a list of rows as a table, the rest as pairs."""
    if as_json:
        print(json.dumps(answer))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    pairs = Table(show_header=False)
    pairs.add_column()
    pairs.add_column(overflow="fold")  # a path or a hash is of no use cut short
    for key, value in answer.items():
        if not isinstance(value, list):
            pairs.add_row(key, _value(key, value))
            continue
        rows = Table(title=key)
        for name in value[0] if value else ["nothing"]:
            rows.add_column(name, overflow="fold")
        for row in value:
            rows.add_row(*(_cell(name, cell) for name, cell in row.items()))
        console.print(rows, markup=False)
    if pairs.row_count:
        console.print(pairs, markup=False)


def _value(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value, indent=1)
    return _cell(name, value) if name.endswith("_ns") else str(value)


def _cell(name: str, value: Any) -> str:
    """Return `value` for a table: times as ISO-8601 Z, prices and shares to six digits."""
    if name.endswith("_ns") and isinstance(value, int):
        from datetime import UTC, datetime

        when = datetime.fromtimestamp(value // 1_000_000 / 1e3, UTC)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
