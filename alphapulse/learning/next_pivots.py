"""Answer forecasts by the next pivot of their stream, once none other can come before it."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from alphapulse.domain.inference import Forecast
from alphapulse.domain.learning import Inference, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import BarSeries, Pivot, PivotKind, Timeframe
from alphapulse.features.pivots import WilliamsStructure

# A forecast hits if its time errs by at most LEAST_BARS or half of the wait, and its price by at
# most half the volatility times the root of the wait: as the CNN's confidence is calibrated.
LEAST_BARS = 2.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A forecast whose answer is not known yet, with the next pivot of each kind found so far."""

    decision: PastDecision
    inference: Inference
    forecast: Forecast
    unit: float
    next: dict[PivotKind, Pivot] = field(default_factory=dict)
    known_ns: int = 0
    is_done: bool = False

    @property
    def event_ns(self) -> int:
        return self.decision.event_ns


class NextPivots:
    """The pivots of one stream, and the forecasts that wait for the next of them.

    The next pivot is the first whose bar opens at or after the instant of the forecast. It is
    known once a pivot at or after the instant is confirmed of both kinds: the earlier one is the
    answer, the low one if both are of one bar. What waits when a bar is missing is void.

    Attributes:
        expected_ns: open of the bar that comes next [ns UTC], None before the first.
        num_waiting: forecasts without an answer yet.
        num_void: forecasts that can have none, for a bar is missing.
    """

    def __init__(self, symbol: str, timeframe: Timeframe) -> None:
        self._timeframe = timeframe
        self._structure = WilliamsStructure(symbol, timeframe)
        # by level and kind, oldest first: every forecast that has no next pivot of the kind yet
        self._waiting: dict[tuple[int, PivotKind], deque[_Waiting]] = defaultdict(deque)
        self.expected_ns: int | None = None
        self.num_waiting = 0
        self.num_void = 0
        self._voided: list[tuple[str, int]] = []

    def seed(self, series: BarSeries) -> None:
        """Take the bars from before the run, oldest first; what they confirm answers nothing."""
        opens, rows = series.open_ns_T.tolist(), series.ohlcv_TC.tolist()
        for open_ns, (open, high, low, close, _) in zip(opens, rows, strict=True):
            self._update(open_ns, open, high, low, close)

    def wait(self, decision: PastDecision, inference: Inference, forecast: Forecast) -> None:
        """Let a forecast of the newest instant wait for its answer."""
        unit = decision.unit[forecast.timeframe]
        waiting = _Waiting(decision, inference, forecast, unit)
        for kind in PivotKind:
            self._waiting[forecast.level, kind].append(waiting)
        self.num_waiting += 1

    def closed(self, bar: ShownBar) -> tuple[list[Pivot], list[Outcome]]:
        """Take the next bar and return the pivots it confirms and the forecasts it answers."""
        if self.expected_ns not in (None, bar.open_ns):
            self._voided += self._void()
            self.num_void += self.num_waiting
            self.num_waiting = 0
            self._waiting.clear()
        pivots = self._update(bar.open_ns, bar.open, bar.high, bar.low, bar.close)
        return pivots, [
            _answer(waiting)
            for pivot in pivots
            for waiting in self._answered(pivot, shown_ns=bar.shown_ns)
        ]

    def voided(self) -> list[tuple[str, int]]:
        """Return inference id and level of the forecasts that became void since the last call."""
        found, self._voided = self._voided, []
        return found

    def _void(self) -> list[tuple[str, int]]:
        # one that has its next pivot of one kind waits in the queue of the other alone
        waiting = {(w.inference.id, w.forecast.level) for q in self._waiting.values() for w in q}
        return sorted(waiting)

    def _update(
        self, open_ns: int, open: float, high: float, low: float, close: float
    ) -> list[Pivot]:
        if self.expected_ns not in (None, open_ns):
            self._structure.reset()
        self.expected_ns = open_ns + self._timeframe.ns
        return self._structure.update(open_ns, open, high, low, close)

    def _answered(self, pivot: Pivot, *, shown_ns: int) -> Iterable[_Waiting]:
        queue = self._waiting[pivot.level, pivot.kind]
        while queue and queue[0].event_ns <= pivot.pivot_ns:
            waiting = queue.popleft()
            waiting.next[pivot.kind] = pivot
            waiting.known_ns = max(waiting.known_ns, pivot.confirm_ns, shown_ns)
            if len(waiting.next) == len(PivotKind):
                self.num_waiting -= 1
                yield waiting
        for waiting in queue:  # made between the pivot's bar and its confirmation
            if waiting.event_ns >= pivot.confirm_ns:
                break
            waiting.is_done = True


def _answer(waiting: _Waiting) -> Outcome:
    decision, forecast, unit = waiting.decision, waiting.forecast, waiting.unit
    high, low = waiting.next[PivotKind.HIGH], waiting.next[PivotKind.LOW]
    pivot = high if high.pivot_ns < low.pivot_ns else low
    bars = (pivot.pivot_ns - decision.event_ns) / forecast.timeframe.ns
    move = math.log(pivot.price / decision.price) / unit
    is_hit = (
        forecast.kind is pivot.kind
        and abs(forecast.bars_ahead - bars) <= max(LEAST_BARS, 0.5 * bars)
        and abs(forecast.move - move) <= 0.5 * math.sqrt(max(bars, 1.0))
    )
    return Outcome(
        inference_id=waiting.inference.id,
        run=decision.run,
        symbol=decision.symbol,
        model=waiting.inference.model,
        event_ns=decision.event_ns,
        known_ns=waiting.known_ns,
        timeframe=forecast.timeframe.value,
        level=forecast.level,
        unit=unit,
        ended_ns=pivot.pivot_ns,
        price=pivot.price,
        move=move,
        hit=float(is_hit),
        kind=pivot.kind.value,
        bars=bars,
        p_done=float(waiting.is_done),
    )
