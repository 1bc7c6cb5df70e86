"""What the market answered, and what a training round made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from alphapulse.domain.inference import Action, Forecast
from alphapulse.domain.market import Timeframe

NAN = float("nan")
# Levels of the pivots that are forecast (ML.md 1.7): 1h and 1d show too few of level 2.
LEVELS: Mapping[Timeframe, int] = {
    Timeframe.S1: 2,
    Timeframe.M1: 2,
    Timeframe.H1: 1,
    Timeframe.D1: 1,
}
OUTCOME_VERSION = 1  # of the definitions in learning.outcomes; others settle beside, not over


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to one forecast of an inference, or to its action.

    One a (inference, timeframe, level, version); a forecast has the fields of the first group, an
    action those of the second; the other group is NaN or empty.

    Attributes:
        event_ns: instant of the inference [ns UTC].
        known_ns: instant from which the answer was known [ns UTC]; training before it must not
            use it.
        timeframe: of the forecast; of an action the timeframe its decision fell on.
        level: of the forecast's pivot; 0 for an action.
        unit: what moves are counted in [log price]: the timeframe's volatility for a forecast,
            the risk R for an action.
        ended_ns: open of the bar that holds the pivot; for an action, when it was left [ns UTC].
        price: of the pivot, or at which the action was left [quote currency].
        move: log(price / price at the inference) / unit.
        hit: forecast: 1 if kind, time and price came as said, else 0; action: 1 if the action
            taken paid net of costs, else 0, NaN for hold.
        kind: H or L.
        bars: bars until the pivot's bar opened.
        p_done: 1 if at the inference a pivot in the past was still to be confirmed, else 0.
        action: buy, sell or hold.
        reason: why the action was left: stop, reversal or horizon; `void` if a bar was missing.
        result: net result of the action taken [R], 0 for hold.
        result_long: net result of a long entered then [R].
        result_short: net result of a short entered then [R].
    """

    inference_id: str
    run: str
    symbol: str
    model: str
    event_ns: int
    known_ns: int
    timeframe: str
    level: int
    version: int = OUTCOME_VERSION
    unit: float
    ended_ns: int
    price: float
    move: float
    hit: float
    kind: str = ""
    bars: float = NAN
    p_done: float = NAN
    action: str = ""
    reason: str = ""
    result: float = NAN
    result_long: float = NAN
    result_short: float = NAN


class LabelState(StrEnum):
    """What became of an inference; one without a label is pending."""

    RESOLVED = "resolved"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceLabel:
    """That nothing more will be answered of an inference: the row of an example.

    Attributes:
        event_ns: instant of the inference [ns UTC].
        known_ns: instant from which the label was known [ns UTC].
        version: of the definitions, OUTCOME_VERSION.
        state: void if nothing of it was answered, or its source ended before all of it was.
        hit: share of its answers that were as said, NaN if none can be.
        loss: mean log loss of what it said, NaN if it said nothing that was answered.
        stratum: what it has in common with others, `symbol|model|action|answers|how it was left`.
    """

    inference_id: str
    symbol: str
    model: str
    event_ns: int
    known_ns: int
    version: int
    state: LabelState
    hit: float
    loss: float
    stratum: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come in the journal of a run; the default is before everything.

    Attributes:
        decision: number of the newest decision read.
        row: number of the newest closed row read.
    """

    decision: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBar:
    """A closed bar as the history keeps it, with the instant from which it was to be seen.

    Attributes:
        open_ns: start of the period [ns UTC].
        open: quote currency, as `high`, `low` and `close`.
        flags: BarFlag bits.
        shown_ns: first decision instant it was shown at [ns UTC]; it proves nothing before.
    """

    symbol: str
    timeframe: Timeframe
    open_ns: int
    open: float
    high: float
    low: float
    close: float
    flags: int
    shown_ns: int

    @property
    def close_ns(self) -> int:
        """Return the first nanosecond after the period."""
        return self.open_ns + self.timeframe.ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What of one model's stored output the market can answer."""

    id: str
    model: str
    version: str
    action: Action
    confidence: float = NAN
    forecasts: tuple[Forecast, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A decision as the history keeps it, with what its outcomes are counted in.

    Attributes:
        event_ns: decision instant [ns UTC].
        price: newest traded price its input showed [quote currency].
        unit: of a move, by timeframe [log price]; NaN where the input showed none.
        inferences: of every model, in the order they were made.
    """

    run: str
    symbol: str
    event_ns: int
    price: float
    unit: Mapping[Timeframe, float]
    inferences: tuple[Inference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A slice of a run's history in event order.

    Attributes:
        events: closed bars and decisions, each decision after the bars shown at its instant.
        cursor: where the next slice begins.
    """

    events: tuple[ShownBar | PastDecision, ...]
    cursor: Cursor


class RoundState(StrEnum):
    """Where a training round is; the last three are verdicts and never change."""

    RUNNING = "running"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRound:
    """One round of training on answered inferences: champion against challenger.

    Attributes:
        confirm_ns: close of the bar that confirmed the pivot that started it, or the instant it
            was asked for [ns UTC]; a run has one round a model and `confirm_ns`.
        trigger: what started it, such as `ETH/USDT 1s L2 H`.
        champion: checkpoint id the challenger must beat.
        challenger: checkpoint id, empty before there is one.
        num_train: examples the challenger learned from.
        num_compared: settled rows both were compared on; neither was trained on them.
        figures: losses and test figures, plain JSON values.
        reason: the verdict in a sentence.
        job: id of the Ray job, empty where there is none.
        live_ns: first decision instant of a promotion in the run [ns UTC], None before.
    """

    run: str
    model: str
    confirm_ns: int
    trigger: str
    state: RoundState
    champion: str
    challenger: str = ""
    num_train: int = 0
    num_compared: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    job: str = ""
    started_at: str = ""
    ended_at: str = ""
    live_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """Which checkpoint answers for a model from an event time of a run on.

    Attributes:
        event_ns: first decision instant it answers [ns UTC].
        before: checkpoint id that answered until then.
    """

    run: str
    model: str
    event_ns: int
    checkpoint: str
    before: str
    reason: str
