"""Decision records made by hand, with numbers chosen to show what a store might lose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alphapulse.domain.inference import (
    Action,
    Decision,
    DecisionRecord,
    Forecast,
    InputPackage,
    Prediction,
    StoredRow,
    StreamRef,
    Thresholds,
    inference_id,
    trace_id,
)
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import SECOND_NS, Timeframe
from alphapulse.features.rows import BOOK_COLUMNS, COLUMNS
from alphapulse.storage.tables import ALL

RUN = "00112233445566ff"
SYMBOLS = ("ETH/USDT", "BTC/USDT")
START_NS = 1_722_988_795 * SECOND_NS  # 2024-08-06T23:59:55Z: a record file crosses midnight
AWKWARD = (-0.0, 0.1, 5e-324, math.pi, -math.inf, 1.0)


def instant(second: int) -> int:
    """Return the decision instant `second` seconds after the first one [ns UTC]."""
    return START_NS + second * SECOND_NS


def prediction(model: str, *, symbol: str, event_ns: int, hidden: int) -> Prediction:
    """Return an output of `model`; only the cnn forecasts, only the moe shows weights."""
    second = (event_ns - START_NS) // SECOND_NS
    return Prediction(
        model=model,
        version=f"{model}-checkpoint",
        symbol=symbol,
        event_ns=event_ns,
        action=Action.HOLD,
        p_buy=0.1 + second * 1e-9,
        p_sell=0.2,
        p_hold=0.7 - second * 1e-9,
        confidence=math.nan if model == "rl" else 1 / 3,
        utility_r=AWKWARD[second % len(AWKWARD)],
        hidden_H=np.linspace(-1, 1, hidden, dtype=np.float32) * np.float32(second + 1),
        forecasts=_forecasts(event_ns) if model == "cnn" else (),
        weights={"flat": 0.25, "cnn": 1 / 3, "rl": 5 / 12} if model == "moe" else {},
    )


def _forecasts(event_ns: int) -> tuple[Forecast, ...]:
    return tuple(
        Forecast(
            timeframe=timeframe,
            level=level,
            p_high=1 / 3,
            p_low=2 / 3,
            pivot_ns=event_ns + 7 * timeframe.ns,
            bars_ahead=7.000000001,
            price=2456.78,
            move=-0.0,
            p_done=0.25,
            confidence=5e-324,
        )
        for timeframe, level in zip(Timeframe, (2, 2, 1, 1), strict=True)
    )


def row(symbol: str, stream: str, *, ts_ns: int) -> StoredRow:
    """Return a closed row whose cells tell rows apart; one of them is NaN."""
    names = BOOK_COLUMNS if stream == "book" else COLUMNS
    cells = np.arange(len(names)) * 0.1 + ts_ns / SECOND_NS
    cells[-1] = np.nan
    return StoredRow(symbol, stream, ts_ns, 0 if stream == "book" else 1, cells)


def outcome(
    second: int, timeframe: str = "1s", *, symbol: str = SYMBOLS[0], run: str = RUN
) -> Outcome:
    """Return the answer to the cnn's forecast of a timeframe at an instant."""
    event_ns = instant(second)
    return Outcome(
        inference_id=inference_id(run=run, symbol=symbol, event_ns=event_ns, model="cnn"),
        run=run,
        symbol=symbol,
        model="cnn",
        event_ns=event_ns,
        known_ns=event_ns + 9 * SECOND_NS,
        timeframe=timeframe,
        level=2,
        unit=5e-324,
        ended_ns=event_ns + SECOND_NS,
        price=0.1,
        move=-0.0,
        hit=1.0,
        kind="H",
        bars=1 / 3,
        p_done=0.0,
    )


