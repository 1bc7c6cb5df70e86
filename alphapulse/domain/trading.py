"""What is traded: orders with their verdict, fills, positions and the account rules see."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import Floats

ZERO = Decimal(0)


class Purpose(StrEnum):
    """Why an order is sent; only an entry may be refused for risk, the others reduce it."""

    ENTRY = "entry"
    EXIT = "exit"  # a decision asks for less or for the other side
    STOP = "stop"  # the stop-loss was reached
    HALT = "halt"  # trading was halted: what is open is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueRules:
    """What a venue lets through for one instrument.

    Attributes:
        tick_size: smallest price step [quote currency].
        quantity_step: smallest quantity step [base currency].
        min_notional: least price times quantity [quote currency].
        allow_short: whether a position may be negative.
    """

    tick_size: Decimal
    quantity_step: Decimal
    min_notional: Decimal
    allow_short: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What we want.

    Attributes:
        quantity: signed, base currency; positive buys.
        inference_id: the orchestrator's inference it follows from, or that of the entry whose
            position it closes; no order exists without one.
        stop_price: where the position it opens is closed at a loss [quote currency]; None where
            it opens none.
        is_stored: whether the inference was durable when the order was made; else it is flagged.
    """

    symbol: str
    event_ns: int
    quantity: Decimal
    inference_id: str
    purpose: Purpose = Purpose.ENTRY
    stop_price: Decimal | None = None
    is_stored: bool = True

    def __post_init__(self) -> None:
        if not self.inference_id or not self.quantity:
            raise InvalidRequest(
                f"{self.symbol} order at {self.event_ns}: expected an inference id and a quantity, "
                f"was {self.inference_id!r} and {self.quantity}; make it from a decision"
            )

    @property
    def id(self) -> str:
        """Return the client order id, derived from the intent: the same intent is sent once."""
        intent = f"{self.inference_id}|{self.symbol}|{self.event_ns}|{self.purpose}"
        return hashlib.sha256(intent.encode()).digest()[:16].hex()


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
class Quote:
    """What an order that arrives at `event_ns` meets.

    Attributes:
        event_ns: when it arrives [ns UTC].
        source: `book` (resting orders), `trade` (the book is unknown: the newest trade), or `open`
            (no ticks: the next bar's open).
        price: newest trade, or that open [quote currency].
        bids_L2: float64 (levels, 2) price and size, best first; empty unless `source` is `book`.
        asks_L2: as bids.
    """

    symbol: str
    event_ns: int
    source: str
    price: float
    bids_L2: Floats
    asks_L2: Floats


@dataclass(frozen=True, slots=True)
class Fill:
    """What we got: signed quantity [base currency] at a price, with the fee [quote currency].

    Attributes:
        order_id: of the order it belongs to.
        source: what filled it, as in Quote.
    """

    symbol: str
    event_ns: int
    quantity: Decimal
    price: Decimal
    fee: Decimal
    order_id: str = ""
    source: str = "book"


@dataclass(frozen=True, slots=True)
class Position:
    """Open exposure in one instrument: signed quantity [base currency] and entry.

    Attributes:
        entry_ns: when it was opened [ns UTC].
        inference_id: of the decision that opened it.
        stop_price: where it is closed at a loss [quote currency], None where nothing was set.
        is_stored: whether that inference was durable when its order was made.
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    entry_ns: int
    inference_id: str = ""
    stop_price: Decimal | None = None
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class Account:
    """Positions, cash [quote currency] and current prices: what risk rules see.

    Attributes:
        prices: newest traded price by symbol [quote currency].
        peak: highest equity so far [quote currency]; 0 before the first.
        is_halted: whether trading is halted.
        extremes: lowest and highest price by symbol since the instant before; a symbol that is
            absent has traded at its price only.
    """

    event_ns: int
    cash: Decimal
    positions: tuple[Position, ...]
    prices: Mapping[str, Decimal]
    peak: Decimal = ZERO
    is_halted: bool = False
    extremes: Mapping[str, tuple[Decimal, Decimal]] = field(default_factory=dict)

    @property
    def equity(self) -> Decimal:
        """Return cash and what is open at current prices, unrealised results included."""
        return self.cash + sum((p.quantity * self.prices[p.symbol] for p in self.positions), ZERO)

    @property
    def drawdown(self) -> Decimal:
        """Return by which share equity is below its peak, 0 at or above it."""
        if self.peak <= 0:
            return ZERO
        return max(ZERO, 1 - self.equity / self.peak)

    def position(self, symbol: str) -> Position | None:
        """Return what is open in `symbol`, None if nothing is."""
        return next((p for p in self.positions if p.symbol == symbol), None)


def decimal_of(value: float, *, step: Decimal) -> Decimal:
    """Return a price or size of the market as money: the nearest multiple of `step`."""
    return (Decimal(repr(float(value))) / step).to_integral_value() * step


def rounded_down(value: Decimal, *, step: Decimal) -> Decimal:
    """Return the multiple of `step` towards zero: never more than was asked."""
    return (value / step).to_integral_value(rounding=ROUND_DOWN) * step
