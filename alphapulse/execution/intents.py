"""Turn the decisions of one instant into orders, each with the verdict of the risk gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from alphapulse.domain.inference import Action, Decision, inference_id
from alphapulse.domain.market import Mark
from alphapulse.domain.trading import (
    Account,
    Approved,
    Order,
    Position,
    Purpose,
    Refused,
    VenueRules,
)
from alphapulse.execution.account import sign
from alphapulse.execution.ledger_tables import text
from alphapulse.logs import get_logger

log = get_logger("execution")
RESUME = "look into it, then run `alphapulse resume --reason TEXT`; nothing is opened until then"
Verdict = Approved | Refused


class RiskGate(Protocol):
    """What is asked of the risk gate."""

    def review(self, order: Order, account: Account) -> Verdict:
        """Return the order approved as it is, or refused with a reason."""

    def exits(self, account: Account) -> Sequence[Order]:
        """Return what must be closed now, one order a symbol at most."""

    def breach(self, account: Account) -> str | None:
        """Return why trading must halt, with figures; None if it need not."""


class Size(Protocol):
    """How much an entry may be."""

    @property
    def quantity(self) -> Decimal:
        """Return the signed quantity [base currency], 0 where there is no entry."""

    @property
    def stop_price(self) -> Decimal | None:
        """Return where it is closed at a loss [quote currency]."""

    @property
    def reason(self) -> str:
        """Return why there is no entry, empty where there is one."""


class SizeEntry(Protocol):
    """What is asked of the sizing."""

    @property
    def fee(self) -> Decimal:
        """Return the share of an order's notional that the venue takes."""

    def __call__(self, account: Account, *, symbol: str, side: int, risk: float) -> Size:
        """Return the size of an entry on `side` (+1 long, -1 short); `risk` is R [log price]."""


@dataclass(frozen=True, slots=True)
class Intents:
    """Makes the orders of an instant: what risk demands first, then what was decided.

    Attributes:
        run: id of the run, part of every inference id.
        gate: reviews every order.
        size: says how large an entry may be.
        rules: of the venue, by symbol.
    """

    run: str
    gate: RiskGate
    size: SizeEntry
    rules: Mapping[str, VenueRules]

    def of(
        self,
        account: Account,
        decisions: Sequence[Decision],
        marks: Mapping[str, Mark],
        *,
        is_stored: bool,
        entries: bool,
    ) -> list[Verdict]:
        """Return the verdicts in the order they are to be sent.

        A symbol that risk closes at this instant is not entered at it. Each order is reviewed on
        the account as it is after the approved ones before it, at the newest prices.

        Args:
            account: marked at the instant, halted or not.
            decisions: of the instant; none where the inputs were incomplete.
            marks: by symbol.
            is_stored: whether the inferences of the instant are durable; the orders that follow
                from them say so.
            entries: whether positions may be opened; closing goes on without.
        """
        verdicts: list[Verdict] = []
        for demanded in self.gate.exits(account):
            account = self._review(demanded, account, verdicts)
        closed = {verdict.order.symbol for verdict in verdicts}
        for decision in decisions:
            symbol, side = decision.symbol, self._target(decision)
            held = account.position(symbol)
            if symbol in closed or side is None or side == sign(held):
                continue
            if held:
                order = self._order(decision, -held.quantity, Purpose.EXIT, is_stored=is_stored)
                account = self._review(order, account, verdicts)
            if side and entries:
                size = self._sized(decision, account, marks, side=side)
                if size is not None:
                    order = self._order(decision, size.quantity, Purpose.ENTRY, is_stored=is_stored)
                    order = replace(order, stop_price=size.stop_price)
                    account = self._review(order, account, verdicts)
        return verdicts

    def _target(self, decision: Decision) -> int | None:
        """Return which side `decision` wants to be on, None to stay."""
        if decision.action is Action.HOLD:
            return None
        if decision.action is Action.BUY:
            return 1
        return -1 if self.rules[decision.symbol].allow_short else 0

    def _sized(
        self, decision: Decision, account: Account, marks: Mapping[str, Mark], *, side: int
    ) -> Size | None:
        """Return what an entry may be, None where there is none; the reason is logged."""
        symbol = decision.symbol
        size = self.size(account, symbol=symbol, side=side, risk=marks[symbol].risk)
        if size.reason:
            log.info("no entry", symbol=symbol, event_ns=decision.event_ns, reason=size.reason)
            return None
        return size

    def _order(
        self, decision: Decision, quantity: Decimal, purpose: Purpose, *, is_stored: bool
    ) -> Order:
        symbol, event_ns = decision.symbol, decision.event_ns
        return Order(
            symbol=symbol,
            event_ns=event_ns,
            quantity=quantity,
            inference_id=inference_id(run=self.run, symbol=symbol, event_ns=event_ns, model="moe"),
            purpose=purpose,
            is_stored=is_stored,
        )

    def _review(self, order: Order, account: Account, verdicts: list[Verdict]) -> Account:
        """Add the verdict on `order` and return the account as it is after it."""
        verdict = self.gate.review(order, account)
        verdicts.append(verdict)
        if isinstance(verdict, Refused):
            return account
        return _after(account, order, fee=self.size.fee)


def announce(account: Account, verdicts: Sequence[Verdict], halt: str | None) -> None:
    """Log what is durable now: the verdicts of an instant, and why it halted if it did."""
    event_ns = account.event_ns
    if halt is not None:
        log.warning("halted", code="DrawdownHalt", reason=halt, event_ns=event_ns, remedy=RESUME)
    for verdict in verdicts:
        order = verdict.order
        log.info(
            "order refused" if isinstance(verdict, Refused) else "order made",
            symbol=order.symbol,
            event_ns=event_ns,
            order_id=order.id,
            inference_id=order.inference_id,
            purpose=order.purpose.value,
            quantity=text(order.quantity),
            reason=verdict.reason if isinstance(verdict, Refused) else "",
        )


def _after(account: Account, order: Order, *, fee: Decimal) -> Account:
    """Return `account` with `order` filled at the newest price; it closes all or opens all.

    The venue takes `fee`, a share of the notional.
    """
    price = account.prices[order.symbol]
    positions = [p for p in account.positions if p.symbol != order.symbol]
    if len(positions) == len(account.positions):
        positions.append(
            Position(
                symbol=order.symbol,
                quantity=order.quantity,
                entry_price=price,
                entry_ns=order.event_ns,
                inference_id=order.inference_id,
                stop_price=order.stop_price,
                is_stored=order.is_stored,
            )
        )
    cash = account.cash - order.quantity * price - abs(order.quantity) * price * fee
    return replace(account, cash=cash, positions=tuple(positions))
