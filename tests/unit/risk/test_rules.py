"""Each limit at its edge: what it lets through, what it refuses, what it demands."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.trading import Account, Approved, Order, Position, Purpose, Refused
from alphapulse.interfaces import RiskRule
from alphapulse.risk.rules import EntryNeedsStop, MaxDrawdown, MaxPosition, NoShort, StopLoss

ETH, BTC = "ETH/USDT", "BTC/USDT"
ID = "0" * 32
PRICES = {ETH: Decimal(2_500), BTC: Decimal(60_000)}
LONG = Position(ETH, Decimal("1"), Decimal(2_520), 1, "a" * 32, Decimal(2_480))
SHORT = Position(BTC, Decimal("-0.1"), Decimal(59_000), 1, "b" * 32, Decimal(60_500))
FLAT = Account(9, Decimal(10_000), (), PRICES)
HELD = Account(9, Decimal(13_500), (SHORT, LONG), PRICES)  # equity 10 000


def an_order(quantity: str, *, stop: str | None = None, symbol: str = ETH) -> Order:
    stop_price = None if stop is None else Decimal(stop)
    return Order(symbol, 9, Decimal(quantity), ID, stop_price=stop_price)


def is_refused(rule: RiskRule, order: Order, account: Account) -> bool:
    return isinstance(rule.review(order, account), Refused)


@pytest.mark.parametrize(
    ("low", "is_stopped"), [("2480.01", False), ("2480.00", True), ("2400", True)]
)
def test_stop_loss_closes_long_when_low_touches_stop(low: str, is_stopped: bool) -> None:
    account = replace(HELD, extremes={ETH: (Decimal(low), Decimal(2_600))})

    orders = StopLoss().exits(account)

    closing = Order(ETH, 9, Decimal(-1), LONG.inference_id, Purpose.STOP)
    assert orders == ([closing] if is_stopped else [])


@pytest.mark.parametrize(
    ("high", "is_stopped"), [("60499.99", False), ("60500", True), ("61000", True)]
)
def test_stop_loss_closes_short_when_high_touches_stop(high: str, is_stopped: bool) -> None:
    account = replace(HELD, extremes={BTC: (Decimal(1), Decimal(high))})

    orders = StopLoss().exits(account)

    closing = Order(BTC, 9, Decimal("0.1"), SHORT.inference_id, Purpose.STOP)
    assert orders == ([closing] if is_stopped else [])


@pytest.mark.parametrize(("price", "num_orders"), [("2480.01", 0), ("2480", 1)])
def test_stop_loss_takes_the_price_where_no_extremes_are_known(price: str, num_orders: int) -> None:
    account = replace(HELD, prices={**PRICES, ETH: Decimal(price)})

    assert len(StopLoss().exits(account)) == num_orders


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("rule", [StopLoss(), MaxDrawdown(Decimal("0.1"))])
def test_what_a_rule_closes_is_flagged_as_the_entry_it_cites(rule: RiskRule, stored: bool) -> None:
    position = replace(LONG, stop_price=PRICES[ETH], is_stored=stored)
    account = replace(HELD, positions=(position,), is_halted=True)

    (closing,) = rule.exits(account)

    assert (closing.inference_id, closing.is_stored) == (position.inference_id, stored)


def test_stop_loss_leaves_a_position_without_a_stop_alone() -> None:
    account = replace(HELD, positions=(replace(LONG, stop_price=None),))

    assert StopLoss().exits(account) == []


@pytest.mark.parametrize(
    ("quantity", "stop", "refused"),
    [
        ("1", "2499.99", False),
        ("1", "2500", True),
        ("1", "2600", True),
        ("1", "0", True),
        ("1", None, True),
        ("-1", "2500.01", False),
        ("-1", "2500", True),
        ("-1", "2400", True),
        ("-1", None, True),
    ],
)
def test_entry_needs_a_stop_on_the_side_of_its_loss(
    quantity: str, stop: str | None, refused: bool
) -> None:
    assert is_refused(EntryNeedsStop(), an_order(quantity, stop=stop), FLAT) is refused


def test_order_through_zero_needs_a_stop() -> None:
    assert not is_refused(EntryNeedsStop(), an_order("-1"), HELD)
    assert is_refused(EntryNeedsStop(), an_order("-1.5"), HELD)


@pytest.mark.parametrize(
    ("quantity", "account", "refused"),
    [
        ("1", FLAT, False),  # 2 500 of 10 000 is a quarter, to the cent
        ("1.0001", FLAT, True),
        ("-1", FLAT, False),
        ("-1.0001", FLAT, True),
        ("0.0001", HELD, True),  # with what is held
        ("-2", HELD, False),  # turned: 2 500 short
        ("-2.0001", HELD, True),
        ("-1", HELD, False),
    ],
)
def test_position_is_at_most_its_share_of_equity(
    quantity: str, account: Account, refused: bool
) -> None:
    assert is_refused(MaxPosition(Decimal("0.25")), an_order(quantity), account) is refused


def test_nothing_opens_where_equity_is_gone() -> None:
    broke = replace(FLAT, cash=Decimal(-1))

    assert is_refused(MaxPosition(Decimal("0.25")), an_order("0.0001"), broke)


@pytest.mark.parametrize("rule", [MaxPosition(Decimal("0.25")), EntryNeedsStop()])
def test_order_of_a_symbol_without_a_price_is_refused(rule: RiskRule) -> None:
    verdict = rule.review(an_order("1", stop="1", symbol="SOL/USDT"), FLAT)

    assert isinstance(verdict, Refused)
    assert "no price of SOL/USDT" in verdict.reason


@pytest.mark.parametrize(
    ("peak", "is_breached"), [("10000", False), ("11111.11", False), ("11111.12", True)]
)
def test_drawdown_counts_what_is_open_and_acts_at_its_limit(peak: str, is_breached: bool) -> None:
    account = replace(HELD, peak=Decimal(peak))
    rule = MaxDrawdown(Decimal("0.1"))

    exits = rule.exits(account)

    assert rule.is_breached(account) is is_breached
    assert [order.purpose for order in exits] == 2 * [Purpose.HALT] * is_breached
    assert is_refused(rule, an_order("0.1"), account) is is_breached


@pytest.mark.parametrize(("peak", "is_breached"), [("12499.99", False), ("12500", True)])
def test_drawdown_of_exactly_the_limit_is_a_breach(peak: str, is_breached: bool) -> None:
    account = replace(FLAT, peak=Decimal(peak))

    assert MaxDrawdown(Decimal("0.2")).is_breached(account) is is_breached


def test_halted_account_is_closed_and_not_entered() -> None:
    halted = replace(HELD, is_halted=True)
    rule = MaxDrawdown(Decimal("0.1"))

    closing = {order.symbol: order.quantity for order in rule.exits(halted)}

    assert closing == {ETH: Decimal(-1), BTC: Decimal("0.1")}
    assert is_refused(rule, an_order("0.1"), halted)
    assert not is_refused(rule, an_order("-1"), halted)


@pytest.mark.parametrize(
    ("permitted", "quantity", "account", "refused"),
    [
        (frozenset(), "-0.0001", FLAT, True),
        (frozenset(), "-1", HELD, False),
        (frozenset(), "-1.0001", HELD, True),
        (frozenset(), "1", FLAT, False),
        (frozenset({BTC}), "-1", FLAT, True),
        (frozenset({ETH}), "-1", FLAT, False),
    ],
)
def test_no_position_is_negative_where_the_venue_permits_none(
    permitted: frozenset[str], quantity: str, account: Account, refused: bool
) -> None:
    assert is_refused(NoShort(permitted), an_order(quantity), account) is refused


RULES = [
    StopLoss(),
    EntryNeedsStop(),
    MaxPosition(Decimal("0.01")),
    MaxDrawdown(Decimal("0.01")),
    NoShort(frozenset()),
]
QUANTITIES = st.decimals("0.0001", "1000", places=4)


@given(held=QUANTITIES, share=st.decimals("0.01", "1", places=2), is_long=st.booleans(),
       is_halted=st.booleans(), peak=st.decimals(0, 10**6, places=2))  # fmt: skip
def test_order_that_only_reduces_is_approved_by_every_rule(
    held: Decimal, share: Decimal, is_long: bool, is_halted: bool, peak: Decimal
) -> None:
    quantity = held if is_long else -held
    position = Position(ETH, quantity, Decimal(2_500), 1, ID)
    account = Account(9, Decimal(100), (position,), PRICES, peak, is_halted)
    order = Order(ETH, 9, -quantity * share, ID, Purpose.EXIT)

    for rule in RULES:
        assert rule.review(order, account) == Approved(order)
