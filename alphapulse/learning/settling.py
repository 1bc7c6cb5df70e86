"""Follow the history of a run as it grows, and make durable what the market answered of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from alphapulse.domain.learning import Cursor, Followed, Outcome, PastDecision
from alphapulse.domain.market import BarSeries, Pivot
from alphapulse.learning.outcomes import Settlement
from alphapulse.logs import get_logger

SLICE = 128  # decisions followed at once
log = get_logger("settling")


class History(Protocol):
    """What is asked of the inference history; InferenceHistory is one."""

    async def follow(self, after: Cursor, *, limit: int) -> Followed:
        """Return what was appended after a cursor."""

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable, each once."""

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make rows of a table durable, each once."""


class Settling:
    """Settles a run from its beginning on; another one that does it again changes nothing.

    ```python
    settling = Settling(history, cost_bps=10.0, seed=bars_closed_by)
    while True:
        if not await settling.step(is_over=False):
            await asyncio.sleep(1)
    ```

    Attributes:
        at_ns: newest instant that is settled as far as it can be [ns UTC], -1 before the first.
        is_concluded: whether every inference of the run has a label.
    """

    def __init__(
        self,
        history: History,
        *,
        cost_bps: float,
        seed: Callable[[int], Awaitable[Sequence[BarSeries]]],
    ) -> None:
        """Begin before the first decision.

        Args:
            history: of one run.
            cost_bps: paid at entry and at exit [bps].
            seed: gives the bars that had closed by the first instant of the run [ns UTC].
        """
        self._history = history
        self._seed = seed
        self._settlement = Settlement(cost_bps=cost_bps)
        self._cursor = Cursor()
        self._unsaved: list[Outcome] = []
        self._unlabelled: list[dict[str, Any]] = []  # labels on their way to the history
        self.at_ns = -1
        self.is_concluded = False

    async def step(self, *, is_over: bool) -> bool:
        """Settle the next slice of the history and return whether there was one.

        With `is_over` the source gives no more, ever: where nothing is new either, what is still
        pending becomes void. Raises AlphaPulseError if the history does not answer; the next call
        goes on.
        """
        await self._save()
        found = await self._history.follow(self._cursor, limit=SLICE)
        if not found.events:
            if is_over:
                await self._conclude()
            return False
        if self._cursor == Cursor():
            first = found.events[0]
            first_ns = first.event_ns if isinstance(first, PastDecision) else first.shown_ns
            for series in await self._seed(first_ns):
                self._settlement.seed(series)
        self._unsaved = self._settlement.take(found.events)
        self._cursor = found.cursor
        self._take_labels()
        await self._save()
        decided = [e.event_ns for e in found.events if isinstance(e, PastDecision)]
        self.at_ns = max([self.at_ns, *decided])
        return True

    def pivots(self) -> tuple[Pivot, ...]:
        """Return the pivots that were confirmed since the last call: see `Settlement.pivots`."""
        return self._settlement.pivots()

    def counters(self) -> dict[str, int]:
        """Return how much is settled and waits: see `Settlement.counters`."""
        return self._settlement.counters()

    async def _conclude(self) -> None:
        self._settlement.end()
        self._take_labels()
        await self._save()
        self.is_concluded = True

    def _take_labels(self) -> None:
        self._unlabelled += map(asdict, self._settlement.labels())

    async def _save(self) -> None:
        """Make durable what was settled, once again what an earlier try did not."""
        if self._unsaved:
            await self._history.settle(self._unsaved)
            log.info("settled", outcomes=len(self._unsaved))
            self._unsaved = []
        if self._unlabelled:
            await self._history.note("examples", self._unlabelled)
            self._unlabelled = []
