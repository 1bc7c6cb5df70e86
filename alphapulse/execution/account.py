"""The account as models, the ledger and people are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import numpy as np

from alphapulse.config import Risk
from alphapulse.domain.inputs import Tensor
from alphapulse.domain.market import SECOND_NS
from alphapulse.domain.trading import ZERO, Account, Position
from alphapulse.execution.ledger_tables import Halt, Step, text

HORIZON = 300  # seconds in trade that count as 1


def vector(account: Account, symbol: str, *, stop_r: Decimal) -> Tensor:
    """Return what the models are told of the account when they look at `symbol`.

    Args:
        account: at the newest instant, with the fills after it.
        symbol: they look at.
        stop_r: distance of a stop from its entry [R]; says what R is in an open position.

    Returns:
        float32 (4,): position -1, 0 or 1; unrealised result [R]; whole seconds in trade / 300,
        60 a bar where a run decides by minutes; drawdown.
    """
    position = account.position(symbol)
    result = seconds = 0.0
    if position is not None:
        stop = position.stop_price
        risk = abs(position.entry_price - stop) / stop_r if stop is not None else ZERO
        gain = (account.prices[symbol] - position.entry_price) * sign(position)
        result = float(gain / risk) if risk else 0.0  # filled at its stop: no R to count in
        seconds = max(0, account.event_ns - position.entry_ns) // SECOND_NS
    values = (sign(position), result, seconds / HORIZON, float(account.drawdown))
    return np.array(values, dtype=np.float32)


def sign(position: Position | None) -> int:
    """Return 1 for a long position, -1 for a short one, 0 for none."""
    if position is None:
        return 0
    return 1 if position.quantity > 0 else -1


def step_of(account: Account) -> Step:
    """Return `account` as the ledger keeps it."""
    return Step(
        event_ns=account.event_ns,
        cash=account.cash,
        equity=account.equity,
        peak=account.peak,
        drawdown=account.drawdown,
        prices=account.prices,
    )


def stands(account: Account, halts: Sequence[Halt], limits: Risk) -> dict[str, Any]:
    """Return where `account` stands against its limits, as plain values; money is text.

    Args:
        account: at the newest instant.
        halts: of the run, oldest first.
        limits: those in force.
    """
    open_value = sum((abs(p.quantity) * account.prices[p.symbol] for p in account.positions), ZERO)
    equity = account.equity
    return {
        "event_ns": account.event_ns,
        "is_halted": any(halt.cleared_ns is None for halt in halts),
        "halts": [asdict(halt) for halt in halts],
        "equity": text(equity),
        "peak": text(account.peak),
        "drawdown": float(account.drawdown),
        "exposure_pct": float(100 * open_value / equity) if equity > 0 else None,
        "limits": asdict(limits),
    }


def opened(account: Account) -> list[dict[str, Any]]:
    """Return what is open with its price and its result before fees, as plain values."""
    return [
        as_plain(p)
        | {
            "price": text(account.prices[p.symbol]),
            "unrealised": text((account.prices[p.symbol] - p.entry_price) * p.quantity),
        }
        for p in account.positions
    ]


def as_plain(position: Position) -> dict[str, Any]:
    """Return `position` as plain values; money is text."""
    return {
        "symbol": position.symbol,
        "quantity": text(position.quantity),
        "entry_price": text(position.entry_price),
        "entry_ns": position.entry_ns,
        "stop_price": None if position.stop_price is None else text(position.stop_price),
        "inference_id": position.inference_id,
    }
