"""What a model said, what was decided, and the record that keeps all of it with its input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inputs import IncompleteInput, Masks, ModelInput, Tensor
from alphapulse.domain.market import Floats, Mark, PivotKind, Timeframe

# axes: K peer slot · P peer field · A account field · C column · H hidden unit
MODELS: tuple[str, ...] = ("cnn", "rl", "moe")


class Action(StrEnum):
    """A target position: buy +1, sell -1 (0 where the venue permits no shorts), hold keeps it."""

    BUY = "buy"
    SELL = "sell"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where and when the next pivot of one timeframe and level is expected.

    Attributes:
        p_high: probability that the next pivot is a high; `p_low` is the rest.
        pivot_ns: expected time of the pivot [ns UTC].
        bars_ahead: the same in bars of the timeframe.
        price: expected price of the pivot [quote currency].
        move: log(price / current price) in units of the timeframe's volatility.
        p_done: probability that the running extreme already is the pivot.
        confidence: calibrated probability that kind, time and price hit (ML.md 3.5 d).
    """

    timeframe: Timeframe
    level: int
    p_high: float
    p_low: float
    pivot_ns: int
    bars_ahead: float
    price: float
    move: float
    p_done: float
    confidence: float

    @property
    def kind(self) -> PivotKind:
        """Return the likelier kind."""
        return PivotKind.HIGH if self.p_high >= self.p_low else PivotKind.LOW


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model's output at one decision instant.

    Attributes:
        model: name, such as `cnn`.
        version: checkpoint id (content hash of weights and layout).
        action: what the model would do.
        p_buy: probability of buy; with `p_sell` and `p_hold` it sums to 1.
        confidence: probability that the action pays net of costs.
        utility_r: expected net result in units of the entry's risk (R).
        hidden_H: float32 (H,) hidden state, for other models and the history.
        forecasts: one per timeframe and level; empty for models that forecast no pivots.
        weights: share of each expert in the output, by slot name; empty but for the orchestrator.
    """

    model: str
    version: str
    symbol: str
    event_ns: int
    action: Action
    p_buy: float
    p_sell: float
    p_hold: float
    confidence: float
    utility_r: float
    hidden_H: Tensor
    forecasts: tuple[Forecast, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the orchestrator acts (R4.8).

    Attributes:
        entry: least confidence to open a position.
        exit: least confidence to close one.
    """

    entry: float = 0.6
    exit: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.exit <= self.entry <= 1:
            raise InvalidRequest(
                f"thresholds: expected 0 <= exit <= entry <= 1, was entry {self.entry}, "
                f"exit {self.exit}; send both in that order"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """The orchestrator's final word for one instrument at one instant.

    Attributes:
        predictions: every model's output behind it, in the order they were made.
        thresholds: those in force.
        reason: why it holds, where it does (`below_entry`, `flat_preferred`), else `acts`.
    """

    symbol: str
    event_ns: int
    action: Action
    confidence: float
    utility_r: float
    reason: str
    thresholds: Thresholds
    predictions: tuple[Prediction, ...]

    def of(self, model: str) -> Prediction:
        """Return the prediction of `model`; KeyError if it made none."""
        for prediction in self.predictions:
            if prediction.model == model:
                return prediction
        raise KeyError(model)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One immutable closed row, stored once and referenced by every input that shows it.

    Attributes:
        stream: timeframe of a bar row, or `book`.
        ts_ns: open of the bar, or boundary of the book second [ns UTC].
        flags: BarFlag bits (0 for a book row).
        values_C: float64 (C,).
    """

    symbol: str
    stream: str
    ts_ns: int
    flags: int
    values_C: Floats


@dataclass(frozen=True, slots=True)
class StreamRef:
    """Which stored rows one stream of an input shows, and its forming row in full.

    Attributes:
        stream: timeframe, or `book`.
        first_ns: time of the oldest row that may be shown [ns UTC].
        last_ns: time of the newest row shown [ns UTC]; -1 if none is.
        count: number of rows shown.
        forming_ns: open of the forming bar, None where there is none.
        forming_flags: its BarFlag bits.
        forming_C: float64 (C,) its values, None where there is none.
        incomplete_ns: times of the rows between first and newest that were flagged after they had
            been stored [ns UTC]: seconds of bars and book are not shown, longer bars with the flag.
    """

    symbol: str
    stream: str
    first_ns: int
    last_ns: int
    count: int
    forming_ns: int | None = None
    forming_flags: int = 0
    forming_C: Floats | None = None
    incomplete_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class InputPackage:
    """An input as it is stored: references to closed rows plus what is new.

    The tensor is rebuilt from it bit for bit.

    Attributes:
        spec_version: of the input's layout, `InputSpec.version`.
        scale_S2: float64 (2, 2): see `ModelInput.scale_S2`; NaN in one stored before it was kept.
        own: names of the users' indicators in it, `InputSpec.own`.
    """

    symbol: str
    reference: str
    event_ns: int
    window_version: int
    input_hash: str
    spec_version: int
    streams: tuple[StreamRef, ...]
    peers_KP: Tensor
    awake_K: Masks
    account_A: Tensor
    scale_S2: Floats
    substitutions: tuple[str, ...]
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionPoint:
    """One decision instant: what each model may see, and what the store needs to keep it.

    Attributes:
        event_ns: decision instant [ns UTC].
        window_version: version of the MarketWindow behind it.
        inputs: by symbol, the primary one first.
        packages: by symbol, for the complete inputs.
        rows: closed rows not handed out before.
        last_trade_id: by symbol, 0 before the first.
        last_book_id: by symbol, 0 before the first.
        received_ns: collector's time of the newest event inside [ns UTC].
        marks: by symbol, prices and risk for trading; a symbol without a price is absent.
    """

    event_ns: int
    window_version: int
    inputs: Mapping[str, ModelInput | IncompleteInput]
    packages: Mapping[str, InputPackage]
    rows: tuple[StoredRow, ...]
    last_trade_id: Mapping[str, int]
    last_book_id: Mapping[str, int]
    received_ns: int
    marks: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """Everything the history keeps of one decision; it is stored whole or not at all.

    Attributes:
        run: id of the run.
        trace_id: joins every log line and row of the decision, from tick to inference.
        config_hash: of the settings that can change a decision.
        last_trade_id: newest trade inside the input, 0 before the first.
        last_book_id: newest book update inside the input, 0 before the first.
        received_ns: collector's time of the newest event inside the input [ns UTC].
        decided_at_ns: wall clock when the decision was made [ns UTC]; never part of an identity.
        package: the input.
        rows: closed rows the store has not been sent before.
        decision: with the predictions of all models.
    """

    run: str
    trace_id: str
    config_hash: str
    last_trade_id: int
    last_book_id: int
    received_ns: int
    decided_at_ns: int
    package: InputPackage
    rows: tuple[StoredRow, ...]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Example:
    """One answered input, ready to learn from.

    Attributes:
        input: what the model was fed.
        upstream: what the models before it said, by name.
        targets: the answers by name; the model's docstring lists those it reads, a missing one is
            not learned.
        weight: importance, 1 unless feedback says otherwise.
    """

    input: ModelInput
    upstream: Mapping[str, Prediction]
    targets: Mapping[str, npt.NDArray[np.float32]]
    weight: float = 1.0


def inference_id(*, run: str, symbol: str, event_ns: int, model: str) -> str:
    """Return the id of an inference.

    It is the first 16 bytes of sha256(run | symbol | event time | model), hex.
    """
    return hashlib.sha256(f"{run}|{symbol}|{event_ns}|{model}".encode()).digest()[:16].hex()


def trace_id(*, run: str, symbol: str, event_ns: int) -> str:
    """Return the id that joins every log line and row of one decision."""
    return hashlib.sha256(f"{run}|{symbol}|{event_ns}".encode()).digest()[:8].hex()
