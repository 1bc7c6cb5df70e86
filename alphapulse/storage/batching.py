"""Move what a journal holds to the lake, a bounded batch at a time, each once."""

from __future__ import annotations

from collections.abc import Callable

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.batch_report import BatchReport, report_of
from alphapulse.storage.lake.delta import Lake

MAX_BATCH_DECISIONS = 10_000  # bounds the memory of one commit after the lake was away for long


class Batching:
    """Knows which batches were reported; it is used by one thread.

    Attributes:
        is_waiting: whether the lake lacked something when this began.
    """

    def __init__(self, journal: Journal, lake: Lake, *, count: Callable[[int], None]) -> None:
        """Begin after the newest batch there is; `count` is told how many commits were made."""
        self._journal = journal
        self._lake = lake
        self._count = count
        self.is_waiting, self._reported = self._found()

    def flush(self) -> list[BatchReport]:
        """Move what is there now and return what was in each new batch.

        Raises StoreError if the lake does not take it, or the journal cannot be read.
        """
        journal = self._journal
        self._take()  # what an interrupted flush left behind
        there = journal.newest()  # what comes while this runs waits for the next call
        while batch := journal.name_batch(max_decisions=MAX_BATCH_DECISIONS):
            self._take()
            if all(batch.to[series] >= newest for series, newest in there.items()):
                break
        moved = journal.batches(after=self._reported)
        self._reported = max((batch.number for batch in moved), default=self._reported)
        return [report_of(journal, batch) for batch in moved]

    def _take(self) -> None:
        self._count(self._lake.take(self._journal, writer=self._journal.name()))

    def _found(self) -> tuple[bool, int]:
        """Return whether the lake lacks something of the run, and the newest batch there is.

        Where the journal cannot be read that is not known: the next flush sees.
        """
        try:
            counts, named = self._journal.counts(), self._journal.batches()
        except StoreError:
            return True, 0
        is_waiting = bool(counts["unbatched"] or counts["unbatched_rest"])
        return is_waiting, max((batch.number for batch in named), default=0)