def note(table: str, second: int, *, run: str = RUN) -> dict[str, Any]:
    """Return a row of one of the tables that are appended beside the inferences."""
    event_ns, symbol = instant(second), SYMBOLS[second % 2]
    inference = inference_id(run=run, symbol=symbol, event_ns=event_ns, model="cnn")
    of_inference = {"inference_id": inference, "symbol": symbol, "event_ns": event_ns}
    rows: dict[str, dict[str, Any]] = {
        "orders": of_inference | {"order_id": f"order-{second}", "purpose": "entry"},
        "examples": of_inference
        | {
            "model": "cnn",
            "known_ns": event_ns + 9 * SECOND_NS,
            "version": 1,
            "state": "resolved",
            "hit": 1 / 3,
            "loss": -0.0 if second else 5e-324,
            "stratum": f"{symbol}|H",
        },
        "training_rounds": {
            "id": f"{second:032x}",
            "symbol": symbol,
            "model": "cnn",
            "event_ns": event_ns,
            "trigger": f"{symbol} 1s L2 H",
            "state": "promoted",
            "champion": "before",
            "challenger": "after",
            "num_train": 2**53 + 1,
            "num_compared": 0,
            "figures": '{"e":0.1}',
            "reason": 'a "quoted" word',
            "started_at": "2024-08-07T00:00:00Z",
            "ended_at": "",
            "live_ns": None,
        },
        "alerts": {
            "id": f"{second:032x}",
            "symbol": ALL,
            "event_ns": event_ns,
            "code": "LakeBehind",
            "message": "30 s behind",
            "remedy": "look at the disk",
            "raised_at": "2024-08-07T00:00:00Z",
        },
    }
    return rows[table]


def record(second: int, *, symbol: str = SYMBOLS[0], run: str = RUN) -> DecisionRecord:
    """Return a whole decision of `symbol`, `second` seconds after the first one."""
    event_ns = instant(second)
    predictions = tuple(
        prediction(model, symbol=symbol, event_ns=event_ns, hidden=hidden)
        for model, hidden in (("rl", 32), ("cnn", 48), ("moe", 16))
    )
    return DecisionRecord(
        run=run,
        trace_id=trace_id(run=run, symbol=symbol, event_ns=event_ns),
        config_hash="c" * 64,
        last_trade_id=2**53 + second,
        last_book_id=0,
        received_ns=event_ns + 3,
        decided_at_ns=event_ns + 5,
        package=_package(symbol, event_ns),
        rows=(
            row(symbol, "1s", ts_ns=event_ns - SECOND_NS),
            row(symbol, "book", ts_ns=event_ns),
        ),
        decision=Decision(
            symbol=symbol,
            event_ns=event_ns,
            action=Action.BUY,
            confidence=0.61,
            utility_r=-0.0,
            reason="acts",
            thresholds=Thresholds(entry=0.6, exit=0.5),
            predictions=predictions,
        ),
    )


def _package(symbol: str, event_ns: int) -> InputPackage:
    peers_KP = np.zeros((16, 64), np.float32)
    peers_KP[[1, 3], :6] = np.float32(1 / 3)
    peers_KP[7, 63] = -0.0
    forming_C = np.full(len(COLUMNS), 0.1)
    forming_C[:2] = (np.nan, -0.0)
    second = (event_ns - START_NS) // SECOND_NS
    first_ns = START_NS - SECOND_NS
    return InputPackage(
        symbol=symbol,
        reference=SYMBOLS[symbol == SYMBOLS[0]],
        event_ns=event_ns,
        window_version=second,
        input_hash="f" * 64,
        spec_version=1,
        streams=(
            StreamRef(symbol, "1s", first_ns, event_ns - SECOND_NS, second + 1),
            StreamRef(symbol, "1m", 0, -1, 0, event_ns - event_ns % 60, 7, forming_C),
            StreamRef(symbol, "1h", 0, -1, 0, event_ns - event_ns % 3600, 2, forming_C * 2),
            StreamRef(symbol, "book", first_ns, event_ns, second + 1),
        ),
        peers_KP=peers_KP,
        awake_K=np.eye(16, dtype=np.uint8)[1],
        account_A=np.array([-0.0, 0.1, 0, 1], np.float32),
        scale_S2=np.array([[0.1, 1 / 3], [5e-324, -0.0]]),
        substitutions=("1s: 37 of 300 seconds", 'a "quoted" word'),
        own=("midpoint20",),
    )
