"""Keep the records that wait for the store, in order: older ones in a spill, newer in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.execution.outages import Key, key_of, report_lost
from alphapulse.logs import get_logger

CHUNK = 50  # records that move in one piece
MAX_READS = 20  # times in a row the spill may fail to be read before what is in it is given up
log = get_logger("execution")


class Spill(Protocol):
    """Keeps records durably beside the store, in the order they came; StoreError if it cannot."""

    async def put(self, records: Sequence[DecisionRecord]) -> None:
        """Make records durable, all or none."""

    async def keys(self) -> list[Key]:
        """Return what is kept, oldest first; also after a restart."""

    async def get(self, keys: Sequence[Key]) -> list[DecisionRecord]:
        """Return the records of `keys` in that order, without those that are damaged."""

    async def drop(self, keys: Sequence[Key]) -> None:
        """Forget records."""


class NoSpill:
    """Takes nothing: what memory cannot hold is lost."""

    async def put(self, records: Sequence[DecisionRecord]) -> None:
        """Raise StoreError."""
        raise StoreError("spill: expected one, was none; this run keeps records in memory alone")

    async def keys(self) -> list[Key]:
        """Return nothing."""
        return []

    async def get(self, keys: Sequence[Key]) -> list[DecisionRecord]:
        """Return nothing."""
        return []

    async def drop(self, keys: Sequence[Key]) -> None:
        """Do nothing."""


class Waiting:
    """A queue of records: what is in the spill is older than what is in memory.

    So a kill takes the newest ones only, and those are made again.

    Attributes:
        repeated: number of records made again while they were in the spill; they are one there.
    """

    def __init__(
        self, spill: Spill, *, max_records: int, lose: Callable[[Sequence[Key], str], None]
    ) -> None:
        """Keep at most `max_records` in memory, beside those on their way to store or spill.

        `lose` is told which records nothing could hold, and why.
        """
        self._spill = spill
        self._max_records = max_records
        self._memory: deque[DecisionRecord] = deque()
        self._spilled: dict[Key, None] = {}
        self._sending = self._spilling = 0  # of the oldest in memory, on their way
        self._num_failed_reads = 0
        self._failure = ""  # of the spill, already logged
        self._lose = lose
        self.repeated = 0

    def __len__(self) -> int:
        return len(self._memory) + len(self._spilled)

    @property
    def num_spilled(self) -> int:
        """Return how many of them are in the spill."""
        return len(self._spilled)

    @property
    def is_half_full(self) -> bool:
        """Return whether memory holds half of what it may."""
        return 2 * len(self._memory) >= self._max_records

    async def find(self) -> int:
        """Take up what an earlier process left in the spill and return how many that are."""
        try:
            self._spilled = dict.fromkeys(await self._spill.keys())
        except StoreError as error:
            self._tell("spill not read", error)
        return len(self._spilled)

    def add(self, records: Sequence[DecisionRecord]) -> None:
        """Keep records; the oldest that moves nowhere is lost, with a word, beyond the bound."""
        self._memory.extend(records)
        while (
            len(self._memory) - (moving := max(self._sending, self._spilling)) > self._max_records
        ):
            dropped = self._memory[moving]
            del self._memory[moving]
            head = self._memory[moving]  # closed rows are sent once: the next one carries them
            self._memory[moving] = replace(head, rows=dropped.rows + head.rows)
            self._lose([key_of(dropped)], f"more than {self._max_records} records wait in memory")

    async def oldest(self) -> list[DecisionRecord]:
        """Return the records to send next, none if there are none or the spill cannot be read."""
        while self._spilled:
            keys = list(islice(self._spilled, CHUNK))
            records = await self._read(keys)
            if records or keys[0] in self._spilled:
                return records
        batch = list(islice(self._memory, CHUNK))
        self._sending = len(batch)
        return batch

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Keep records that are on their way already; nothing else may be waiting."""
        self._memory.extend(records)
        self._sending = len(records)

    async def settle(self, batch: Sequence[DecisionRecord], *, stored: bool) -> None:
        """Forget a batch the store has taken; keep one it has not."""
        if stored:
            keys = dict.fromkeys(map(key_of, batch))
            await self._forget([key for key in keys if key in self._spilled])
            while self._memory and key_of(self._memory[0]) in keys:
                self._memory.popleft()
        self._sending = 0

    async def spill(self) -> None:
        """Move what is in memory to the spill, as far as it takes it."""
        while self._memory:
            chunk = list(islice(self._memory, CHUNK))
            self._spilling = len(chunk)
            try:
                await self._spill.put(chunk)
            except StoreError as error:
                self._tell("not spilled", error)
                return
            finally:
                self._spilling = 0
            self._failure = ""
            num_before = len(self._spilled)
            self._spilled |= dict.fromkeys(map(key_of, chunk))
            self.repeated += len(chunk) - (len(self._spilled) - num_before)
            for _ in chunk:
                self._memory.popleft()
            self._sending = max(0, self._sending - len(chunk))

    def report_left(self) -> None:
        """Say by its ids which record is in memory alone when the process ends."""
        for record in self._memory:
            report_lost(key_of(record), "neither store nor spill took it in time")

    async def _read(self, keys: Sequence[Key]) -> list[DecisionRecord]:
        """Return the records of `keys` that can be read; the damaged ones are lost, with a word."""
        try:
            records = await self._spill.get(keys)
        except StoreError as error:
            self._tell("spill not read", error)
            self._num_failed_reads += 1
            if self._num_failed_reads == MAX_READS:
                keys, self._spilled = list(self._spilled), {}
                self._lose(keys, f"the spill cannot be read: {error}")
            return []
        self._num_failed_reads = 0
        read = set(map(key_of, records))
        if damaged := [key for key in keys if key not in read]:
            await self._forget(damaged)
            self._lose(damaged, "it is damaged in the spill, with the closed rows it carried")
        return records

    async def _forget(self, keys: Sequence[Key]) -> None:
        """Take `keys` out of the spill; if it cannot, the next start hands them over once more."""
        if not keys:
            return
        try:
            await self._spill.drop(keys)
        except StoreError as error:
            self._tell("spill not emptied", error)
        for key in keys:
            del self._spilled[key]

    def _tell(self, event: str, error: StoreError) -> None:
        """Log a failure of the spill, once as long as it stays the same."""
        if self._failure != str(error):
            self._failure = str(error)
            log.error(
                event,
                code="SpillFailing",
                reason=str(error),
                remedy="decisions go on; make room on the disk of the spill or mend it, or set "
                "storage.spill_dir to another disk, before memory is full (storage.retry_records)",
            )
