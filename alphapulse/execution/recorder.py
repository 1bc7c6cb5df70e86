"""Hand records to the store so that a decision is acknowledged or flagged, and never stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.logs import describe, get_logger

log = get_logger("execution")
RETRY_S = 0.25  # between two tries while the store does not answer


class Recorder:
    """Appends records, at once or as soon as the store answers again.

    While it fails they wait in memory, flagged. Beyond `max_pending` records the oldest is lost and
    logged with its trace id, never silently.
    """

    def __init__(
        self,
        append: Callable[[Sequence[DecisionRecord]], Awaitable[int]],
        *,
        timeout_s: float,
        max_pending: int,
    ) -> None:
        self._append = append
        self._timeout_s = timeout_s
        self._max_pending = max_pending
        self._pending: deque[DecisionRecord] = deque()
        self._sending: list[DecisionRecord] = []  # of the pending ones, on their way
        self._retry: asyncio.Task[None] | None = None
        self.flagged = 0
        self.lost = 0

    @property
    def num_pending(self) -> int:
        """Return how many records wait for the store."""
        return len(self._pending) + len(self._sending)

    async def record(self, records: Sequence[DecisionRecord]) -> bool:
        """Return whether the records are durable now; if not they are flagged and kept."""
        if not self.num_pending and await self._try(records):
            return True
        self.flagged += len(records)
        self._keep(records)
        if self._retry is None or self._retry.done():
            self._retry = asyncio.create_task(self._drain())
        return False

    async def close(self, *, timeout_s: float) -> int:
        """Return how many records are still not durable after at most `timeout_s` of waiting."""
        if self._retry is not None and not self._retry.done():
            await asyncio.wait([self._retry], timeout=timeout_s)
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)
        for record in self._pending:
            log.error(
                "record lost",
                code="RecordLost",
                trace_id=record.trace_id,
                reason=f"{record.decision.symbol} at {record.decision.event_ns}: "
                "the store did not answer in time",
                remedy="run `alphapulse up` again on the same recording: "
                "the decision is made and stored anew",
            )
        return len(self._pending)

    async def _try(self, records: Sequence[DecisionRecord]) -> bool:
        try:
            await asyncio.wait_for(self._append(records), self._timeout_s)
        except (AlphaPulseError, TimeoutError) as error:
            log.error(
                "inference not stored",
                **describe(error),
                trace_id=records[0].trace_id,
                remedy="decisions go on and are kept in memory; "
                "see `alphapulse doctor` for the disk and the store",
            )
            return False
        return True

    def _keep(self, records: Sequence[DecisionRecord]) -> None:
        self._pending.extend(records)
        while len(self._pending) > self._max_pending:
            dropped = self._pending.popleft()
            head = self._pending[0]  # the closed rows it carried for all that follow go with it
            self._pending[0] = replace(head, rows=dropped.rows + head.rows)
            self.lost += 1
            log.error(
                "record lost",
                code="RecordLost",
                trace_id=dropped.trace_id,
                reason=f"more than {self._max_pending} records wait for the store",
                remedy="bring the store back, or raise storage.retry_records",
            )

    async def _drain(self) -> None:
        while self._pending:
            self._sending = [self._pending.popleft() for _ in range(min(50, len(self._pending)))]
            try:
                stored = await self._try(self._sending)
            except asyncio.CancelledError:
                self._put_back()
                raise
            if stored:
                self._sending = []
            else:
                self._put_back()
                await asyncio.sleep(RETRY_S)
        log.info("store answers again", flagged=self.flagged, lost=self.lost)

    def _put_back(self) -> None:
        self._pending.extendleft(reversed(self._sending))
        self._sending = []
        self._keep(())
