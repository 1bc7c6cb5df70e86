"""Say how much an entry may buy or sell, and where its stop-loss stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from alphapulse.config import Risk
from alphapulse.domain.trading import ZERO, Account, VenueRules, decimal_of, rounded_down

BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True)
class Size:
    """What an entry may be.

    Attributes:
        quantity: signed, base currency; 0 where there is no entry.
        stop_price: where it is closed at a loss [quote currency], None where there is no entry.
        reason: why there is no entry, empty where there is one.
    """

    quantity: Decimal = ZERO
    stop_price: Decimal | None = None
    reason: str = ""


class Sizing:
    """Sizes entries so that a stop costs the same share of equity each time, within the limits.

    Attributes:
        fee: share of an order's notional that the venue takes.
    """

    def __init__(self, limits: Risk, rules: Mapping[str, VenueRules], *, fee_bps: float) -> None:
        """Keep the limits, the rules of the venue by symbol, and its fee [bps a side]."""
        self.fee = Decimal(repr(fee_bps)) / BPS
        self._stop_r = limits.stop_r
        self._risk = Decimal(repr(limits.risk_pct)) / 100
        self._max_position = Decimal(repr(limits.max_position_pct)) / 100
        self._rules = rules

    def __call__(self, account: Account, *, symbol: str, side: int, risk: float) -> Size:
        """Return the size of an entry at the price of `account`.

        The stop is `stop_r` R from the price, on the side of the loss. The quantity is what loses
        `risk_pct` of equity there, at most `max_position_pct` of equity and, where the venue
        permits no shorts and so lends nothing, at most what the cash pays together with the fee;
        rounded down to the venue's step. A fill at a worse price still costs that much more.

        Args:
            account: with a price of `symbol`.
            symbol: to be entered.
            side: +1 long, -1 short.
            risk: R, one hourly volatility [log price]; NaN where it is not known: no entry then.
        """
        if not 0 < risk < math.inf:  # so that NaN is refused
            return Size(reason=f"risk is not known: expected R above 0, was {risk}")
        rules, price = self._rules[symbol], account.prices[symbol]
        stop = float(price) * math.exp(-side * self._stop_r * risk)
        stop_price = decimal_of(stop, step=rules.tick_size)
        distance = abs(price - stop_price)
        if not distance or not stop_price:
            return Size(reason=f"no room for a stop: price {price}, stop {stop_price}")
        notional = min(
            self._max_position * account.equity, self._risk * account.equity * price / distance
        )
        if not rules.allow_short:
            notional = min(notional, account.cash / (1 + self.fee))
        quantity = rounded_down(max(notional, ZERO) / price, step=rules.quantity_step)
        if not quantity or quantity * price < rules.min_notional:
            return Size(
                reason=f"too small for the venue: {quantity} at {price}, expected a notional of at "
                f"least {rules.min_notional}"
            )
        return Size(side * quantity, stop_price)
