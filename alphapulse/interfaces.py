"""The six promises.

An implementation inherits its promise by name and tests/contracts holds it to the same checks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from alphapulse.domain.errors import ConfigError
from alphapulse.domain.inference import DecisionRecord, Example, Prediction
from alphapulse.domain.inputs import InputSpec, ModelInput
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import BarSeries, Instrument, MarketEvent, Timeframe
from alphapulse.domain.pruning import Pruned
from alphapulse.domain.status import Command, Snapshot
from alphapulse.domain.trading import Account, Approved, Fill, Order, Position, Refused

if TYPE_CHECKING:
    import pandas as pd


class DataProvider(Protocol):
    """A source of market events and of the bars before them.

    The consumer cannot tell live from recorded.

    ```python
    for instrument in instruments:
        cache.seed(await provider.history(instrument, Timeframe.M1, count=None))
    async for event in provider.events():
        cache.apply(event)
    ```
    """

    @abstractmethod
    def events(self) -> AsyncIterator[MarketEvent]:
        """Yield trades, book changes, venue candles and gaps.

        A recording yields them in order of (exchange time, stream, sequence), a live source in
        order of arrival; the merger behind either hands them on in the first order. Ends when the
        source has ended; raises NoData or InvalidRecording if it cannot begin.
        """

    @abstractmethod
    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the newest `count` bars (all, if None), oldest first.

        All of them closed at or before the first event.
        """

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Have the whole book sent again, because it went wrong at the change `last_id`.

        A source that has no other book to give does nothing.
        """

    def health(self) -> Mapping[str, Any]:
        """Return how the source is as plain values; a source with nothing to tell says nothing.

        `skew_ms`: the venue's clock minus ours [ms]. `quarantined`: number of messages that could
        not be events, by code. `symbols`: by symbol, `age_s` by stream [s], `fallback` (whether
        another source of the book stands in), and counters.
        """
        return {}


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What a round of learning did: losses on held-out rows, beside the base rate's, by head."""

    num_examples: int
    held_out_loss: Mapping[str, float]
    base_rate_loss: Mapping[str, float]


class Model(Protocol):
    """Something that looks at an input and says what it thinks.

    The module that trains is the module that serves.

    ```python
    cnn, rl, moe = (Model.load(directory) for ...)
    first = cnn.predict(input, upstream={})
    second = rl.predict(input, upstream={"cnn": first})
    ```
    """

    name: str
    spec: InputSpec

    @property
    @abstractmethod
    def version(self) -> str:
        """Return the checkpoint id: a content hash of layout and weights."""

    @abstractmethod
    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return what the model says.

        Pure: same input and upstream, same bits, and nothing in the model changes. Raises
        ShapeMismatch on a foreign spec, KeyError if a model it needs is not in `upstream`.
        """

    @abstractmethod
    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Change the weights towards the examples' targets.

        Seeded, one thread: same examples, same weights.
        """

    @abstractmethod
    def save(self, directory: Path) -> str:
        """Save weights (safetensors) and layout (JSON) to `directory`; return the checkpoint id."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`.

        Raises CheckpointError if it is missing, damaged or foreign.
        """


