"""How a contract suite makes an instance of each implementation; one entry a class.

A new implementation fails its suite until it has a factory here. Write a function that takes the
test's `request`, makes what the class needs (files under `tmp_path`, recordings by
`request.getfixturevalue("recordings")`), and returns the subject of its promise below; then add it
to FACTORIES under the class name and to the suite's EXPECTED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Feed, Market, Settings
from alphapulse.dashboard.panels.account import AccountPanel, EquityPanel, OrdersPanel, RiskPanel
from alphapulse.dashboard.panels.decisions import DecisionsPanel
from alphapulse.dashboard.panels.learning import AccuracyPanel, TrainingPanel
from alphapulse.dashboard.panels.market import BookPanel, CandlesPanel
from alphapulse.dashboard.panels.status import AlertsPanel, ErrorsPanel, PricesPanel, StatusPanel
from alphapulse.dashboard.panels.steering import HaltPanel, ProcessesPanel, ThresholdsPanel
from alphapulse.data.history import read_candles
from alphapulse.data.live import Live
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import DecisionRecord, Example, Prediction
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import SECOND_NS, Instrument, Timeframe
from alphapulse.domain.trading import Quote
from alphapulse.execution.paper import PaperExecutor
from alphapulse.interfaces import DataProvider, InferenceStore, Model
from alphapulse.models.cnn import CNN
from alphapulse.models.moe import Orchestrator
from alphapulse.models.rl import RL
from alphapulse.risk.rules import EntryNeedsStop, MaxDrawdown, MaxPosition, NoShort, StopLoss
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.contracts.inputs import an_input
from tests.unit.storage.records import RUN, outcome, record

MS = 1_000_000


@dataclass(frozen=True)
class ModelSubject:
    """A model under test: how to make it, what it hears, what it learns from."""

    kind: type[Model]
    make: Callable[[], Model]
    upstream: Mapping[str, Prediction]
    examples: Sequence[Example]


@dataclass(frozen=True)
class ProviderSubject:
    """A source under test; `is_endless` where it goes on until the reader leaves.

    One reading may take `limit_s`: a source that should end and does not fails its check.
    """

    kind: type[DataProvider]
    make: Callable[[], DataProvider]
    instruments: Sequence[Instrument]
    is_endless: bool = False
    num_events: int = 40
    limit_s: float = 20.0


@dataclass(frozen=True)
class StoreSubject:
    """A store under test: `open` opens the same place again, `close` lets go of it.

    `outcomes` answer what is in `records`; the foreign ones are of another run.
    """

    kind: type[InferenceStore]
    open: Callable[[], InferenceStore]
    close: Callable[[InferenceStore], None]
    records: Sequence[DecisionRecord]
    foreign: DecisionRecord
    outcomes: Sequence[Outcome]
    foreign_outcome: Outcome


def factory_of(kind: type) -> Callable[[pytest.FixtureRequest], Any]:
    """Return the factory of an implementation, or fail with how to add one."""
    if kind.__name__ not in FACTORIES:
        pytest.fail(
            f"{kind.__module__}.{kind.__qualname__} has no factory: add one to FACTORIES in "
            "tests/contracts/factories.py, as the docstring of that file says"
        )
    return FACTORIES[kind.__name__]


def _cnn(request: pytest.FixtureRequest) -> ModelSubject:
    answers = {"p_high": [1, 0, 1, 0], "log_bars": [1.0, 1.5, 0.5, 2.0]}
    answers |= {"move": [0.5, -0.5, 1.0, -1.0], "p_done": [0, 1, 0, 1]}
    make = partial(CNN.fresh, seed=7, cost_bps=10.0)
    return ModelSubject(CNN, make, {}, _examples({}, answers))


def _rl(request: pytest.FixtureRequest) -> ModelSubject:
    upstream = {"cnn": CNN.fresh(seed=7, cost_bps=10.0).predict(an_input(), upstream={})}
    answers = {"action": [1.0], "result": [0.5, -0.7]}
    return ModelSubject(RL, partial(RL.fresh, seed=7), upstream, _examples(upstream, answers))


def _orchestrator(request: pytest.FixtureRequest) -> ModelSubject:
    heard = _rl(request)
    upstream = {**heard.upstream}
    upstream["rl"] = heard.make().predict(an_input(), upstream=heard.upstream)
    examples = _examples(upstream, {"result": [0.5, -0.7]})
    return ModelSubject(Orchestrator, partial(Orchestrator.fresh, seed=7), upstream, examples)


def _examples(
    upstream: Mapping[str, Prediction], answers: Mapping[str, Sequence[float]]
) -> list[Example]:
    targets = {name: np.array(values, np.float32) for name, values in answers.items()}
    return [Example(an_input(step), upstream, targets) for step in range(5)]


def _tape(request: pytest.FixtureRequest) -> ProviderSubject:
    folder: Path = request.getfixturevalue("recordings")
    instruments = Market().instruments
    until_ns = Tape(folder, instruments).first_ns + 2 * SECOND_NS
    make = partial(Tape, folder, instruments, until_ns=until_ns)
    return ProviderSubject(Tape, make, instruments)


class RecordedVenue:
    """Answers as ccxt.pro would with recorded trades, one at a time; then nothing more happens."""

    id = "recorded"

    def __init__(self, folder: Path) -> None:
        self._minutes = read_candles(
            folder / "candles-1m-ETHUSDT.parquet", Market().instruments[0], Timeframe.M1
        )
        self._rows = pq.read_table(folder / "trades-ETHUSDT.parquet").slice(0, 60).to_pylist()
        self._at = 0
        self.is_closed = False

    async def watch_trades(self, symbol: str) -> list[dict[str, Any]]:
        """Return the next trade."""
        if self._at == len(self._rows):
            await asyncio.Event().wait()
        row = self._rows[self._at]
        self._at += 1
        trade = {"id": str(row["trade_id"]), "timestamp": row["ts"].value // MS, "symbol": symbol}
        return [{**trade, "price": row["price"], "amount": row["size"], "side": row["side"]}]

    async def watch_order_book(self, symbol: str) -> Any:
        """Wait: this venue shows no book."""
        await asyncio.Event().wait()

    async def watch_ohlcv(self, symbol: str, timeframe: str) -> Any:
        """Wait: this venue shows no candles."""
        await asyncio.Event().wait()

    async def fetch_time(self) -> int:
        """Return the time of the first trade [ms UTC]."""
        return int(self._rows[0]["ts"].value // MS)

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[float]]:
        """Return the recorded bars from `since` on; only minutes are there."""
        if timeframe != "1m":
            return []
        times, rows = self._minutes.open_ns_T.tolist(), self._minutes.ohlcv_TC.tolist()
        found = [[t // MS, *row] for t, row in zip(times, rows, strict=True) if t >= since * MS]
        return found[:limit]

    async def close(self) -> None:
        """Remember that the reader left."""
        self.is_closed = True


def _live(request: pytest.FixtureRequest) -> ProviderSubject:
    folder: Path = request.getfixturevalue("recordings")
    instrument = Market().instruments[0]
    exchange = partial(RecordedVenue, folder)
    settings = Feed(live_history_bars=10)
    make = partial(Live, "recorded", [instrument], settings, exchange=exchange)
    return ProviderSubject(Live, make, [instrument], is_endless=True)


def _history(request: pytest.FixtureRequest) -> StoreSubject:
    home = Home(request.getfixturevalue("tmp_path"))
    settings = Settings()
    run = home.open_run(
        source="recording",
        recording="hand-made",
        content_hash="0" * 64,
        settings=settings,
        checkpoints={},
        fresh=False,
    )

    def reopen() -> InferenceHistory:
        return InferenceHistory(home, run=run, settings=settings.storage)

    def close(store: InferenceStore) -> None:
        assert isinstance(store, InferenceHistory)
        store.close()

    records = [record(second, run=run.id) for second in range(4)]
    outcomes = [outcome(s, tf, run=run.id) for s in range(4) for tf in ("1s", "1m")]
    return StoreSubject(
        InferenceHistory, reopen, close, records, record(9, run=RUN), outcomes, outcome(9, run=RUN)
    )


def _paper_executor(request: pytest.FixtureRequest) -> PaperExecutor:
    settings = Settings()
    bids_L2 = np.array([[2_599.99, 0.3], [2_599.98, 5.0]])
    asks_L2 = np.array([[2_600.01, 0.3], [2_600.02, 5.0]])

    async def quote(symbol: str, event_ns: int) -> Quote | None:
        return Quote(symbol, event_ns, "book", 2_600.0, bids_L2, asks_L2)

    return PaperExecutor(quote, rules=settings.venue_rules, trading=settings.trading)


FACTORIES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "CNN": _cnn,
    "RL": _rl,
    "Orchestrator": _orchestrator,
    "Tape": _tape,
    "Live": _live,
    "InferenceHistory": _history,
    "PaperExecutor": _paper_executor,
    "StopLoss": lambda request: StopLoss(),
    "EntryNeedsStop": lambda request: EntryNeedsStop(),
    "MaxPosition": lambda request: MaxPosition(Decimal("0.25")),
    "MaxDrawdown": lambda request: MaxDrawdown(Decimal("0.1")),
    "NoShort": lambda request: NoShort(frozenset()),
    "AccountPanel": lambda request: AccountPanel(),
    "EquityPanel": lambda request: EquityPanel(),
    "OrdersPanel": lambda request: OrdersPanel(),
    "RiskPanel": lambda request: RiskPanel(),
    "DecisionsPanel": lambda request: DecisionsPanel(),
    "AccuracyPanel": lambda request: AccuracyPanel(),
    "TrainingPanel": lambda request: TrainingPanel(),
    "BookPanel": lambda request: BookPanel(),
    "AlertsPanel": lambda request: AlertsPanel(),
    "ErrorsPanel": lambda request: ErrorsPanel(),
    "PricesPanel": lambda request: PricesPanel(),
    "StatusPanel": lambda request: StatusPanel(),
    "HaltPanel": lambda request: HaltPanel(),
    "ProcessesPanel": lambda request: ProcessesPanel(),
    "CandlesPanel": lambda request: CandlesPanel({}),
    "ThresholdsPanel": lambda request: ThresholdsPanel({}),
}
