"""Decision points, decisions and records made by hand, and a store that checks what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import (
    MODELS,
    Action,
    Decision,
    DecisionPoint,
    DecisionRecord,
    InputPackage,
    Prediction,
    StoredRow,
    Thresholds,
    trace_id,
)
from alphapulse.domain.inputs import DTYPES, INPUT_SPEC, IncompleteInput, ModelInput
from alphapulse.domain.market import SECOND_NS
from alphapulse.features.rows import COLUMNS

RUN = "00112233445566ff"
ETH, BTC = "ETH/USDT", "BTC/USDT"
START_NS = 1_722_988_795 * SECOND_NS  # 2024-08-06T23:59:55Z


def instant(second: int) -> int:
    """Return the decision instant `second` seconds after the first one [ns UTC]."""
    return START_NS + second * SECOND_NS


def an_input(second: int, symbol: str = ETH) -> ModelInput:
    """Return a complete input of zeros."""
    arrays = {name: np.zeros(shape, DTYPES[name]) for name, shape in INPUT_SPEC.shapes().items()}
    return ModelInput(
        symbol=symbol,
        reference=BTC if symbol == ETH else ETH,
        event_ns=instant(second),
        window_version=second,
        price=2.0,
        **arrays,
    )


def a_package(input: ModelInput) -> InputPackage:
    """Return how `input` is stored, without any stream."""
    return InputPackage(
        symbol=input.symbol,
        reference=input.reference,
        event_ns=input.event_ns,
        window_version=input.window_version,
        input_hash=input.content_hash,
        spec_version=input.spec.version,
        streams=(),
        peers_KP=input.peers_KP,
        awake_K=input.awake_K,
        account_A=input.account_A,
        scale_S2=np.full((2, 2), np.nan),
        substitutions=(),
    )


def a_row(second: int, symbol: str = ETH) -> StoredRow:
    """Return the closed row of the second before an instant."""
    return StoredRow(symbol, "1s", instant(second) - SECOND_NS, 1, np.zeros(len(COLUMNS)))


def a_point(second: int, *, incomplete: Sequence[str] = ()) -> DecisionPoint:
    """Return the point of both symbols, but for those whose bars are missing."""
    complete = {s: an_input(second, s) for s in (ETH, BTC) if s not in incomplete}
    missing = {
        s: IncompleteInput(s, instant(second), "missing_bars", (f"{s} 1m: expected 300, was 12",))
        for s in incomplete
    }
    return DecisionPoint(
        event_ns=instant(second),
        window_version=second,
        inputs={symbol: (complete | missing)[symbol] for symbol in (ETH, BTC)},
        packages={symbol: a_package(input) for symbol, input in complete.items()},
        rows=tuple(a_row(second, symbol) for symbol in (ETH, BTC)),
        last_trade_id={ETH: 100 + second},
        last_book_id={ETH: 200 + second},
        received_ns=instant(second) + 3,
    )


def a_decision(input: ModelInput, thresholds: Thresholds) -> Decision:
    """Return a decision to hold, with the outputs of all models behind it."""
    hidden_H = np.zeros(4, np.float32)
    predictions = tuple(
        Prediction(
            model=model,
            version="v",
            symbol=input.symbol,
            event_ns=input.event_ns,
            action=Action.HOLD,
            p_buy=0.2,
            p_sell=0.3,
            p_hold=0.5,
            confidence=0.4,
            utility_r=0.0,
            hidden_H=hidden_H,
        )
        for model in MODELS
    )
    return Decision(
        input.symbol, input.event_ns, Action.HOLD, 0.4, 0.0, "below_entry", thresholds, predictions
    )


def a_record(second: int, symbol: str = ETH) -> DecisionRecord:
    """Return the record of one decision, with one row."""
    input = an_input(second, symbol)
    return DecisionRecord(
        run=RUN,
        trace_id=trace_id(run=RUN, symbol=symbol, event_ns=input.event_ns),
        config_hash="c" * 64,
        last_trade_id=1,
        last_book_id=2,
        received_ns=input.event_ns + 3,
        decided_at_ns=input.event_ns + 5,
        package=a_package(input),
        rows=(a_row(second, symbol),),
        decision=a_decision(input, Thresholds()),
    )


class Store:
    """A history in memory that fails, or does not answer, when told to.

    Attributes:
        appends: the records of each call that was acknowledged.
        failing: whether a call raises StoreError.
        silent: whether a call waits until this is changed.
    """

    def __init__(self, *, failing: bool = False, silent: bool = False) -> None:
        self.appends: list[list[DecisionRecord]] = []
        self.failing = failing
        self.silent = silent

    @property
    def seconds(self) -> list[int]:
        """Return the instants stored, in order of arrival [s since the first]."""
        return [(r.decision.event_ns - START_NS) // SECOND_NS for a in self.appends for r in a]

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Keep `records`; each must be whole, and newer than the last one of its symbol."""
        assert records, "an append of nothing"
        while self.silent:
            await asyncio.sleep(0.001)
        if self.failing:
            raise StoreError("journal: expected to write, was no space left; free the disk")
        newest = {r.decision.symbol: r.decision.event_ns for a in self.appends for r in a}
        for record in records:
            decision, package = record.decision, record.package
            assert (package.symbol, package.event_ns) == (decision.symbol, decision.event_ns)
            assert newest.get(decision.symbol, -1) < decision.event_ns, (
                "stored twice or out of order"
            )
            newest[decision.symbol] = decision.event_ns
        self.appends.append(list(records))
        return len(records)
