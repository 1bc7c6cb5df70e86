"""The gate lets through what every rule approves, as it is, and demands one exit a symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.config import Settings, Trading
from alphapulse.domain.trading import Account, Approved, Order, Position, Purpose, Refused
from alphapulse.interfaces import RiskRule
from alphapulse.risk.gate import Gate

ETH, BTC = "ETH/USDT", "BTC/USDT"
ID = "0" * 32
PRICES = {ETH: Decimal(2_500), BTC: Decimal(60_000)}
STOPPED = Position(ETH, Decimal("0.4"), Decimal(2_600), 1, "a" * 32, Decimal(2_550))
FINE = Position(BTC, Decimal("0.01"), Decimal(59_000), 1, "b" * 32, Decimal(50_000))
ENTRY = Order(ETH, 9, Decimal("0.5"), ID, stop_price=Decimal(2_490))


class Refusing(RiskRule):
    """Refuses everything, in its own words."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Refuse."""
        return Refused(order, self.reason)

    def exits(self, account: Account) -> Sequence[Order]:
        """Demand nothing."""
        return []


class Enlarging(Refusing):
    """Breaks its promise: approves ten times what was asked."""

    def review(self, order: Order, account: Account) -> Approved | Refused:
        """Approve more."""
        return Approved(replace(order, quantity=order.quantity * 10))


def flat(*, equity: str = "10000", peak: str = "0", is_halted: bool = False) -> Account:
    return Account(9, Decimal(equity), (), PRICES, Decimal(peak), is_halted)


def test_first_refusal_has_the_word_and_names_its_rule() -> None:
    gate = Gate([Refusing("the first word"), Refusing("the second word")])

    verdict = gate.review(ENTRY, flat())

    assert verdict == Refused(ENTRY, "Refusing: the first word")


@pytest.mark.parametrize(
    ("order", "account", "name"),
    [
        (replace(ENTRY, stop_price=None), flat(), "EntryNeedsStop"),
        (replace(ENTRY, quantity=Decimal("1.1")), flat(), "MaxPosition"),
        (replace(ENTRY, quantity=Decimal(-1), stop_price=Decimal(2_600)), flat(), "NoShort"),
        (ENTRY, flat(is_halted=True), "MaxDrawdown"),
        (ENTRY, flat(peak="11200"), "MaxDrawdown"),
    ],
)
def test_default_gate_holds_every_limit(order: Order, account: Account, name: str) -> None:
    verdict = Gate.of(Settings()).review(order, account)

    assert isinstance(verdict, Refused)
    assert verdict.reason.startswith(f"{name}: ")


def test_default_gate_lets_a_sound_entry_through() -> None:
    assert Gate.of(Settings()).review(ENTRY, flat()) == Approved(ENTRY)


def test_shorts_pass_where_the_settings_permit_them() -> None:
    short = replace(ENTRY, quantity=Decimal("-0.5"), stop_price=Decimal(2_600))

    verdict = Gate.of(Settings(trading=Trading(allow_short=True))).review(short, flat())

    assert verdict == Approved(short)


@pytest.mark.parametrize("is_halted", [False, True])
def test_halt_goes_before_a_stop_and_each_symbol_is_closed_once(is_halted: bool) -> None:
    account = replace(flat(is_halted=is_halted), positions=(FINE, STOPPED))

    exits = Gate.of(Settings()).exits(account)

    expected = {ETH: Purpose.STOP}
    if is_halted:
        expected = {BTC: Purpose.HALT, ETH: Purpose.HALT}
    assert {order.symbol: order.purpose for order in exits} == expected
    assert len(exits) == len(expected)


def test_halt_goes_before_a_stop_in_any_order_of_the_rules() -> None:
    gate = Gate.of(Settings())
    gate._rules = gate._rules[::-1]
    account = replace(flat(is_halted=True), positions=(FINE, STOPPED))

    assert {order.purpose for order in gate.exits(account)} == {Purpose.HALT}


def test_breach_says_with_figures_how_far_equity_fell() -> None:
    gate = Gate.of(Settings())

    assert gate.breach(flat(peak="11111.11")) is None
    assert gate.breach(flat(peak="12500")) == (
        "drawdown 20.0000% reached the limit 10.0000%: equity 10000.00, peak 12500.00"
    )


def test_what_a_rule_enlarged_leaves_the_gate_as_it_was_asked() -> None:
    assert Gate([Enlarging("")]).review(ENTRY, flat()) == Approved(ENTRY)


AMOUNTS = st.decimals("-100", "100", places=4).filter(bool)
MONEY = st.decimals("0.01", "1000000", places=2)


@given(quantity=AMOUNTS, held=AMOUNTS, cash=MONEY, peak=MONEY, stop=MONEY, is_halted=st.booleans())
def test_gate_never_approves_more_than_was_asked_nor_bars_a_way_out(
    quantity: Decimal, held: Decimal, cash: Decimal, peak: Decimal, stop: Decimal, is_halted: bool
) -> None:
    position = Position(ETH, held, Decimal(2_500), 1, ID)
    account = Account(9, cash, (position,), PRICES, peak, is_halted)
    order = Order(ETH, 9, quantity, ID, stop_price=stop)

    verdict = Gate.of(Settings()).review(order, account)

    assert verdict.order == order
    if quantity * held < 0 and abs(quantity) <= abs(held):
        assert verdict == Approved(order)


@given(held=AMOUNTS, stop=MONEY, cash=MONEY, peak=MONEY, is_halted=st.booleans())
def test_exits_of_the_gate_close_what_is_open_and_pass_it(
    held: Decimal, stop: Decimal, cash: Decimal, peak: Decimal, is_halted: bool
) -> None:
    position = Position(ETH, held, Decimal(2_500), 1, ID, stop)
    account = Account(9, cash, (position,), PRICES, peak, is_halted)
    gate = Gate.of(Settings())

    for order in gate.exits(account):
        assert order.quantity == -held
        assert gate.review(order, account) == Approved(order)
