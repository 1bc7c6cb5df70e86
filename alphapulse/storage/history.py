"""Keep every inference: at once in the run's journal, in batches in the lake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from alphapulse.config import Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, Prediction
from alphapulse.domain.learning import Cursor, Followed, Outcome
from alphapulse.domain.pruning import Pruned
from alphapulse.interfaces import InferenceStore
from alphapulse.storage.asking.newest import Newest
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.batching import Batching
from alphapulse.storage.counting import Counters
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.following import follow
from alphapulse.storage.journal.group_commit import GroupCommit
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.writer import Journal, Write
from alphapulse.storage.lake.batch_report import BatchReport
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.upkeep import Upkeep
from alphapulse.storage.readable import ReadableHistory
from alphapulse.storage.retention.pruning import Pruning

URGENT_S = 60.0  # between two looks at the limits while the disk is below its watermark
_T = TypeVar("_T")


class InferenceHistory(ReadableHistory, InferenceStore):
    """The history of a home: one run is written, all are read; other processes may read along.

    ```python
    history = InferenceHistory(home, run=run, settings=settings.storage)
    await history.append([record])          # durable when it returns
    if history.flush_due():
        await history.flush()
    frame = await InferenceHistory(home, settings=settings.storage).query(Query(symbol="ETH/USDT"))
    ```

    Appends wait for nothing but the disk: a thread of their own runs them, another moves batches,
    and one more keeps the lake in order.
    """

    def __init__(self, home: Home, *, run: Run | None = None, settings: Storage) -> None:
        """Write the journal of `run`, new or not; without a run the history can only be read.

        It is opened at the first call, and anew after one that failed: a process that starts while
        the disk fails answers with StoreError, and well again once the disk is.
        """
        lake_uri = settings.lake_uri or str(home.path / "lake")
        lake = Lake(lake_uri)
        self._settings = settings
        self._pruning = Pruning(home, lake=lake, settings=settings)
        reader = HistoryReader(
            runs=home.path / "runs", lake_uri=lake_uri, archive_uri=self._pruning.archive_uri
        )
        super().__init__(home, reader)
        self._journal = self._journal_of(run) if run else None
        self._newest, self._knows_newest = Newest(), False
        # Counts are read beside the writer, so that asking for them never waits for an append.
        self._gauge = JournalReader(run.journal_path) if run else None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="lake")
        self._group = GroupCommit(self._journal, self._writer) if self._journal else None
        self._upkeep = Upkeep(Lake(lake_uri))
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        # Followed beside it too: settlement may be far behind.
        self._trail = JournalReader(run.journal_path) if run else None
        self._counted = Counters()
        count = partial(self._counted.add, "commits")
        self._batching = Batching(self._journal, lake, count=count) if self._journal else None
        is_waiting = self._batching is not None and self._batching.is_waiting
        self._waiting_since = time.monotonic() if is_waiting else None
        self._pruned_at: float | None = None

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make the records durable and return how many were new; the others change nothing.

        Raises StoreError if that is not certain; the same call may be made again: what was stored
        all the same changes nothing then.
        """
        new = await self._write(partial(self._own().appending, records))
        for record in records:
            self._newest.take(record.decision.predictions)
        self._counted.add("repeated", len(records) - new)
        return self._count_new("appended", new)

    def flush_due(self) -> bool:
        """Return whether the journal holds enough inferences, or old enough ones, for a batch."""
        if self._waiting_since is None or self._gauge is None:
            return False
        is_old = time.monotonic() - self._waiting_since >= self._settings.flush_s
        return is_old or self._gauge.counts()["unbatched"] >= self._settings.flush_rows

    async def flush(self) -> list[BatchReport]:
        """Move to the lake what it does not hold yet and return what was in each new batch.

        Raises StoreError if the lake does not take it; the next call tries again.
        """
        self._own()
        assert self._batching is not None
        self._waiting_since = None
        try:
            return await self._on(self._flusher, self._batching.flush)
        except StoreError:
            self._waiting_since = time.monotonic()
            raise

    async def keep_up(self) -> bool:
        """Do one piece of upkeep of the lake, beside everything else; return whether there was any.

        Raises StoreError if the lake cannot be reached; no row changes either way.
        """
        return await asyncio.get_running_loop().run_in_executor(self._keeper, self._upkeep.step)

    async def last(
        self, symbol: str | None = None, *, model: str | None = None
    ) -> tuple[Prediction, ...]:
        """Return the newest Prediction of this run by symbol and model, from memory.

        Those of a symbol come in the order its models answered. None is every symbol, every model;
        nothing that was said is left out, nothing that is not durable is in it. The first call
        reads the journal, and raises StoreError if it cannot.
        """
        if not self._knows_newest:
            self._newest.take(await self._on(self._writer, self._own().last_predictions))
            self._knows_newest = True
        return self._newest.find(symbol, model)

    async def at(self, symbol: str, event_ns: int) -> tuple[Prediction, ...]:
        """Return every model's Prediction for `symbol` as of an instant of this run [ns UTC].

        They are those of the newest decision at or before it; nothing, if there is none.
        """
        ask = partial(self._own().predictions_until, symbol, event_ns)
        return await self._on(self._writer, ask)

    async def last_decision(self, symbol: str) -> int | None:
        """Return the newest decision instant of `symbol` in this run [ns UTC], None if none."""
        return await self._on(self._writer, partial(self._own().last_decision, symbol))

    async def mark_ended(self, event_ns: int) -> None:
        """Keep, durably, that the run's source ended at `event_ns`: see `Run.ended_ns`."""
        await self._on(self._writer, partial(self._own().remark, "ended_ns", str(event_ns)))

    async def follow(self, after: Cursor, limit: int) -> Followed:
        """Return what this run appended after a cursor, up to `limit` decisions, in event order.

        With them come all closed bars first shown at or before the newest of these decisions.
        Where there is nothing new, the slice is empty and its cursor is `after`.

        ```python
        cursor = Cursor()
        while (found := await history.follow(cursor, 200)).events:
            cursor = found.cursor
        ```
        """
        self._own()
        assert self._trail is not None
        return await asyncio.to_thread(follow, self._trail, after=after, limit=limit)

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable, joined to inferences by id, and return how many were new.

        Raises StoreError if nothing of the call was stored; the same call may be made again.
        """
        new = await self._write(partial(self._own().settling, outcomes))
        return self._count_new("settled", new)

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make rows of `orders`, `examples`, `training_rounds` or `alerts` durable.

        Returns how many were new. A row has every column of its table but `run` and
        `schema_version`, which the journal knows. Raises StoreError if nothing of the call was
        stored; the same call may be made again.
        """
        new = await self._write(partial(self._own().noting, table, rows))
        return self._count_new("noted", new)

    def prune_due(self) -> bool:
        """Return whether it is time to look at the limits again; sooner while the disk is low."""
        if self._pruned_at is None:
            return self._pruning.is_wanted
        waited_s = time.monotonic() - self._pruned_at
        if waited_s < min(URGENT_S, self._settings.prune_s):
            return False
        is_time = waited_s >= self._settings.prune_s and self._pruning.is_wanted
        return is_time or self._pruning.is_urgent

    async def prune(self, *, dry_run: bool = False) -> Pruned:
        """Bring the whole home within its limits, in the background of appends and queries.

        What the newest look came to is in `counters` until the next one. Only the process that
        writes the home may call it, or, while none does, one that holds its lock.
        """
        if not dry_run:
            self._pruned_at = time.monotonic()
        pruned = await self._on(self._flusher, partial(self._pruning.prune, dry_run=dry_run))
        if not dry_run:
            self._counted.looked(pruned)
        return pruned

    def counters(self) -> dict[str, int]:
        """Return what this process appended, committed and failed at, and what the run holds."""
        return self._counted.plain() | (self._gauge.counts() if self._gauge else {})

    def close(self) -> None:
        """Wait for what is under way, then let go of every file."""
        self._writer.shutdown(wait=True)
        self._flusher.shutdown(wait=True)
        self._keeper.shutdown(wait=True)
        self._reader.close()
        for journal in (self._journal, self._gauge, self._trail):
            if journal:
                journal.close()

    def _journal_of(self, run: Run) -> Journal:
        lake_only = partial(self._reader.newest_in_lake, run.id)
        return Journal(run.journal_path, run=run.id, lake_only=lake_only)

    def _own(self) -> Journal:
        if self._journal is None:
            raise StoreError(
                "history: expected a run to write, was opened for reading; pass Home.open_run(...)"
            )
        return self._journal

    def _count_new(self, name: str, new: int) -> int:
        self._counted.add(name, new)
        if new and self._waiting_since is None:
            self._waiting_since = time.monotonic()
        return new

    async def _write(self, prepare: Callable[[], Write]) -> int:
        self._own()
        assert self._group is not None
        return await self._counted.watch("journal_down", self._group.write(prepare))

    async def _on(self, worker: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        down = "journal_down" if worker is self._writer else "lake_down"
        return await self._counted.watch(
            down, asyncio.get_running_loop().run_in_executor(worker, work)
        )
