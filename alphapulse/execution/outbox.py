"""Send durable orders, once, and count their fills as soon as those are durable too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from alphapulse.domain.trading import Account, Approved, Fill, Order, Position
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.ledger_tables import KnownOrder
from alphapulse.interfaces import Executor
from alphapulse.logs import get_logger

log = get_logger("execution")
UNFILLED = (
    "nothing was filled: when the order would have arrived the source had ended, the market had "
    "moved past it, or there was nothing to take"
)


class Books(Protocol):
    """What is asked of the portfolio."""

    cash: Decimal
    fees: Decimal
    peak: Decimal

    @property
    def positions(self) -> tuple[Position, ...]:
        """Return what is open."""

    def apply(self, order: Order, fill: Fill) -> bool:
        """Count a fill, once."""

    def mark(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return equity at `prices` and raise the peak to it."""

    def account(
        self,
        event_ns: int,
        prices: Mapping[str, Decimal],
        *,
        extremes: Mapping[str, tuple[Decimal, Decimal]] | None = None,
        is_halted: bool = False,
    ) -> Account:
        """Return what risk rules see."""

    def gross(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return the result before fees."""


class Outbox:
    """Approved orders that are durable and have no durable answer yet, oldest first.

    There are few: those of one instant, or of two where the ledger did not take an answer.
    """

    def __init__(self, ledger: Ledger, executor: Executor, portfolio: Books) -> None:
        self._ledger = ledger
        self._executor = executor
        self._portfolio = portfolio
        self._waiting: list[Approved] = []
        self._answers: dict[str, Sequence[Fill]] = {}  # by order id

    def add(self, approved: Sequence[Approved]) -> None:
        """Take orders that are durable."""
        self._waiting.extend(approved)

    def recall(self, known: Sequence[KnownOrder]) -> None:
        """Count the fills the ledger has of `known`, and take those without an answer."""
        for order in (k.order for k in known if k.state == "filled"):
            for fill in self._ledger.fills_of(order.id):
                self._portfolio.apply(order, fill)
        self.add([Approved(k.order) for k in known if k.state == "sent"])

    async def send(self) -> None:
        """Send what waits and count the fills.

        Raises StoreError if the ledger does not take an answer; it is kept, and the next call
        begins with it. What the executor raises goes on; its order is sent again by the next call.
        """
        for approved in self._waiting:
            if approved.order.id not in self._answers:
                self._answers[approved.order.id] = await self._executor.submit(approved)
        while self._waiting:
            order = self._waiting[0].order
            fills = self._answers[order.id]
            if fills:
                self._ledger.fill(order.id, fills)
            else:
                self._ledger.unfilled(order.id, UNFILLED)
            for fill in fills:
                self._portfolio.apply(order, fill)
            del self._waiting[0], self._answers[order.id]
            log.info(
                "order answered",
                symbol=order.symbol,
                event_ns=order.event_ns,
                order_id=order.id,
                inference_id=order.inference_id,
                purpose=order.purpose.value,
                quantity=order.quantity,
                fills=len(fills),
            )
