"""An entry loses its share of equity at its stop, within every limit, or is none with a reason."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.config import Risk, Settings, Trading
from alphapulse.domain.trading import Account, Approved, Order, Position
from alphapulse.portfolio.allocation import Size, Sizing
from alphapulse.risk.gate import Gate

ETH = "ETH/USDT"
SPOT = Settings()
MARGIN = Settings(trading=Trading(allow_short=True))


def flat(price: str | Decimal = "2500", cash: str | Decimal = "10000") -> Account:
    return Account(9, Decimal(cash), (), {ETH: Decimal(price)})


def sized(
    account: Account,
    *,
    side: int = 1,
    risk: float = 0.04,
    limits: Risk | None = None,
    settings: Settings = SPOT,
) -> Size:
    sizing = Sizing(limits or Risk(), settings.venue_rules, fee_bps=settings.trading.fee_bps)
    return sizing(account, symbol=ETH, side=side, risk=risk)


def test_long_loses_its_share_of_equity_at_its_stop() -> None:
    size = sized(flat())

    # 2500 * exp(-0.04) = 2401.97; 0.5 % of 10 000 is 50; 50 / 98.03 = 0.51005
    assert size == Size(Decimal("0.5100"), Decimal("2401.97"))


def test_short_has_its_stop_above() -> None:
    size = sized(flat(), side=-1, settings=MARGIN)

    # 2500 * exp(0.04) = 2602.03; 50 / 102.03 = 0.49005
    assert size == Size(Decimal("-0.4900"), Decimal("2602.03"))


def test_stop_is_as_many_r_away_as_the_settings_say() -> None:
    size = sized(flat(), risk=0.02, limits=Risk(stop_r=2.0))

    assert size == sized(flat(), risk=0.04)


def test_position_is_at_most_its_share_of_equity() -> None:
    size = sized(flat(), risk=0.001)

    assert size.quantity == Decimal(1)  # 25 % of 10 000 at 2 500, where risk alone would give 20


def test_entry_and_its_fee_cost_no_more_than_the_cash_where_nothing_is_lent() -> None:
    limits = Risk(max_position_pct=100.0, risk_pct=100.0)

    position = Position("BTC/USDT", Decimal(1), Decimal(60_000), 1)
    prices = {ETH: Decimal(2_500), "BTC/USDT": Decimal(60_000)}
    account = Account(9, Decimal(100), (position,), prices)

    # 100 is 0.04 at 2 500, and its fee of 0.1 is one more than there is
    assert sized(account, limits=limits).quantity == Decimal("0.0399")
    assert sized(account, limits=limits, settings=MARGIN).quantity == Decimal("24.04")


@pytest.mark.parametrize("risk", [math.nan, 0.0, -0.01, math.inf])
def test_unknown_risk_is_no_entry(risk: float) -> None:
    size = sized(flat(), risk=risk)

    assert (size.quantity, size.stop_price) == (Decimal(0), None)
    assert "risk is not known" in size.reason


def test_stop_within_a_tick_of_the_price_is_no_entry() -> None:
    assert "no room for a stop" in sized(flat(), risk=1e-7).reason


@pytest.mark.parametrize(
    ("cash", "quantity"),
    [("20.40", "0.0020"), ("20.00", "0.0020"), ("19.99", "0")],
)
def test_least_notional_is_checked_after_rounding_down(cash: str, quantity: str) -> None:
    size = sized(flat(cash=cash), risk=0.001)  # a quarter of the cash, 2 500 an ETH: 5 is 0.002

    assert size.quantity == Decimal(quantity)
    assert bool(size.reason) is (size.quantity == 0)


def test_least_notional_is_that_of_the_rounded_quantity() -> None:
    size = sized(flat("2600", cash="20.40"), risk=0.001)  # 5.10 is 0.00196, rounded down 4.94

    assert "too small for the venue: 0.0019 at 2600" in size.reason


@pytest.mark.parametrize("cash", ["0", "-100"])
def test_account_without_equity_enters_nothing(cash: str) -> None:
    size = sized(flat(cash=cash))

    assert size.quantity == 0
    assert "too small" in size.reason


@given(
    price=st.decimals("0.05", "99999.99", places=2),
    cash=st.decimals("1", "1000000", places=2),
    fee_bps=st.floats(0, 100),
)
def test_whole_account_pays_for_its_entry_and_the_fee(
    price: Decimal, cash: Decimal, fee_bps: float
) -> None:
    limits, trading = Risk(risk_pct=100.0, max_position_pct=100.0), Trading(fee_bps=fee_bps)
    settings = Settings(trading=trading, risk=limits)

    size = sized(flat(price, cash), limits=limits, settings=settings)

    notional = size.quantity * price
    assert notional + notional * Decimal(repr(fee_bps)) / 10_000 <= cash


@given(
    price=st.decimals("0.05", "99999.99", places=2),
    cash=st.decimals("1", "1000000", places=2),
    risk=st.floats(1e-6, 0.5),
    side=st.sampled_from([1, -1]),
    risk_pct=st.floats(0.01, 100),
    max_position_pct=st.floats(0.01, 100),
)
def test_size_keeps_every_limit_and_passes_the_gate(
    price: Decimal, cash: Decimal, risk: float, side: int, risk_pct: float, max_position_pct: float
) -> None:
    limits = Risk(risk_pct=risk_pct, max_position_pct=max_position_pct)
    settings = Settings(trading=Trading(allow_short=True), risk=limits)
    rules, account = settings.venue_rules[ETH], flat(price, cash)

    size = sized(account, side=side, risk=risk, limits=limits, settings=settings)

    if size.reason:
        assert not size.quantity
        return
    assert size.stop_price is not None
    amount, distance = abs(size.quantity), abs(price - size.stop_price)
    assert size.quantity * side > 0
    assert amount % rules.quantity_step == 0
    assert size.stop_price % rules.tick_size == 0
    assert amount * price >= rules.min_notional
    assert amount * distance <= cash * Decimal(repr(risk_pct)) / 100
    assert amount * price <= cash * Decimal(repr(max_position_pct)) / 100
    order = Order(ETH, 9, size.quantity, "0" * 32, stop_price=size.stop_price)
    assert Gate.of(settings).review(order, account) == Approved(order)
