"""Commit together what waits together: one transaction for all the callers of a moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from alphapulse.storage.journal.writer import Journal, Write

_Ready = tuple[Write, "Future[int]"]


class GroupCommit:
    """Writes a journal from one thread; who comes while it commits shares the next commit.

    A caller is answered when its own work is durable, or with the error that kept it from being so:
    work that cannot be done fails alone.

    Attributes:
        num_commits: transactions so far.
    """

    def __init__(self, journal: Journal, worker: ThreadPoolExecutor) -> None:
        """Write `journal` from `worker`, which must have one thread."""
        self._journal = journal
        self._worker = worker
        self._waiting: deque[tuple[Callable[[], Write], Future[int]]] = deque()
        self.num_commits = 0

    async def write(self, prepare: Callable[[], Write]) -> int:
        """Return what the prepared work returns once it is durable; raises StoreError if not."""
        done: Future[int] = Future()
        self._waiting.append((prepare, done))
        self._worker.submit(self._commit)
        return await asyncio.shield(asyncio.wrap_future(done))  # who gives up takes nobody along

    def _commit(self) -> None:
        ready: list[_Ready] = []
        for _ in range(len(self._waiting)):  # none, if an earlier call took all along
            prepare, done = self._waiting.popleft()
            try:
                ready.append((prepare(), done))
            except Exception as error:  # the caller's, who waits for it
                done.set_exception(error)
        if ready and self._failed(ready) is not None:
            for work, done in ready:
                if (alone := self._failed([(work, done)])) is not None:
                    done.set_exception(alone)

    def _failed(self, ready: Sequence[_Ready]) -> Exception | None:
        try:
            counts = self._journal.write([work for work, _ in ready])
        except Exception as error:  # the callers', who wait for it
            return error
        self.num_commits += 1
        for (_, done), count in zip(ready, counts, strict=True):
            done.set_result(count)
        return None
