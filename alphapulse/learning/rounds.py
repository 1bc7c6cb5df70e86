"""When a training round begins: on confirmed pivots, one at a time, each confirmation once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from alphapulse.config import Learning
from alphapulse.domain.learning import TrainingRound
from alphapulse.domain.market import SECOND_NS, Pivot, Timeframe


@dataclass(frozen=True, slots=True, order=True)
class Start:
    """Begin a round now.

    Attributes:
        confirm_ns: close of the bar that confirmed the pivot [ns UTC].
        trigger: what starts it, such as `ETH/USDT 1s L2 H`.
    """

    confirm_ns: int
    trigger: str

    @classmethod
    def of(cls, pivot: Pivot) -> Self:
        """Return the start that `pivot` asks for."""
        named = f"{pivot.symbol} {pivot.timeframe} L{pivot.level} {pivot.kind}"
        return cls(pivot.confirm_ns, named)


class RoundScheduler:
    """Decides from confirmed pivots when a round begins; it starts nothing itself.

    ```python
    scheduler = RoundScheduler(settings.learning, levels=LEVELS, rounds=table.all(run))
    scheduler.offer(pivots)
    start = scheduler.next(is_running=..., num_examples=...)
    if start is not None and table.begin(...):
        ...
    ```

    The newest pivot waits while a round runs or examples are few; those it displaces are coalesced:
    one round learns from everything answered by then. A pivot too soon after the last round's is
    dropped, for the next one comes soon.
    """

    def __init__(
        self,
        settings: Learning,
        *,
        levels: Mapping[Timeframe, int],
        rounds: Sequence[TrainingRound] = (),
    ) -> None:
        """Go on after `rounds`.

        Args:
            settings: debounce and least number of examples.
            levels: level of the pivots that are learned, by timeframe; others start nothing.
            rounds: those the run has had of this model; what was asked for by hand counts too.
        """
        self._settings = settings
        self._levels = dict(levels)
        self._last_ns = max((round.confirm_ns for round in rounds), default=None)
        self._waiting: Start | None = None
        self._counters = {"started": 0, "coalesced": 0, "debounced": 0}

    def offer(self, pivots: Iterable[Pivot]) -> None:
        """Take note of pivots confirmed since; one from before the last round is known already."""
        for pivot in pivots:
            if self._levels.get(pivot.timeframe) == pivot.level:
                self._take(Start.of(pivot))

    def next(self, *, is_running: bool, num_examples: int) -> Start | None:
        """Return the round to begin now, None if there is none; what is returned counts as begun.

        Args:
            is_running: whether a round of the run is under way.
            num_examples: answered inferences there are; of those evicted, some may be counted
                yet, and of those in the lake alone, some no more: the round itself counts what it
                reads.
        """
        if self._waiting is None or is_running or num_examples < self._settings.min_examples:
            return None
        start, self._waiting = self._waiting, None
        self._last_ns = start.confirm_ns
        self._counters["started"] += 1
        return start

    def counters(self) -> dict[str, int]:
        """Return how many rounds were started, how many pivots coalesced or came too soon."""
        return dict(self._counters)

    def _take(self, start: Start) -> None:
        if self._last_ns is not None:
            if start.confirm_ns <= self._last_ns:
                return
            if start.confirm_ns - self._last_ns < self._settings.debounce_s * SECOND_NS:
                self._counters["debounced"] += 1
                return
        if self._waiting is None:
            self._waiting = start
        elif start != self._waiting:
            self._counters["coalesced"] += 1
            if start.confirm_ns > self._waiting.confirm_ns:
                self._waiting = start
