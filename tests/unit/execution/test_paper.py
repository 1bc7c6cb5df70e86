"""Paper fills walk the book that was there, cost the venue's fee and never flatter us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.config import Market, Settings, Trading
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import InvalidRequest, Unavailable
from alphapulse.domain.market import BookDelta
from alphapulse.domain.trading import Approved, Fill, Order, Position, Quote
from alphapulse.execution.paper import PaperExecutor

ETH = "ETH/USDT"
MS = 1_000_000
BUY = Order(ETH, 5_000 * MS, Decimal("0.5"), "a" * 32, stop_price=Decimal(2_400))
SELL = replace(BUY, quantity=Decimal("-0.5"), inference_id="b" * 32, stop_price=None)
BOOK = Quote(
    ETH,
    5_100 * MS,
    "book",
    2_500.0,
    np.array([[2499.99, 0.2], [2499.90, 0.2], [2499.00, 9.0]]),
    np.array([[2500.01, 0.3], [2500.10, 0.1], [2501.00, 0.4]]),
)
EMPTY = np.empty((0, 2))


class Venue:
    """Answers with one quote, and checks that it is asked for the order's arrival."""

    def __init__(self, quote: Quote | None, *, expected_ns: int = 5_100 * MS) -> None:
        self.quote = quote
        self.expected_ns = expected_ns
        self.num_asked = 0
        self.is_down = False

    async def __call__(self, symbol: str, event_ns: int) -> Quote | None:
        assert (symbol, event_ns) == (ETH, self.expected_ns)
        self.num_asked += 1
        if self.is_down:
            raise Unavailable("market: expected an answer, was none; wait")
        return self.quote


def an_executor(market: Venue | Quote | None, *, trading: Trading | None = None) -> PaperExecutor:
    settings = Settings(trading=trading or Trading())
    ask = market if isinstance(market, Venue) else Venue(market)
    return PaperExecutor(ask, rules=settings.venue_rules, trading=settings.trading)


def submit(executor: PaperExecutor, *orders: Order) -> list[Fill]:
    async def submitting() -> list[Fill]:
        return [fill for order in orders for fill in await executor.submit(Approved(order))]

    return asyncio.run(submitting())


def held(executor: PaperExecutor) -> Sequence[Position]:
    return asyncio.run(executor.positions())


def test_buy_takes_the_asks_level_by_level() -> None:
    fills = submit(an_executor(BOOK), BUY)

    assert [(f.price, f.quantity, f.fee) for f in fills] == [
        (Decimal("2500.01"), Decimal("0.3"), Decimal("0.750003")),
        (Decimal("2500.10"), Decimal("0.1"), Decimal("0.25001")),
        (Decimal("2501.00"), Decimal("0.1"), Decimal("0.2501")),
    ]
    assert {(f.symbol, f.event_ns, f.order_id, f.source) for f in fills} == {
        (ETH, 5_100 * MS, BUY.id, "book")
    }


def test_sell_takes_the_bids_level_by_level() -> None:
    fills = submit(an_executor(BOOK), SELL)

    assert [(f.price, f.quantity) for f in fills] == [
        (Decimal("2499.99"), Decimal("-0.2")),
        (Decimal("2499.90"), Decimal("-0.2")),
        (Decimal("2499.00"), Decimal("-0.1")),
    ]
    assert all(f.fee > 0 for f in fills)


def test_what_the_book_does_not_hold_is_not_filled() -> None:
    fills = submit(an_executor(BOOK), replace(BUY, quantity=Decimal(2)))

    assert sum(fill.quantity for fill in fills) == Decimal("0.8")


def test_empty_side_of_the_book_fills_nothing() -> None:
    assert submit(an_executor(replace(BOOK, asks_L2=EMPTY)), BUY) == []


@pytest.mark.parametrize("latency_ms", [0, 250, 999])
def test_order_arrives_after_the_latency(latency_ms: int) -> None:
    market = Venue(BOOK, expected_ns=(5_000 + latency_ms) * MS)

    assert submit(an_executor(market, trading=Trading(latency_ms=latency_ms)), BUY)


@pytest.mark.parametrize(
    ("order", "open", "price"),
    [(BUY, 2500.0, "2500.25"), (SELL, 2500.0, "2499.75"),
     (BUY, 2500.01, "2500.27"), (SELL, 2500.01, "2499.75")],
)  # fmt: skip
@pytest.mark.parametrize("source", ["open", "trade"])
def test_without_a_book_the_price_is_half_a_spread_worse_rounded_against_us(
    order: Order, open: float, price: str, source: str
) -> None:
    quote = Quote(ETH, 60_000 * MS, source, open, EMPTY, EMPTY)

    (fill,) = submit(an_executor(quote), order)

    assert (fill.price, fill.quantity) == (Decimal(price), order.quantity)
    assert (fill.event_ns, fill.source) == (60_000 * MS, source)


