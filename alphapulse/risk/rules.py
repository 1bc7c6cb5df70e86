"""The limits: a stop-loss for each entry, a largest position, a drawdown that halts, no shorts.

An order that only reduces exposure is refused by none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from alphapulse.domain.trading import (
    ZERO,
    Account,
    Approved,
    Order,
    Position,
    Purpose,
    Refused,
)
from alphapulse.interfaces import RiskRule


class StopLoss(RiskRule):
    """Closes a position once a trade reached its stop, also one between two instants."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve every order: a stop only demands."""
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Return an order that closes each position whose stop was reached."""
        reached = [p for p in account.positions if _is_stopped(p, account)]
        return [_closing(p, account, Purpose.STOP) for p in reached]


class EntryNeedsStop(RiskRule):
    """Refuses an order that opens exposure without a stop on the side of its loss."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve what reduces, and what has a stop below (long) or above (short) the price."""
        price = account.prices.get(order.symbol)
        if only_reduces(order, account):
            return Approved(order)
        if price is None:
            return Refused(order, f"no price of {order.symbol} to hold the stop against")
        stop = order.stop_price
        if stop is None or stop <= 0 or (price - stop) * order.quantity <= 0:
            side = "below" if order.quantity > 0 else "above"
            return Refused(order, f"expected a stop {side} the price {price}, was {stop}")
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Demand nothing."""
        return []


class MaxPosition(RiskRule):
    """Refuses an order after which a position would be more than a share of equity.

    Attributes:
        limit: largest share of equity in one instrument, such as 0.25.
    """

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve what reduces, and what stays within the limit at the newest price."""
        if only_reduces(order, account):
            return Approved(order)
        price = account.prices.get(order.symbol)
        if price is None:
            return Refused(order, f"no price of {order.symbol} to value the position at")
        notional = abs(_after(order, account)) * price
        most = self.limit * account.equity
        if notional > most:
            return Refused(order, f"expected a position of at most {most:.2f}, was {notional:.2f}")
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Demand nothing: a position that outgrew its share is left to its stop."""
        return []


class MaxDrawdown(RiskRule):
    """Refuses entries and closes everything while halted, or once equity fell too far.

    Attributes:
        limit: share of the peak at which it acts, such as 0.1.
    """

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit

    def is_breached(self, account: Account) -> bool:
        """Return whether equity, unrealised results included, is too far below its peak."""
        return account.drawdown >= self.limit

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve what reduces, and everything while trading is not halted."""
        if only_reduces(order, account):
            return Approved(order)
        if account.is_halted:
            return Refused(order, "trading is halted")
        if self.is_breached(account):
            return Refused(order, describe_breach(account, self.limit))
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Return orders that close everything while halted or at the limit."""
        if not (account.is_halted or self.is_breached(account)):
            return []
        return [_closing(p, account, Purpose.HALT) for p in account.positions]


class NoShort(RiskRule):
    """Refuses what would make a position negative where the venue permits none.

    Attributes:
        permitted: symbols that may be sold short.
    """

    def __init__(self, permitted: frozenset[str]) -> None:
        self.permitted = permitted

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve what reduces, what leaves no negative position, and what the venue permits."""
        after = _after(order, account)
        if after >= 0 or order.symbol in self.permitted or only_reduces(order, account):
            return Approved(order)
        return Refused(order, f"expected no position below 0 at this venue, was {after}")

    def exits(self, account: Account) -> Sequence[Order]:
        """Demand nothing."""
        return []


def only_reduces(order: Order, account: Account) -> bool:
    """Return whether `order` closes a position or a part of it, and opens nothing."""
    held = account.position(order.symbol)
    if held is None:
        return False
    return order.quantity * held.quantity < 0 and abs(order.quantity) <= abs(held.quantity)


def describe_breach(account: Account, limit: Decimal) -> str:
    """Return the drawdown beside its limit, with the figures it comes from."""
    return (
        f"drawdown {account.drawdown:.4%} reached the limit {limit:.4%}: "
        f"equity {account.equity:.2f}, peak {account.peak:.2f}"
    )


def _after(order: Order, account: Account) -> Decimal:
    held = account.position(order.symbol)
    return order.quantity + (held.quantity if held else ZERO)


def _is_stopped(position: Position, account: Account) -> bool:
    if position.stop_price is None:
        return False
    price = account.prices[position.symbol]
    low, high = account.extremes.get(position.symbol, (price, price))
    if position.quantity > 0:
        return low <= position.stop_price
    return high >= position.stop_price


def _closing(position: Position, account: Account, purpose: Purpose) -> Order:
    return Order(
        symbol=position.symbol,
        event_ns=account.event_ns,
        quantity=-position.quantity,
        inference_id=position.inference_id,
        purpose=purpose,
        is_stored=position.is_stored,
    )
