"""Hold every RiskRule to its promise: approved as it is or refused, and the same each time."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from alphapulse.domain.trading import Account, Approved, Order, Position, Refused
from alphapulse.interfaces import RiskRule
from tests.contracts.factories import factory_of
from tests.contracts.finding import assert_documented, implementations

EXPECTED = {"EntryNeedsStop", "MaxDrawdown", "MaxPosition", "NoShort", "StopLoss"}

PRICES = {"ETH/USDT": Decimal(2_600), "BTC/USDT": Decimal(61_000)}
HELD = Position("ETH/USDT", Decimal(1), Decimal(2_500), entry_ns=1)
STOPPED = replace(HELD, inference_id="2" * 32, stop_price=Decimal(2_600))
SHORT = Position("BTC/USDT", Decimal(-1), Decimal(60_000), 1, "3" * 32, Decimal(61_000))
ORDER = Order("ETH/USDT", 5, Decimal("0.5"), "0" * 32)
ACCOUNTS = (
    Account(5, Decimal(10_000), (), PRICES),
    Account(5, Decimal(10_000), (HELD,), PRICES),
    Account(5, Decimal(0), (HELD,), {**PRICES, "ETH/USDT": Decimal(1)}),
    Account(5, Decimal(100_000), (SHORT, STOPPED), PRICES),
    Account(5, Decimal(100_000), (SHORT, STOPPED), PRICES, Decimal(90_000), is_halted=True),
)
QUANTITIES = ("0.5", "-0.5", "1000", "-1000")
ORDERS = tuple(
    replace(ORDER, quantity=Decimal(q), symbol=symbol, stop_price=stop)
    for q in QUANTITIES
    for symbol in PRICES
    for stop in (None, Decimal(2_500))
)
CASES = [(order, account) for order in ORDERS for account in ACCOUNTS]


def check_docstrings(rule: RiskRule) -> None:
    assert_documented(type(rule))


def check_order_is_approved_as_it_is_or_refused(rule: RiskRule) -> None:
    for order, account in CASES:
        verdict = rule.review(order, account)

        assert isinstance(verdict, Approved | Refused)
        assert verdict.order == order, "a rule may refuse an order, not change it"
        assert not isinstance(verdict, Refused) or len(verdict.reason) > 3, "say why"


def check_same_order_same_verdict(rule: RiskRule) -> None:
    first = [(rule.review(o, a), list(rule.exits(a))) for o, a in CASES]
    again = [(rule.review(o, a), list(rule.exits(a))) for o, a in CASES]

    assert first == again


def check_nothing_is_changed(rule: RiskRule) -> None:
    before, accounts = pickle.dumps(rule), copy.deepcopy(ACCOUNTS)
    for order, account in CASES:
        rule.review(order, account)
        rule.exits(account)

    assert pickle.dumps(rule) == before, "a verdict changed the rule"
    assert accounts == ACCOUNTS, "a verdict changed the account"


def check_exits_only_close_what_is_open(rule: RiskRule) -> None:
    for account in ACCOUNTS:
        held = {position.symbol: position.quantity for position in account.positions}
        for order in rule.exits(account):
            open_quantity = held.get(order.symbol, Decimal(0))

            assert order.quantity * open_quantity < 0, "an exit must reduce a position"
            assert abs(order.quantity) <= abs(open_quantity), "an exit must not turn a position"


def check_what_only_reduces_is_approved(rule: RiskRule) -> None:
    for account in ACCOUNTS:
        for held in account.positions:
            for share in (Decimal(1), Decimal("0.5")):
                order = replace(ORDER, symbol=held.symbol, quantity=-held.quantity * share)

                assert rule.review(order, account) == Approved(order), "a way out was barred"


class ExampleRule(RiskRule):
    """The smallest rule that keeps the promise: one unit an order, out at half the entry."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Refuse more than one unit."""
        if abs(order.quantity) > 1:
            return Refused(order, f"expected at most 1, was {abs(order.quantity)}")
        return Approved(order)

    def exits(self, account: Account) -> Sequence[Order]:
        """Close what lost half."""
        return [
            Order(p.symbol, account.event_ns, -p.quantity, "0" * 32)
            for p in account.positions
            if account.prices[p.symbol] < p.entry_price / 2
        ]


class Shrinking(ExampleRule):
    """Breaks the promise: makes the order fit."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve one unit, whatever was asked."""
        return Approved(replace(order, quantity=Decimal(1)))


class Moody(ExampleRule):
    """Breaks the promise: every verdict depends on the one before."""

    def __init__(self) -> None:
        self.count = 0

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve one order in seven; the number of cases is no multiple of it."""
        self.count += 1
        return Approved(order) if self.count % 7 == 0 else Refused(order, "not this time")


class Doubling(ExampleRule):
    """Breaks the promise: an exit that opens the other side."""

    def exits(self, account: Account) -> Sequence[Order]:
        """Sell twice what is held."""
        return [replace(o, quantity=2 * o.quantity) for o in super().exits(account)]


class Barring(ExampleRule):
    """Breaks the promise: lets nobody out."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Refuse to sell."""
        return Refused(order, "no sales today") if order.quantity < 0 else Approved(order)


class Undocumented(ExampleRule):
    __doc__ = None


Check = Callable[[RiskRule], None]
CHECKS: list[Check] = [v for name, v in sorted(globals().items()) if name.startswith("check_")]
BROKEN: list[tuple[Check, type[ExampleRule]]] = [
    (check_docstrings, Undocumented),
    (check_order_is_approved_as_it_is_or_refused, Shrinking),
    (check_same_order_same_verdict, Moody),
    (check_nothing_is_changed, Moody),
    (check_exits_only_close_what_is_open, Doubling),
    (check_what_only_reduces_is_approved, Barring),
]


@pytest.fixture(params=[*implementations(RiskRule).values(), ExampleRule], ids=lambda k: k.__name__)
def rule(request: pytest.FixtureRequest) -> RiskRule:
    if request.param is ExampleRule:
        return ExampleRule()
    made: RiskRule = factory_of(request.param)(request)
    return made


def test_suite_holds_every_rule_there_is() -> None:
    assert set(implementations(RiskRule)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rule_keeps_its_promise(check: Check, rule: RiskRule) -> None:
    check(rule)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(check: Check, kind: type[ExampleRule]) -> None:
    with pytest.raises(AssertionError):
        check(kind())


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
