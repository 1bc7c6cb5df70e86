"""Fills orders on paper: against the book that was there when the order would have arrived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from alphapulse.config import Trading
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.trading import (
    ZERO,
    Approved,
    Fill,
    Order,
    Position,
    Quote,
    VenueRules,
    decimal_of,
)
from alphapulse.interfaces import Executor

MS_NS = 1_000_000
FEE_STEP = Decimal("1e-8")  # Binance keeps eight decimals of an asset, 2026-11
BPS = Decimal(10_000)
AskQuote = Callable[[str, int], Awaitable[Quote | None]]


class PaperExecutor(Executor):
    """Walks the book level by level, after a latency and with the venue's fee.

    It takes nothing out of the book: our orders are small, and what others would have done in
    answer is not known. What the book does not hold is not filled.
    """

    def __init__(
        self, quote: AskQuote, *, rules: Mapping[str, VenueRules], trading: Trading
    ) -> None:
        """Keep whom to ask and what the venue takes.

        Args:
            quote: gives what an order of a symbol meets that arrives at an instant [ns UTC]; None
                if the source ends before it, or the market has moved past it.
            rules: of the venue, by symbol.
            trading: fee, latency and half spread.
        """
        self._quote = quote
        self._rules = rules
        self._fee = Decimal(repr(trading.fee_bps)) / BPS
        self._half_spread = Decimal(repr(trading.half_spread_bps)) / BPS
        self._latency_ns = trading.latency_ms * MS_NS
        self._sent: set[str] = set()
        self._positions: dict[str, Position] = {}

    async def submit(self, approved: Approved) -> Sequence[Fill]:
        """Return one fill a price level, none if there was no quote or the order was sent before.

        Raises InvalidRequest on anything but an Approved.
        """
        if type(approved) is not Approved:
            raise InvalidRequest(
                f"paper executor: expected an Approved, was {type(approved).__name__}; "
                "have the order reviewed by the risk gate"
            )
        order = approved.order
        if order.id in self._sent:
            return []
        self._sent.add(order.id)
        try:
            quote = await self._quote(order.symbol, order.event_ns + self._latency_ns)
        except BaseException:
            self._sent.discard(order.id)  # it never arrived
            raise
        fills = [] if quote is None else self._fills(order, quote)
        for fill in fills:
            self._keep(fill, order)
        return fills

    async def positions(self) -> Sequence[Position]:
        """Return what the fills since this executor was made add up to."""
        return list(self._positions.values())

    def _fills(self, order: Order, quote: Quote) -> list[Fill]:
        taken = (
            self._walk(order, quote) if quote.source == "book" else [self._at_price(order, quote)]
        )
        return [
            Fill(
                symbol=order.symbol,
                event_ns=quote.event_ns,
                quantity=quantity,
                price=price,
                fee=(abs(quantity) * price * self._fee).quantize(FEE_STEP),
                order_id=order.id,
                source=quote.source,
            )
            for price, quantity in taken
        ]

    def _walk(self, order: Order, quote: Quote) -> list[tuple[Decimal, Decimal]]:
        """Return price and signed quantity taken from each level, the best first."""
        rules, left = self._rules[order.symbol], abs(order.quantity)
        taken = []
        for price, size in (quote.asks_L2 if order.quantity > 0 else quote.bids_L2).tolist():
            quantity = min(left, decimal_of(size, step=rules.quantity_step))
            if quantity:
                level = decimal_of(price, step=rules.tick_size)
                taken.append((level, quantity.copy_sign(order.quantity)))
            left -= quantity
            if not left:
                break
        return taken

    def _at_price(self, order: Order, quote: Quote) -> tuple[Decimal, Decimal]:
        """Return half a spread worse than the newest trade or open, and the whole quantity."""
        tick, is_buy = self._rules[order.symbol].tick_size, order.quantity > 0
        worse = self._half_spread if is_buy else -self._half_spread
        price = decimal_of(quote.price, step=tick) * (1 + worse)
        rounding = ROUND_CEILING if is_buy else ROUND_FLOOR  # to our disadvantage
        return (price / tick).to_integral_value(rounding) * tick, order.quantity

    def _keep(self, fill: Fill, order: Order) -> None:
        held = self._positions.pop(fill.symbol, None)
        before = held.quantity if held else ZERO
        after = before + fill.quantity
        if not after:
            return
        if held is None or before * after < 0:  # opened, or turned: the rest is a new position
            kept = Position(
                symbol=fill.symbol,
                quantity=after,
                entry_price=fill.price,
                entry_ns=fill.event_ns,
                inference_id=order.inference_id,
                stop_price=order.stop_price,
                is_stored=order.is_stored,
            )
        elif abs(after) < abs(before):
            kept = replace(held, quantity=after)
        else:
            cost = before * held.entry_price + fill.quantity * fill.price
            kept = replace(held, quantity=after, entry_price=cost / after)
        self._positions[fill.symbol] = kept
