"""Own the inference history of a run: one writer, acknowledged when durable."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.launch import Launch
from alphapulse import logs
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, Prediction
from alphapulse.domain.learning import Cursor, Followed, Outcome
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.lake.batch_report import BatchTotals

if TYPE_CHECKING:
    import pandas as pd

log = logs.get_logger("history")


class InferenceHistoryActor:
    """Holds the store of a run; a restarted one opens the same journal."""

    def __init__(self, launch: Launch) -> None:
        logs.configure(
            Path(launch.home) / "logs", process="inference_history", session=launch.session
        )
        home = Home(Path(launch.home))
        self._symbols = launch.settings.market.symbols
        self._history = InferenceHistory(
            home, run=home.run(launch.run_number), settings=launch.settings.storage
        )
        self._batches = BatchTotals()
        self._batch: asyncio.Task[int] | None = None
        self._upkeep: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make records durable and return how many were new; a batch may start behind it."""
        count = await self._history.append(records)
        log.info(
            "stored",
            trace_id=records[0].trace_id,
            records=len(records),
            new=count,
            rows=sum(len(record.rows) for record in records),
        )
        if self._history.flush_due() and (self._batch is None or self._batch.done()):
            self._batch = asyncio.create_task(self.flush())
        return count

    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for."""
        return await self._history.query(query)

    async def show(self, inference_id: str) -> Mapping[str, Any] | None:
        """Return all that is kept of an inference, its input rebuilt; None if it is not stored."""
        shown = await self._history.show(inference_id)
        return None if shown is None else shown.as_dict()

    async def last(self, model: str | None = None) -> Mapping[str, tuple[Prediction, ...]]:
        """Return the newest durable predictions of each symbol that has one; of one model or all.

        The answer comes from memory.
        """
        found = {symbol: await self._history.last(symbol, model=model) for symbol in self._symbols}
        return {symbol: predictions for symbol, predictions in found.items() if predictions}

    async def at(self, event_ns: int) -> Mapping[str, tuple[Prediction, ...]]:
        """Return, by symbol, the predictions of the newest decision at or before `event_ns`."""
        found = {symbol: await self._history.at(symbol, event_ns) for symbol in self._symbols}
        return {symbol: predictions for symbol, predictions in found.items() if predictions}

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable and return how many were new."""
        return await self._history.settle(outcomes)

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make rows of a table beside the inferences durable and return how many were new."""
        return await self._history.note(table, rows)

    async def follow(self, after: Cursor, limit: int) -> Followed:
        """Return what was appended after a cursor, in order, at most `limit` decisions."""
        return await self._history.follow(after, limit)

    async def flush(self) -> int:
        """Move what waits to the lake and return the number of batches.

        After a failure (logged) it stays in the journal.
        """
        try:
            reports = await self._history.flush()
        except StoreError as error:
            log.error(
                "batch not moved",
                **logs.describe(error),
                remedy="the rows stay in the journal and go with the next batch; see its disk",
            )
            return 0
        for report in reports:
            self._batches.take(report)
            bytes = self._history.counters()["journal_bytes"]
            log.info("batch moved", journal_bytes=bytes, **report.plain())
        if self._upkeep is None or self._upkeep.done():
            self._upkeep = asyncio.create_task(self._keep_up())
        return len(reports)

    async def _keep_up(self) -> None:
        """Keep the lake quick to read, then within its limits: one after the other."""
        try:
            while await self._history.keep_up():
                pass
        except StoreError as error:
            log.error(
                "lake not kept up",
                **logs.describe(error),
                remedy="no row is touched; it is tried again after the next batch",
            )
        await self._prune_if_due()

    async def _prune_if_due(self) -> None:
        """Look at the limits if it is time; after a failure (logged) the next look goes on."""
        try:
            if not self._history.prune_due():
                return
            pruned = await self._history.prune()
        except StoreError as error:
            log.error(
                "limits not met",
                **logs.describe(error),
                remedy="nothing is lost: what was begun is finished at the next look",
            )
            return
        log.info("pruned", **asdict(pruned) | {"alerts": list(pruned.alerts)})

    async def metrics(self) -> Mapping[str, Any]:
        """Return the counters, and what the batches of this process held."""
        return {"counters": self._history.counters(), "batches": self._batches.plain()}

    async def end(self, ended_ns: int) -> None:
        """Write down that the source of the run has ended."""
        await self._history.mark_ended(ended_ns)

    async def counters(self) -> Mapping[str, int]:
        """Return what was stored, flushed and failed."""
        return self._history.counters()

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()
