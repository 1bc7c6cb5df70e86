"""Ask a user's indicators about the newest bars of one stream, once a bar."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from alphapulse.domain.errors import InvalidBar
from alphapulse.features.registry import Bars, OwnIndicator, Unit, own
from alphapulse.features.rows import OWN

Prices = Sequence[float]  # open, high, low, close, volume


class OwnColumns:
    """What the users' indicators say of a stream: their channels, then their values.

    Attributes:
        indicators: that are asked.
        names: of the values, in the order they were added.
        channels: names of those that models see, in the order of their channels.
    """

    def __init__(self, indicators: Sequence[OwnIndicator] | None = None) -> None:
        """Ask `indicators`, all that were added unless it is said."""
        self.indicators = own() if indicators is None else tuple(indicators)
        self.names = tuple(indicator.name for indicator in self.indicators)
        self._shown = [i for i, indicator in enumerate(self.indicators) if indicator.is_channel]
        self.channels = tuple(self.names[i] for i in self._shown)
        longest = max((indicator.bars for indicator in self.indicators), default=1)
        self._bars: deque[Prices] = deque(maxlen=longest)
        self._nothing = [math.nan] * (len(OWN) + len(self.names))

    def reset(self) -> None:
        """Forget the bars: a new segment begins."""
        self._bars.clear()

    def pass_by(self, bar: Prices) -> None:
        """Take the next closed bar and ask nobody."""
        self._bars.append(bar)

    def close(self, bar: Prices, atr: float) -> list[float]:
        """Take the next closed bar and return what `peek` does."""
        if not self.indicators:
            return self._nothing
        self._bars.append(bar)
        return self._ask(list(self._bars), atr)

    def peek(self, bar: Prices, atr: float) -> list[float]:
        """Return the channels and the values if `bar` were the next, NaN where there is none.

        Args:
            bar: open, high, low, close [quote currency], volume [base currency].
            atr: the average true range of the same bar, the unit of prices.

        Raises:
            InvalidBar: an indicator returned what is not a number.
        """
        if not self.indicators:
            return self._nothing
        return self._ask([*self._bars, bar], atr)

    def _ask(self, bars: list[Prices], atr: float) -> list[float]:
        values = [_value(indicator, bars) for indicator in self.indicators]
        close = bars[-1][3]
        channels = [
            _channel(self.indicators[i].unit, values[i], close=close, atr=atr) for i in self._shown
        ]
        channels += [math.nan] * (len(OWN) - len(channels))
        return channels + values


def _value(indicator: OwnIndicator, bars: list[Prices]) -> float:
    if len(bars) < indicator.bars:
        return math.nan
    newest = Bars(*np.array(bars[-indicator.bars :]).T.copy())
    try:
        value = indicator.function(newest)
        number = float(value)
    except Exception as error:  # it is a user's: whatever it raises, say whose it was
        raise InvalidBar(
            f"indicator {indicator.name}: expected one finite number or NaN, was "
            f"{type(error).__name__}: {error}; mend the function, or take it out of feed.indicators"
        ) from error
    if math.isinf(number):
        raise InvalidBar(
            f"indicator {indicator.name}: expected one finite number or NaN, was {value!r}; "
            "return NaN where there is no value, as in a bar without volume"
        )
    return number


def _channel(unit: Unit, value: float, *, close: float, atr: float) -> float:
    if unit in (Unit.PRICE, Unit.CHANGE):
        if not atr > 0:
            return math.nan
        return (close - value if unit is Unit.PRICE else value) / atr
    return (value - 50) / 50 if unit is Unit.PERCENT else value