def test_ended_source_fills_nothing() -> None:
    executor = an_executor(None)

    assert submit(executor, BUY) == []
    assert held(executor) == []


def test_same_order_is_sent_once() -> None:
    market = Venue(BOOK)
    executor = an_executor(market)

    first, again = submit(executor, BUY), submit(executor, BUY)

    assert first
    assert again == []
    assert market.num_asked == 1


def test_order_that_never_arrived_may_be_sent_again() -> None:
    market = Venue(BOOK)
    executor = an_executor(market)
    market.is_down = True
    with pytest.raises(Unavailable):
        submit(executor, BUY)
    market.is_down = False

    assert submit(executor, BUY)


def test_bare_order_is_refused_by_name() -> None:
    bare: Any = BUY

    with pytest.raises(InvalidRequest, match="expected an Approved, was Order"):
        asyncio.run(an_executor(BOOK).submit(bare))


def test_positions_are_those_of_its_fills() -> None:
    executor = an_executor(BOOK)

    submit(executor, BUY, SELL, replace(SELL, inference_id="c" * 32))

    (short,) = held(executor)
    assert (short.quantity, short.entry_price) == (Decimal("-0.5"), Decimal("2499.756"))
    assert short.inference_id == "c" * 32


def test_turned_position_is_a_new_one() -> None:
    executor = an_executor(BOOK)

    submit(executor, replace(BUY, quantity=Decimal("0.2")), replace(SELL, is_stored=False))

    (short,) = held(executor)
    assert (short.quantity, short.stop_price) == (Decimal("-0.3"), None)
    assert not short.is_stored


@given(
    gaps=st.lists(st.integers(1, 500), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 50_000), min_size=8, max_size=8),
    amount=st.integers(1, 100_000),
    is_buy=st.booleans(),
)
def test_walk_fills_what_is_there_at_the_best_prices_and_no_more(
    gaps: list[int], sizes: list[int], amount: int, is_buy: bool
) -> None:
    distance = np.cumsum(gaps) / 100
    sizes_L = np.array(sizes[: len(gaps)]) / 10_000
    side_L2 = np.stack([2_500 + (distance if is_buy else -distance), sizes_L], axis=1)
    quote = replace(BOOK, **{"asks_L2" if is_buy else "bids_L2": side_L2})
    quantity = Decimal(amount if is_buy else -amount) / 10_000

    fills = submit(an_executor(quote), replace(BUY, quantity=quantity))

    there = sum(Decimal(size) for size in sizes[: len(gaps)]) / 10_000
    assert abs(sum(f.quantity for f in fills)) == min(abs(quantity), there)
    assert [float(f.price) for f in fills] == pytest.approx(side_L2[: len(fills), 0].tolist())
    for fill, size in zip(fills[:-1], sizes, strict=False):
        assert abs(fill.quantity) == Decimal(size) / 10_000


@pytest.mark.parametrize("quantity", ["0.0001", "-25.5", "300", "-300"])
def test_recorded_book_is_walked_as_a_plain_loop_walks_it(recordings: Path, quantity: str) -> None:
    book = asyncio.run(first_snapshot(recordings))
    quote = Quote(ETH, 5_100 * MS, "book", float(book.asks_L2[0, 0]), book.bids_L2, book.asks_L2)

    fills = submit(an_executor(quote), replace(BUY, quantity=Decimal(quantity)))

    left, paid = abs(float(quantity)), 0.0
    for price, size in (book.asks_L2 if float(quantity) > 0 else book.bids_L2).tolist():
        taken = min(left, size)
        left, paid = left - taken, paid + taken * price
    assert float(abs(sum(f.quantity for f in fills))) == pytest.approx(abs(float(quantity)) - left)
    assert float(sum(abs(f.quantity) * f.price for f in fills)) == pytest.approx(paid)
    assert float(sum(f.fee for f in fills)) == pytest.approx(paid / 1_000, abs=1e-8 * len(fills))


async def first_snapshot(folder: Path) -> BookDelta:
    async for event in Tape(folder, Market().instruments).events():
        if isinstance(event, BookDelta) and event.is_snapshot and event.symbol == ETH:
            return event
    raise AssertionError("the recording has no snapshot")
