"""Add fills up to cash, positions and results, in Decimal and without a remainder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from alphapulse.domain.errors import InvalidRequest, Unavailable
from alphapulse.domain.trading import ZERO, Account, Fill, Order, Position

CENT_OF_CENTS = Decimal("1e-8")  # how finely the cost of a part of a position is split off


@dataclass(frozen=True, slots=True)
class _Holding:
    """A position with what it cost, signed [quote currency]; its average price may not be exact."""

    position: Position
    cost: Decimal


class Portfolio:
    """Cash, positions and results of one account; equity is always initial cash plus net.

    ```python
    portfolio.mark(prices)
    account = portfolio.account(event_ns, prices, extremes=extremes, is_halted=False)
    ...
    for fill in await executor.submit(approved):
        portfolio.apply(approved.order, fill)
    ```

    Attributes:
        initial_cash: what it began with [quote currency].
        cash: what is not invested now [quote currency].
        realised: result of what was closed, before fees [quote currency].
        fees: all fees so far [quote currency].
        peak: highest equity marked so far [quote currency]; 0 starts it anew with the next mark.
    """

    def __init__(self, initial_cash: Decimal) -> None:
        self.initial_cash = initial_cash
        self.cash = initial_cash
        self.realised = ZERO
        self.fees = ZERO
        self.peak = initial_cash
        self._holdings: dict[str, _Holding] = {}
        self._applied: set[tuple[str, int, Decimal]] = set()

    @property
    def positions(self) -> tuple[Position, ...]:
        """Return what is open, by symbol."""
        return tuple(self._holdings[symbol].position for symbol in sorted(self._holdings))

    def apply(self, order: Order, fill: Fill) -> bool:
        """Return whether `fill` was new, and if so count it.

        An order is filled once at a price at one instant (a book lists a price once), so that order
        id, time and price name a fill. A position keeps the stop and the inference of the order
        that opened it; a fill through zero closes it and opens the rest as a new one. Raises
        InvalidRequest if the fill belongs to another order.
        """
        if fill.order_id != order.id or fill.symbol != order.symbol:
            raise InvalidRequest(
                f"{order.symbol} order {order.id}: expected a fill of it, was one of "
                f"{fill.symbol} order {fill.order_id!r}; hand each fill in with its own order"
            )
        key = (order.id, fill.event_ns, fill.price)
        if key in self._applied:
            return False
        self._applied.add(key)
        self.cash -= fill.quantity * fill.price + fill.fee
        self.fees += fill.fee
        opening = self._close(fill)
        if opening:
            self._open(order, fill, opening)
        return True

    def mark(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return equity at `prices` [quote currency] and raise the peak to it if it is higher.

        Raises Unavailable if a held symbol has no price.
        """
        equity = self.account(0, prices).equity
        self.peak = max(self.peak, equity)
        return equity

    def account(
        self,
        event_ns: int,
        prices: Mapping[str, Decimal],
        *,
        extremes: Mapping[str, tuple[Decimal, Decimal]] | None = None,
        is_halted: bool = False,
    ) -> Account:
        """Return what risk rules see at `prices`; raises Unavailable where a held one is missing.

        Args:
            event_ns: decision instant [ns UTC].
            prices: newest traded price by symbol [quote currency].
            extremes: lowest and highest price by symbol since the instant before.
            is_halted: whether trading is halted.
        """
        self._require(prices)
        return Account(
            event_ns=event_ns,
            cash=self.cash,
            positions=self.positions,
            prices=prices,
            peak=self.peak,
            is_halted=is_halted,
            extremes=extremes or {},
        )

    def gross(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return the result before fees, what is open at `prices` included [quote currency]."""
        self._require(prices)
        unrealised = (
            h.position.quantity * prices[symbol] - h.cost for symbol, h in self._holdings.items()
        )
        return self.realised + sum(unrealised, ZERO)

    def net(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return the result after fees, what is open at `prices` included [quote currency]."""
        return self.gross(prices) - self.fees

    def _close(self, fill: Fill) -> Decimal:
        """Close what `fill` closes and return the rest of its quantity, which opens."""
        held = self._holdings.get(fill.symbol)
        if held is None or held.position.quantity * fill.quantity > 0:
            return fill.quantity
        before = held.position.quantity
        closed = min(abs(fill.quantity), abs(before)).copy_sign(before)
        left = before - closed
        # rounded where a part stays open: that part keeps the rest of the cost, to the digit
        cost = (held.cost * closed / before).quantize(CENT_OF_CENTS) if left else held.cost
        self.realised += closed * fill.price - cost
        if left:
            position = replace(held.position, quantity=left)
            self._holdings[fill.symbol] = _Holding(position, held.cost - cost)
        else:
            del self._holdings[fill.symbol]
        return fill.quantity + closed

    def _open(self, order: Order, fill: Fill, quantity: Decimal) -> None:
        cost = quantity * fill.price
        held = self._holdings.get(fill.symbol)
        if held is None:
            position = Position(
                symbol=fill.symbol,
                quantity=quantity,
                entry_price=fill.price,
                entry_ns=fill.event_ns,
                inference_id=order.inference_id,
                stop_price=order.stop_price,
                is_stored=order.is_stored,
            )
        else:
            cost, quantity = held.cost + cost, held.position.quantity + quantity
            position = replace(held.position, quantity=quantity, entry_price=cost / quantity)
        self._holdings[fill.symbol] = _Holding(position, cost)

    def _require(self, prices: Mapping[str, Decimal]) -> None:
        missing = [symbol for symbol in self._holdings if symbol not in prices]
        if missing:
            raise Unavailable(
                f"account: expected a price of each held symbol, was none of {', '.join(missing)}; "
                "wait until it trades again, or check its feed"
            )
