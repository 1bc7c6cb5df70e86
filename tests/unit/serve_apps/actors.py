"""Actors as the HTTP door asks them, in this process; any of them may be away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from alphapulse import cluster
from alphapulse.domain.errors import Unavailable
from alphapulse.storage.counting import COUNTED

EVENT_NS = 1_723_161_600_000_000_000
GONE, HUNG = "gone", "hung"


class ActorHere:
    """An actor that answers what it was given, or is away, for a while or for good."""

    def __init__(self, name: str, **answers: Any) -> None:
        self.name = name
        self.away = ""
        self.noted: list[Mapping[str, Any]] = []
        self._answers = answers

    async def _call(self, what: str) -> Any:
        if self.away == HUNG:
            await asyncio.Event().wait()
        if self.away == GONE:
            raise Unavailable(f"{self.name}: expected an answer, was ActorDiedError")
        return self._answers[what]

    async def view(self, what: str) -> Any:
        return await self._call(what)

    async def status(self) -> Any:
        return await self._call("status")

    async def counters(self) -> Any:
        return await self._call("counters")

    async def metrics(self) -> Any:
        return await self._call("metrics")

    async def pid(self) -> Any:
        return await self._call("pid")

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        await self._call("pid")
        assert table == "alerts"
        self.noted += rows
        return len(rows)


def actors() -> dict[str, Any]:
    """Return all four, by name: trading is halted, the lake is behind, a feed is down."""
    store = dict.fromkeys(COUNTED, 0) | {"lake_down": 1, "unbatched": 30, "journal_bytes": 7}
    records = dict.fromkeys(("flagged", "pending", "spilled", "recovered", "lost"), 0)
    batches = {"num": 2, "rows": {}, "validation": {}, "completeness": {}, "lag_s": 0.0}
    risk = {
        "event_ns": EVENT_NS,
        "halts": [{"reason": "a test", "event_ns": EVENT_NS, "cleared_ns": None}],
        "limits": {"max_drawdown_pct": 10.0},
        "drawdown": "0",
        "is_halted": True,
    }
    snapshot = {
        "symbols": {"ETH/USDT": {"is_down": True}},
        "health": {"skew_ms": None, "symbols": {}},
        "refused": {},
        "substituted": {},
    }
    made = (
        ActorHere(cluster.TRADER, risk=risk, records=records, pid=1,
                  status=records | {"decisions": {"ETH/USDT": {"buy": 3}}}),
        ActorHere(cluster.MARKET_DATA, snapshot=snapshot, pid=2),
        ActorHere(cluster.INFERENCE_HISTORY, counters=store, pid=3,
                  metrics={"counters": store | {"appended": 5}, "batches": batches}),
        ActorHere(cluster.FEEDBACK, pid=4),
    )  # fmt: skip
    return {actor.name: actor for actor in made}
