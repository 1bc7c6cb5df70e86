"""Hand records to the store so that a decision is acknowledged or flagged, and never stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.execution.outages import Note, Outages, to_nobody
from alphapulse.execution.waiting import NoSpill, Spill, Waiting
from alphapulse.logs import describe, get_logger

log = get_logger("execution")
RETRY_S = 0.25  # between two tries while the store does not answer
SLOW_SHARE = 0.5  # of `timeout_s`: an append that took longer makes the next decisions not wait
TELL_S = 30.0  # between two log lines about the same failure
Append = Callable[[Sequence[DecisionRecord]], Awaitable[int]]


@dataclass(slots=True)
class _Sent:
    """An append under way."""

    batch: Sequence[DecisionRecord]
    task: asyncio.Task[bool]
    since_s: float


class Recorder:
    """Appends records, at once or as soon as the store answers again.

    A decision waits once for a store that fails, at most `timeout_s`. From then on records are
    flagged and queued, until the store has all of them: first in memory, then in the spill, which
    survives a kill. What neither can hold is reported lost by its ids, never silently.

    ```python
    recorder = Recorder(history.append, timeout_s=5, max_pending=2000, spill=spill)
    await recorder.recover(timeout_s=60)      # what an earlier process left in the spill
    durable = await recorder.record(records)
    await recorder.close(timeout_s=60)
    ```

    Attributes:
        flagged: records that were not durable when their decision went on, those found included.
    """

    def __init__(
        self,
        append: Append,
        *,
        timeout_s: float,
        max_pending: int,
        spill: Spill | None = None,
        spill_after_s: float = 2.0,
        give_up_s: float = 60.0,
        note: Note = to_nobody,
    ) -> None:
        """Keep where records go.

        Args:
            append: makes records durable in the store; a repeated one changes nothing there.
            timeout_s: how long a decision waits for it.
            max_pending: records kept in memory; from half of it on they are spilled.
            spill: takes records the store does not; None where the process keeps no such file.
            spill_after_s: how long the store may fail before all that waits is spilled.
            give_up_s: after which an append without an answer is made again.
            note: keeps what happened, once the store answers again.
        """
        self._append = append
        self._timeout_s = timeout_s
        self._spill_after_s = spill_after_s
        self._give_up_s = give_up_s
        self._outages = Outages(note)
        self._waiting = Waiting(
            spill or NoSpill(), max_records=max_pending, lose=self._outages.lose
        )
        self._sent: _Sent | None = None
        self._worker: asyncio.Task[None] | None = None
        self._failing_since_s: float | None = None
        self._is_slow = False
        self._has_looked = False  # for what an earlier process left
        self._told = ("", 0.0)  # the failure logged last, and when
        self.flagged = 0
        self._recovered = 0

    @property
    def num_pending(self) -> int:
        """Return how many records wait for the store, in memory or in the spill."""
        return len(self._waiting)

    @property
    def lost(self) -> int:
        """Return how many records neither store nor memory nor spill could hold."""
        return self._outages.lost

    def counters(self) -> dict[str, int]:
        """Return what became of the records that were not durable at once.

        `flagged` is the sum of `pending`, `recovered` and `lost`; `spilled` of the pending ones are
        in the spill.
        """
        return {
            "flagged": self.flagged,
            "pending": self.num_pending,
            "spilled": self._waiting.num_spilled,
            "recovered": self._recovered + self._waiting.repeated,
            "lost": self.lost,
        }

    async def recover(self, *, timeout_s: float) -> int:
        """Hand over what an earlier process left in the spill and return how much still waits.

        It takes as long as the store takes records, or until it has failed for `timeout_s`. To be
        called before the first `record`, so that what is older comes first; again does nothing.
        """
        if self._has_looked:
            return self.num_pending
        self._has_looked = True
        self.flagged += await self._waiting.find()
        if not self._waiting:
            return 0
        log.warning("records found in the spill", code="RecordsSpilled", records=self.num_pending)
        worker = self._go_on()
        while not worker.done() and self._failing_s() < timeout_s:
            await asyncio.wait([worker], timeout=RETRY_S)
        return self.num_pending

    async def record(self, records: Sequence[DecisionRecord]) -> bool:
        """Return whether the records are durable now; if not they are flagged and kept."""
        if not self._waiting and not self._is_slow:
            if await self._stored_in_time(records):
                return True
        else:
            self._waiting.add(records)
        self.flagged += len(records)
        self._outages.flag(records)
        self._go_on()
        return False

    async def close(self, *, timeout_s: float) -> int:
        """Return how many records the store has not taken after at most `timeout_s` of waiting.

        They are in the spill then, or reported by their ids.
        """
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=timeout_s)
            tasks = [self._worker, *([self._sent.task] if self._sent else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._waiting.spill()
        self._waiting.report_left()
        return self.num_pending

    async def _stored_in_time(self, records: Sequence[DecisionRecord]) -> bool:
        """Return whether the store took them while their decision waits; else they are kept."""
        sent = self._send(records)
        await asyncio.wait([sent.task], timeout=self._timeout_s)
        if not sent.task.done():
            self._waiting.keep(records)
            self._sent = sent  # it goes on; the worker hears how it ends
            error = TimeoutError(f"the store did not answer within {self._timeout_s:g} s")
            self._tell(error, records)
        elif not sent.task.result():
            self._waiting.add(records)
        return sent.task.done() and sent.task.result()

    def _send(self, records: Sequence[DecisionRecord]) -> _Sent:
        return _Sent(records, asyncio.create_task(self._try(records)), time.monotonic())

    async def _try(self, records: Sequence[DecisionRecord]) -> bool:
        began_s = time.monotonic()
        try:
            await self._append(records)
        except AlphaPulseError as error:
            self._tell(error, records)
            return False
        took_s = time.monotonic() - began_s
        if took_s > SLOW_SHARE * self._timeout_s and not self._is_slow:
            log.warning("store is slow: decisions do not wait for it", took_s=round(took_s, 3))
        self._is_slow = took_s > SLOW_SHARE * self._timeout_s
        return True

    def _go_on(self) -> asyncio.Task[None]:
        """Return the task that brings what waits to the store, started if none runs."""
        if self._worker is not None and self._worker.done():
            self._worker.result()  # a defect in it must not stay unheard
            self._worker = None
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        if self._worker is None:
            self._worker = asyncio.create_task(self._bring())
        return self._worker

    async def _bring(self) -> None:
        while self._waiting:  # once more, if a record came while the alerts were stored
            while self._waiting:
                if self._sent is None and (batch := await self._waiting.oldest()):
                    self._sent = self._send(batch)
                if not (self._sent and await self._heard(self._sent)):
                    await self._hold()
            self._failing_since_s = None
            log.info("store answers again", **self.counters())
            await self._outages.tell(self.counters())

    async def _heard(self, sent: _Sent) -> bool:
        """Return whether a batch was stored, within a moment."""
        await asyncio.wait([sent.task], timeout=RETRY_S)
        if not sent.task.done() and time.monotonic() - sent.since_s < self._give_up_s:
            return False
        stored = not sent.task.cancel() and sent.task.result()
        self._sent = None
        await self._waiting.settle(sent.batch, stored=stored)
        if stored:
            self._recovered += len(sent.batch)
            self._failing_since_s = time.monotonic()
        return stored

    async def _hold(self) -> None:
        """Let a moment pass while the store fails; what waits too long for it is spilled."""
        if self._waiting.is_half_full or self._failing_s() >= self._spill_after_s:
            await self._waiting.spill()
        if self._sent is None:
            await asyncio.sleep(RETRY_S)

    def _failing_s(self) -> float:
        since_s = self._failing_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _tell(self, error: Exception, records: Sequence[DecisionRecord]) -> None:
        """Log why records were not stored, not at each try."""
        reason, at_s = self._told
        if str(error) == reason and time.monotonic() - at_s < TELL_S:
            return
        self._told = (str(error), time.monotonic())
        log.error(
            "inference not stored",
            **describe(error),
            trace_id=records[0].trace_id,
            remedy="decisions go on, their records are kept in memory and in the spill; "
            "see `alphapulse doctor` for the disk and the store",
        )
