"""The one road from an order to an executor: past every rule, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Self

from alphapulse.config import Settings
from alphapulse.domain.trading import Account, Approved, Order, Purpose, Refused
from alphapulse.interfaces import RiskRule
from alphapulse.risk.rules import (
    EntryNeedsStop,
    MaxDrawdown,
    MaxPosition,
    NoShort,
    StopLoss,
    describe_breach,
)


class Gate:
    """Asks every rule; the first one that refuses has the word.

    ```python
    for order in [*gate.exits(account), *entries]:
        verdict = gate.review(order, account)
        if isinstance(verdict, Approved):
            fills = await executor.submit(verdict)
    ```
    """

    def __init__(self, rules: Sequence[RiskRule]) -> None:
        self._rules = tuple(rules)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the gate of all rules with the limits of `settings`."""
        risk = settings.risk
        permitted = [symbol for symbol, r in settings.venue_rules.items() if r.allow_short]
        return cls(
            [
                MaxDrawdown(Decimal(repr(risk.max_drawdown_pct)) / 100),
                StopLoss(),
                EntryNeedsStop(),
                NoShort(frozenset(permitted)),
                MaxPosition(Decimal(repr(risk.max_position_pct)) / 100),
            ]
        )

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Return `order` as it is, approved by every rule, or refused with the rule's name."""
        for rule in self._rules:
            verdict = rule.review(order, account)
            if isinstance(verdict, Refused):
                return Refused(order, f"{type(rule).__name__}: {verdict.reason}")
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Return what the rules demand now, one order a symbol at most, a halt before a stop.

        Each is still to be reviewed, as every order is.
        """
        chosen: dict[str, Order] = {}
        for order in (order for rule in self._rules for order in rule.exits(account)):
            known = chosen.get(order.symbol)
            if known is None or (order.purpose, known.purpose) == (Purpose.HALT, Purpose.STOP):
                chosen[order.symbol] = order
        return list(chosen.values())

    def breach(self, account: Account) -> str | None:
        """Return with figures how far equity fell if that must halt trading, else None."""
        for rule in self._rules:
            if isinstance(rule, MaxDrawdown) and rule.is_breached(account):
                return describe_breach(account, rule.limit)
        return None
