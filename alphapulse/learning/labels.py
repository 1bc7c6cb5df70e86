"""Label each inference once everything the market can answer of it is answered or never will be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from alphapulse.domain.learning import (
    NAN,
    OUTCOME_VERSION,
    Inference,
    InferenceLabel,
    LabelState,
    Outcome,
    PastDecision,
)
from alphapulse.domain.market import PivotKind
from alphapulse.learning.entries import VOID

LEAST_P = 1e-6  # bounds the loss of a forecast that was sure and wrong
ACTION = ("", 0)  # what an inference waits for beside its forecasts


@dataclass(slots=True)
class _Open:
    """An inference that waits for answers, by (timeframe, level); its action is one of them."""

    symbol: str
    inference: Inference
    event_ns: int
    waiting: set[tuple[str, int]]
    known_ns: int  # instant from which all that is known of it by now was known [ns UTC]
    answered: dict[tuple[str, int], Outcome] = field(default_factory=dict)


class Labels:
    """Counts what each inference still waits for, and labels it when nothing is left.

    An inference without a label is pending: it may be answered yet, and is kept until then.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._known: list[InferenceLabel] = []

    @property
    def num_open(self) -> int:
        """Return how many inferences have no label yet."""
        return len(self._open)

    def wait(
        self, decision: PastDecision, inference: Inference, parts: Iterable[tuple[str, int]]
    ) -> None:
        """Let an inference wait for its parts, each (timeframe, level) or ACTION; void without."""
        at_ns = decision.event_ns
        opened = _Open(decision.symbol, inference, at_ns, set(parts), at_ns)
        self._open[inference.id] = opened
        self._close_if_done(opened, at_ns)

    def answer(self, outcome: Outcome) -> None:
        """Take the answer to a part."""
        if opened := self._open.get(outcome.inference_id):
            part = (outcome.timeframe, outcome.level) if outcome.level else ACTION
            opened.waiting.discard(part)
            opened.answered[part] = outcome
            self._close_if_done(opened, outcome.known_ns)

    def void(self, inference_id: str, part: tuple[str, int], *, known_ns: int) -> None:
        """Take that a part will have no answer."""
        if opened := self._open.get(inference_id):
            opened.waiting.discard(part)
            self._close_if_done(opened, known_ns)

    def take(self) -> list[InferenceLabel]:
        """Return the labels since the last call, in the order they became known."""
        found, self._known = self._known, []
        return found

    def end(self, known_ns: int) -> None:
        """Conclude what still waits, for no answer can come any more.

        It is void, also where parts of it were answered: of what an end cuts off, only the
        forecasts that are soon answered would count, and what became of the others is not known.
        """
        for opened in list(self._open.values()):
            opened.known_ns = max(opened.known_ns, known_ns)
            self._close(opened)

    def _close_if_done(self, opened: _Open, known_ns: int) -> None:
        # what became void is told before the answers of the same slice, whatever came first
        opened.known_ns = max(opened.known_ns, known_ns)
        if not opened.waiting:
            self._close(opened)

    def _close(self, opened: _Open) -> None:
        del self._open[opened.inference.id]
        self._known.append(_label(opened))


def _label(opened: _Open) -> InferenceLabel:
    inference, outcomes = opened.inference, list(opened.answered.values())
    hits = [o.hit for o in outcomes if not math.isnan(o.hit)]
    losses = [loss for o in outcomes if not math.isnan(loss := loss_of(inference, o))]
    answered = [o for o in outcomes if o.reason != VOID]
    is_resolved = bool(answered) and not opened.waiting
    return InferenceLabel(
        inference_id=inference.id,
        symbol=opened.symbol,
        model=inference.model,
        event_ns=opened.event_ns,
        known_ns=opened.known_ns,
        version=OUTCOME_VERSION,
        state=LabelState.RESOLVED if is_resolved else LabelState.VOID,
        hit=sum(hits) / len(hits) if hits and is_resolved else NAN,
        loss=sum(losses) / len(losses) if losses and is_resolved else NAN,
        stratum=_stratum(opened, answered),
    )


def loss_of(inference: Inference, outcome: Outcome) -> float:
    """Return the log loss of what an inference said of one answer; NaN where it said nothing.

    A forecast is scored by the kind of the next pivot, an action taken by its confidence to pay.
    """
    if not outcome.level:
        if math.isnan(outcome.hit) or math.isnan(inference.confidence):
            return NAN
        p = inference.confidence if outcome.hit else 1 - inference.confidence
        return -math.log(min(max(p, LEAST_P), 1.0))
    for forecast in inference.forecasts:
        if (forecast.timeframe, forecast.level) == (outcome.timeframe, outcome.level):
            p = forecast.p_high if outcome.kind == PivotKind.HIGH else forecast.p_low
            return -math.log(min(max(p, LEAST_P), 1.0))
    return NAN


def _stratum(opened: _Open, answered: list[Outcome]) -> str:
    """Return what tells rare examples from common ones: symbol, model, action and answers."""
    kinds: dict[str, str] = defaultdict(lambda: "-")
    for outcome in answered:
        kinds[outcome.timeframe if outcome.level else ""] = outcome.kind or outcome.reason
    said = opened.inference.action.value
    answers = "".join(kinds[f.timeframe] for f in opened.inference.forecasts)
    return f"{opened.symbol}|{opened.inference.model}|{said}|{answers}|{kinds['']}"
