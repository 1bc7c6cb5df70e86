"""The one engine of up, backtest, paper and live: a decision point in, recorded decisions out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alphapulse.domain.inference import (
    Action,
    Decision,
    DecisionPoint,
    DecisionRecord,
    Prediction,
    StoredRow,
    Thresholds,
    trace_id,
)
from alphapulse.domain.inputs import IncompleteInput, ModelInput
from alphapulse.execution.recorder import Recorder
from alphapulse.logs import get_logger

log = get_logger("execution")
Decide = Callable[[ModelInput, Thresholds], Awaitable[Decision]]
Act = Callable[[DecisionPoint, Sequence[Decision], bool], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What an engine did, for the summary.

    Attributes:
        decisions: by symbol, then action.
        inferences: by model.
        incomplete: by reason code.
        latency_ms: from the input to its decision, one entry a decision [ms, wall clock].
        first_at_s: wall clock of the first decision [s since the epoch], None before it.
        from_ns: instant of the first decision [ns UTC], None before it.
        to_ns: instant of the newest decision [ns UTC], None before the first.
    """

    decisions: dict[str, Counter[str]] = field(default_factory=dict)
    inferences: Counter[str] = field(default_factory=Counter)
    incomplete: Counter[str] = field(default_factory=Counter)
    latency_ms: list[float] = field(default_factory=list)
    first_at_s: float | None = None
    from_ns: int | None = None
    to_ns: int | None = None

    def add(self, decision: Decision, *, latency_ms: float, at_s: float) -> None:
        """Count one decision."""
        self.decisions.setdefault(decision.symbol, Counter())[decision.action.value] += 1
        self.inferences.update(prediction.model for prediction in decision.predictions)
        self.latency_ms.append(latency_ms)
        if self.first_at_s is None:
            self.first_at_s, self.from_ns = at_s, decision.event_ns
        self.to_ns = decision.event_ns

    def summary(self) -> dict[str, object]:
        """Return the counts as plain values, every action named."""
        actions = [action.value for action in Action]
        quantiles = np.percentile(self.latency_ms, [50, 99]) if self.latency_ms else (None, None)
        return {
            "from_ns": self.from_ns,
            "to_ns": self.to_ns,
            "first_at_s": self.first_at_s,
            "decisions": {s: {a: count[a] for a in actions} for s, count in self.decisions.items()},
            "inferences": dict(self.inferences),
            "incomplete": sum(self.incomplete.values()),
            "decision_ms": {
                name: None if value is None else round(float(value), 2)
                for name, value in zip(("p50", "p99"), quantiles, strict=True)
            },
        }


class Engine:
    """Decides every complete input of a point once, records it and acts on it, then the next."""

    def __init__(
        self,
        *,
        run: str,
        config_hash: str,
        decide: Decide,
        recorder: Recorder,
        act: Act,
        thresholds: Thresholds,
        durable_until: Mapping[str, int] | None = None,
    ) -> None:
        """Keep what every decision of the run shares.

        Args:
            run: id of the run.
            config_hash: of the settings that can change a decision.
            decide: asks the models about one input.
            recorder: takes the records.
            act: trades on a point's decisions, told whether their records are durable; it is asked
                at every point, also where nothing was decided: what is open needs its stop.
            thresholds: those in force until `thresholds` is set.
            durable_until: by symbol, the newest decision already in the history [ns UTC]; it is not
                made again.
        """
        self._run = run
        self._config_hash = config_hash
        self._decide = decide
        self._recorder = recorder
        self._act = act
        self.durable_until = dict(durable_until or {})
        self.acted_until = -1  # newest point acted on [ns UTC]
        self._rows: list[StoredRow] = []  # closed rows that no record has carried yet
        self.thresholds = thresholds
        self.tally = Tally()
        self.latest: dict[str, Decision] = {}

    async def step(self, point: DecisionPoint) -> Sequence[Prediction]:
        """Return the predictions made at `point`, for the peer slots.

        Their records are durable or flagged by then, and what follows from them is done.
        """
        self._rows.extend(point.rows)
        due = [i for s, i in point.inputs.items() if point.event_ns > self.durable_until.get(s, -1)]
        for missing in due:
            if isinstance(missing, IncompleteInput):
                self._refuse(missing)
        complete = [i for i in due if isinstance(i, ModelInput)]
        decisions = await asyncio.gather(*(self._one(input) for input in complete))
        stored = True
        if decisions:
            rows, self._rows = tuple(self._rows), []
            records = [
                self._record(point, decision, rows=rows if i == 0 else ())
                for i, decision in enumerate(decisions)
            ]
            stored = await self._recorder.record(records)
        if point.event_ns > self.acted_until:
            await self._act(point, decisions, stored)
            self.acted_until = point.event_ns
        for decision in decisions:
            self.durable_until[decision.symbol] = decision.event_ns
            self.latest[decision.symbol] = decision
        return [prediction for decision in decisions for prediction in decision.predictions]

    async def _one(self, input: ModelInput) -> Decision:
        begin = time.perf_counter()
        decision = await self._decide(input, self.thresholds)
        latency_ms = (time.perf_counter() - begin) * 1e3
        self.tally.add(decision, latency_ms=latency_ms, at_s=time.time())
        log.info(
            "decided",
            trace_id=trace_id(run=self._run, symbol=decision.symbol, event_ns=decision.event_ns),
            symbol=decision.symbol,
            event_ns=decision.event_ns,
            action=decision.action.value,
            confidence=decision.confidence,
            reason=decision.reason,
            latency_ms=round(latency_ms, 2),
        )
        return decision

    def _refuse(self, missing: IncompleteInput) -> None:
        self.tally.incomplete[missing.reason] += 1
        log.warning(
            "no prediction: input incomplete",
            trace_id=trace_id(run=self._run, symbol=missing.symbol, event_ns=missing.event_ns),
            symbol=missing.symbol,
            event_ns=missing.event_ns,
            code=missing.reason,
            missing=list(missing.missing),
        )

    def _record(
        self, point: DecisionPoint, decision: Decision, *, rows: tuple[StoredRow, ...]
    ) -> DecisionRecord:
        symbol = decision.symbol
        return DecisionRecord(
            run=self._run,
            trace_id=trace_id(run=self._run, symbol=symbol, event_ns=point.event_ns),
            config_hash=self._config_hash,
            last_trade_id=point.last_trade_id.get(symbol, 0),
            last_book_id=point.last_book_id.get(symbol, 0),
            received_ns=point.received_ns,
            decided_at_ns=time.time_ns(),
            package=point.packages[symbol],
            rows=rows,
            decision=decision,
        )