class RiskRule(Protocol):
    """One limit; a pure function of the order and the account, never of the clock."""

    @abstractmethod
    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Return the order approved as it is or refused with a reason; never a larger one."""

    @abstractmethod
    def exits(self, account: Account) -> Sequence[Order]:
        """Return the orders the rule demands now, such as a stop that was reached."""


class Executor(Protocol):
    """Whatever turns approved orders into fills, on paper or at a venue."""

    @abstractmethod
    async def submit(self, approved: Approved) -> Sequence[Fill]:
        """Send the order once and return what was filled."""

    @abstractmethod
    async def positions(self) -> Sequence[Position]:
        """Return what is open by the executor's own evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which rows of the history to find; None is no restriction.

    Attributes:
        table: `inferences` (one row a model, symbol and time), `predictions` (one a timeframe and
            level too), `outcomes` (what came of a prediction or an action), `examples` (what came
            of an inference as a whole), `orders`, `training_rounds` or `alerts`.
        timeframe: of a forecast or an outcome.
        action: what the model said, or what was settled: buy, sell or hold.
        decision: what the orchestrator decided on it: buy, sell or hold.
        outcome: of an inference: `hit` (at least half of its answers came as said), `missed`
            (fewer), `void` (it can have no answer) or `pending` (not answered yet); of a
            prediction its own answer alone. What was neither, such as a hold, is none of them.
        min_confidence: smallest, inclusive, in 0..1; an unknown confidence is never inside.
        max_confidence: largest, inclusive.
        from_ns: oldest event time [ns UTC], inclusive.
        to_ns: newest event time [ns UTC], exclusive.
        limit: newest rows kept.
        after: where the page before ended: `storage.pages.next_page` gives it. Pages go back in
            time, so that rows appended meanwhile move none of them.

    Raises:
        ConfigError: a value it cannot have.
    """

    TABLES: ClassVar[tuple[str, ...]] = (
        *("inferences", "predictions", "outcomes"),
        *("examples", "orders", "training_rounds", "alerts"),
    )
    ACTIONS: ClassVar[tuple[str, ...]] = ("buy", "sell", "hold")
    OUTCOMES: ClassVar[tuple[str, ...]] = ("hit", "missed", "pending", "void")

    table: str = "inferences"
    run: str | None = None
    symbol: str | None = None
    model: str | None = None
    timeframe: str | None = None
    action: str | None = None
    decision: str | None = None
    outcome: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    limit: int | None = None
    after: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        self._require("table", self.TABLES)
        for name, known in (
            *(("action", self.ACTIONS), ("decision", self.ACTIONS)),
            ("outcome", self.OUTCOMES),
        ):
            if getattr(self, name) is not None:
                self._require(name, known)
        low = 0.0 if self.min_confidence is None else self.min_confidence
        high = 1.0 if self.max_confidence is None else self.max_confidence
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                "query.confidence: expected 0 <= min_confidence <= max_confidence <= 1, was "
                f"{self.min_confidence} and {self.max_confidence}; swap or widen them"
            )
        if self.from_ns is not None and self.to_ns is not None and self.from_ns > self.to_ns:
            raise ConfigError(
                f"query.from_ns: expected at most to_ns, was {self.from_ns} and {self.to_ns}; "
                "swap them"
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(
                f"query.limit: expected 1 or more, was {self.limit}; leave it out for all rows"
            )

    def _require(self, name: str, known: Sequence[str]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise ConfigError(
                f"query.{name}: expected one of {', '.join(known)}, was {value!r}; choose one"
            )


class InferenceStore(Protocol):
    """The durable history of every inference; what `append` returned survives a kill -9."""

    @abstractmethod
    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make the records durable and return how many were new.

        A record already there changes nothing. Raises StoreError if they are not durable; nothing
        of a failed call is half there.
        """

    @abstractmethod
    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable, joined to inferences by id, and return how many were new.

        One that is there already (inference, timeframe, level, version) changes nothing. Raises
        StoreError if they are not durable; nothing of a failed call is half there.
        """

    @abstractmethod
    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for, oldest first: ordered by event_ns, then by the rest of a key.

        They come from journal and lake alike, each once.
        """

    @abstractmethod
    async def prune(self, *, dry_run: bool = False) -> Pruned:
        """Bring the history within its limits: archive what leaves, compare, only then remove it.

        Nothing pending, linked to an order or of the audit sample leaves. With `dry_run` nothing is
        touched. Raises StoreError if the store cannot be read or written; the next call goes on.
        """


class Panel(Protocol):
    """One part of the monitor: draws a snapshot and hands back what the person asked for."""

    @abstractmethod
    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw `snapshot` on `canvas`; an empty or stale one is shown as such, never as numbers."""
