"""Hold every Executor to its promise: only approved orders, filled as asked, sums that agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.domain.trading import Approved, Fill, Order, Position
from alphapulse.interfaces import Executor
from tests.contracts.factories import factory_of
from tests.contracts.finding import assert_documented, implementations

EXPECTED = {"PaperExecutor"}

BUY = Order("ETH/USDT", 5, Decimal("0.5"), "0" * 32)
SELL = replace(BUY, event_ns=6, quantity=Decimal("-0.2"), inference_id="1" * 32)


def submit(executor: Executor, *orders: Order) -> list[Fill]:
    async def submitting() -> list[Fill]:
        return [fill for order in orders for fill in await executor.submit(Approved(order))]

    return asyncio.run(submitting())


def held(executor: Executor) -> dict[str, Decimal]:
    positions = asyncio.run(executor.positions())
    return {position.symbol: position.quantity for position in positions}


def check_docstrings(executor: Executor) -> None:
    assert_documented(type(executor))


def check_only_approved_orders_are_taken(executor: Executor) -> None:
    refused = False
    bare: Any = BUY
    try:
        asyncio.run(executor.submit(bare))
    except Exception:  # whatever says no
        refused = True

    assert refused, "a bare order was taken"
    assert held(executor) == {}


def check_fills_are_of_the_order(executor: Executor) -> None:
    fills = submit(executor, BUY)
    total = sum((fill.quantity for fill in fills), Decimal(0))

    assert fills, "an order in reach was not filled"
    assert all(fill.symbol == BUY.symbol for fill in fills)
    assert all(fill.event_ns >= BUY.event_ns for fill in fills), "filled before it was sent"
    assert all(fill.quantity * BUY.quantity > 0 for fill in fills), "filled on the other side"
    assert abs(total) <= abs(BUY.quantity), "filled more than was asked"
    assert all(fill.price > 0 for fill in fills)


def check_fills_name_their_order(executor: Executor) -> None:
    fills = submit(executor, BUY)

    assert {fill.order_id for fill in fills} == {BUY.id}, "a fill that belongs to no order"


def check_money_is_decimal(executor: Executor) -> None:
    values = [v for f in submit(executor, BUY) for v in (f.quantity, f.price, f.fee)]

    assert values
    assert all(isinstance(value, Decimal) for value in values)


def check_positions_are_the_sum_of_fills(executor: Executor) -> None:
    fills = submit(executor, BUY, SELL)

    assert held(executor) == {BUY.symbol: sum((f.quantity for f in fills), Decimal(0))}


def check_closed_position_is_gone(executor: Executor) -> None:
    bought = sum((f.quantity for f in submit(executor, BUY)), Decimal(0))
    submit(executor, replace(SELL, quantity=-bought))

    assert held(executor) == {}


def check_same_order_is_sent_once(executor: Executor) -> None:
    submit(executor, BUY, BUY)

    assert held(executor) == {BUY.symbol: BUY.quantity}, "a repeated intent was sent again"


class ExampleExecutor(Executor):
    """The smallest executor that keeps the promise: fills at once, at one price."""

    price = Decimal(2_600)

    def __init__(self) -> None:
        self.fills: list[Fill] = []
        self.sent: set[tuple[str, int]] = set()

    async def submit(self, approved: Approved) -> Sequence[Fill]:
        """Fill the order unless it was sent before."""
        order = approved.order
        if (order.inference_id, order.event_ns) in self.sent:
            return []
        self.sent.add((order.inference_id, order.event_ns))
        fill = Fill(
            symbol=order.symbol,
            event_ns=order.event_ns,
            quantity=order.quantity,
            price=self.price,
            fee=Decimal("0.1"),
            order_id=self.name_of(order),
        )
        self.fills.append(fill)
        return [fill]

    def name_of(self, order: Order) -> str:
        """Return what its fills say they belong to."""
        return order.id

    async def positions(self) -> Sequence[Position]:
        """Add up the fills."""
        totals: dict[str, Decimal] = {}
        for fill in self.fills:
            totals[fill.symbol] = totals.get(fill.symbol, Decimal(0)) + fill.quantity
        return [Position(s, q, self.price, entry_ns=1) for s, q in totals.items() if q]


class Lax(ExampleExecutor):
    """Breaks the promise: takes an order without a verdict."""

    async def submit(self, approved: Any) -> Sequence[Fill]:
        """Fill whatever comes."""
        return await super().submit(Approved(getattr(approved, "order", approved)))


class Generous(ExampleExecutor):
    """Breaks the promise: gives more than was asked for."""

    async def submit(self, approved: Approved) -> Sequence[Fill]:
        """Fill the order three times over."""
        return 3 * list(await super().submit(approved))


class Anonymous(ExampleExecutor):
    """Breaks the promise: its fills belong to no order."""

    def name_of(self, order: Order) -> str:
        """Return nothing."""
        return ""


class Floating(ExampleExecutor):
    """Breaks the promise: money is a float."""

    price: Any = 2_600.0


class Repeating(ExampleExecutor):
    """Breaks the promise: sends an order as often as it comes."""

    async def submit(self, approved: Approved) -> Sequence[Fill]:
        """Forget what was sent, then send."""
        self.sent.clear()
        return await super().submit(approved)


class Hoarding(ExampleExecutor):
    """Breaks the promise: never lets a position go."""

    async def positions(self) -> Sequence[Position]:
        """Add one position more."""
        return [*await super().positions(), Position("ETH/USDT", Decimal(0), self.price, 1)]


class Undocumented(ExampleExecutor):
    __doc__ = None


Check = Callable[[Executor], None]
CHECKS: list[Check] = [v for name, v in sorted(globals().items()) if name.startswith("check_")]
BROKEN: list[tuple[Check, type[ExampleExecutor]]] = [
    (check_docstrings, Undocumented),
    (check_only_approved_orders_are_taken, Lax),
    (check_fills_are_of_the_order, Generous),
    (check_fills_name_their_order, Anonymous),
    (check_money_is_decimal, Floating),
    (check_positions_are_the_sum_of_fills, Generous),
    (check_closed_position_is_gone, Hoarding),
    (check_same_order_is_sent_once, Repeating),
]


@pytest.fixture(
    params=[*implementations(Executor).values(), ExampleExecutor], ids=lambda k: k.__name__
)
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param is ExampleExecutor:
        return ExampleExecutor()
    made: Executor = factory_of(request.param)(request)
    return made


def test_suite_holds_every_executor_there_is() -> None:
    assert set(implementations(Executor)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_executor_keeps_its_promise(check: Check, executor: Executor) -> None:
    check(executor)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(check: Check, kind: type[ExampleExecutor]) -> None:
    with pytest.raises(AssertionError):
        check(kind())


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
