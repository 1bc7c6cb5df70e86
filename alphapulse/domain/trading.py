"""What is traded: orders with their verdict, fills, positions and the account rules see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Order:
    """What we want.

    Attributes:
        quantity: signed, base currency; positive buys.
        inference_id: the orchestrator's inference it follows from; no order exists without one.
    """

    symbol: str
    event_ns: int
    quantity: Decimal
    inference_id: str


@dataclass(frozen=True, slots=True)
class Approved:
    """An order that passed every risk rule; only an executor takes it, and nothing else."""

    order: Order


@dataclass(frozen=True, slots=True)
class Refused:
    """An order that a risk rule stopped, and why."""

    order: Order
    reason: str


@dataclass(frozen=True, slots=True)
class Fill:
    """What we got: signed quantity [base currency] at a price, with the fee [quote currency]."""

    symbol: str
    event_ns: int
    quantity: Decimal
    price: Decimal
    fee: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """Open exposure in one instrument: signed quantity [base currency] and entry.

    Attributes:
        entry_ns: when it was opened [ns UTC].
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    entry_ns: int


@dataclass(frozen=True, slots=True)
class Account:
    """Positions, cash [quote currency] and current prices: what risk rules see."""

    event_ns: int
    cash: Decimal
    positions: tuple[Position, ...]
    prices: Mapping[str, Decimal]
