"""Find turning points bar by bar: the recursive Williams structure (convention W1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Pivot, PivotKind, Timeframe

NUM_LEVELS = 5
CONVENTION = "W1"
HIGH, LOW = PivotKind.HIGH, PivotKind.LOW


class WilliamsStructure:
    """Streaming Williams market structure of one stream, O(1) a bar, that never takes a pivot back.

    A level-1 pivot is the extreme between two changes of direction; inside bars are ignored, an
    outside bar moves both ways in the order its open and close suggest. A pivot of level n+1 is
    the middle one of three successive pivots of level n of the same kind, strictly beyond both
    neighbours; equal neighbours count as one, the first.

    ```python
    structure = WilliamsStructure("ETH/USDT", Timeframe.M1)
    for bar in closed_bars:
        if is_missing_before(bar):
            structure.reset()
        confirmed = structure.update(bar.open_ns, bar.open, bar.high, bar.low, bar.close)
    ```

    Attributes:
        state: three numbers a level, level 1 first: price of the newest confirmed high, of the
            newest confirmed low [quote currency], and the leg (-1 since a confirmed high, +1 since
            a confirmed low); NaN before the first. The same list for good, written in place.
        segment_id: of the pivots to come; rises by one with each `reset` that forgets a bar.

    Source: L. Williams, Long-Term Secrets to Short-Term Trading (1999), ch. 1.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, levels: int = NUM_LEVELS) -> None:
        self._symbol = symbol
        self._timeframe = timeframe
        self._length_ns = timeframe.ns
        self._levels = levels
        self.state: list[float] = [math.nan] * (3 * levels)
        self.segment_id = 0
        self._forget()

    def reset(self) -> None:
        """Begin a new segment: no pivot spans a missing bar."""
        if self._now_ns is not None:
            self.segment_id += 1
        self._forget()

    def _forget(self) -> None:
        self.state[:] = [math.nan] * len(self.state)
        self._now_ns: int | None = None
        # of the mother bar: before the first bar, whatever comes is beyond both
        self._high, self._low = -math.inf, math.inf
        # of the running move; it ends at the mother bar's high or low, which this bar made
        self._direction = 0
        self._extreme_ns = 0
        self._highs = [_Turns() for _ in range(self._levels)]
        self._lows = [_Turns() for _ in range(self._levels)]
        self._trends = [math.nan] * self._levels
        self._context: list[float] | None = None

    def update(
        self, open_ns: int, open: float, high: float, low: float, close: float
    ) -> list[Pivot]:
        """Take the next closed bar and return the pivots it confirms, oldest first.

        Args:
            open_ns: start of the bar [ns UTC]; one bar after that of the call before, else call
                `reset` first.
            open: quote currency, as `high`, `low` and `close`.
            high: highest price.
            low: lowest price.
            close: last price.

        Returns:
            Pivots with `confirm_ns` at the close of this bar, those of the lowest level first.
        """
        self._now_ns = open_ns
        self._context = None
        confirmed: list[Pivot] = []
        if high > self._high:
            if low < self._low:
                self._outside(open_ns, open, high, low, close, confirmed)
            else:
                if self._direction < 0:
                    self._confirm(LOW, self._extreme_ns, self._low, confirmed)
                self._direction, self._extreme_ns = 1, open_ns
        elif low < self._low:
            if self._direction > 0:
                self._confirm(HIGH, self._extreme_ns, self._high, confirmed)
            self._direction, self._extreme_ns = -1, open_ns
        else:
            return confirmed  # inside: the mother bar stays
        self._high, self._low = high, low
        return confirmed

    def _outside(
        self, open_ns: int, open: float, high: float, low: float, close: float, found: list[Pivot]
    ) -> None:
        """Move to both ends of the bar, and begin the segment with its first bar."""
        if self._low > self._high:
            return  # the first has nothing to move from
        if close >= open:  # down, then up
            if self._direction > 0:
                self._confirm(HIGH, self._extreme_ns, self._high, found)
            self._confirm(LOW, open_ns, low, found)
            self._direction, self._extreme_ns = 1, open_ns
        else:
            if self._direction < 0:
                self._confirm(LOW, self._extreme_ns, self._low, found)
            self._confirm(HIGH, open_ns, high, found)
            self._direction, self._extreme_ns = -1, open_ns

    def _confirm(self, kind: PivotKind, pivot_ns: int, price: float, found: list[Pivot]) -> None:
        """Add the level-1 pivot that the newest bar confirms, and what follows in higher levels."""
        assert self._now_ns is not None
        confirm_ns = self._now_ns + self._length_ns
        is_high = kind is HIGH
        symbol, timeframe, segment_id = self._symbol, self._timeframe, self.segment_id
        for i, turns in enumerate(self._highs if is_high else self._lows):
            found.append(
                Pivot(symbol, timeframe, i + 1, kind, pivot_ns, price, confirm_ns, segment_id)
            )
            self.state[3 * i if is_high else 3 * i + 1] = price
            self.state[3 * i + 2] = -1.0 if is_high else 1.0
            turns.previous, turns.newest = turns.newest, price
            turns.newest_at = pivot_ns / self._length_ns
            self._trends[i] = _trend(self._highs[i], self._lows[i])
            middle, middle_ns = turns.middle, turns.middle_ns
            if price == middle:
                return  # equal neighbours count as one, the first
            before = turns.before
            turns.before, turns.middle, turns.middle_ns = middle, price, pivot_ns
            # NaN, where one is not there yet, is not beyond anything
            if not (before < middle > price if is_high else before > middle < price):
                return
            pivot_ns, price = middle_ns, middle

    @property
    def context(self) -> list[float]:
        """Return what else is known at the newest closed bar, O(1), made once a bar: only read it.

        Three numbers a level, level 1 first: the trend (+1 where the two newest confirmed highs and
        the two newest confirmed lows both rise, -1 where both fall, else 0; NaN before there are
        two of each), the bars since the bar of the newest confirmed high, and since that of the
        newest confirmed low. Then two numbers: price of the running extreme [quote currency], and
        direction of the running level-1 move (+1 up, -1 down). NaN before the first.
        """
        if self._context is None:
            self._context = self._make_context()
        return self._context

    def _make_context(self) -> list[float]:
        at = (self._now_ns or 0) / self._length_ns
        numbers: list[float] = []
        for trend, high, low in zip(self._trends, self._highs, self._lows, strict=True):
            numbers += (trend, at - high.newest_at, at - low.newest_at)
        direction = self._direction
        if direction:
            numbers += (self._high if direction > 0 else self._low, float(direction))
        else:
            numbers += (math.nan, math.nan)
        return numbers

    def snapshot(self) -> dict[str, Any]:
        """Return everything known as plain values that JSON carries, NaN as None.

        What follows `restore(snapshot)` is bit for bit what would have followed here.
        """
        return {
            "convention": CONVENTION,
            "symbol": self._symbol,
            "timeframe": self._timeframe.value,
            "levels": self._levels,
            "segment_id": self.segment_id,
            "state": [_plain(number) for number in self.state],
            "now_ns": self._now_ns,
            "mother": [_plain(self._high), _plain(self._low)],
            "move": [self._direction, self._extreme_ns],
            "highs": [turns.plain() for turns in self._highs],
            "lows": [turns.plain() for turns in self._lows],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot, as if its bars had been seen here.

        Raises:
            StoreError: it is of another stream, another number of levels or another convention.
        """
        expected = (CONVENTION, self._symbol, self._timeframe.value, self._levels)
        was = tuple(snapshot.get(k) for k in ("convention", "symbol", "timeframe", "levels"))
        if was != expected:
            raise StoreError(
                f"{self._symbol} {self._timeframe}: expected a snapshot of {expected}, was {was}; "
                "walk the stored bars instead"
            )
        self.segment_id = snapshot["segment_id"]
        self.state[:] = [_number(number) for number in snapshot["state"]]
        self._now_ns = snapshot["now_ns"]
        high, low = snapshot["mother"]
        self._high = -math.inf if high is None else high
        self._low = math.inf if low is None else low
        self._direction, self._extreme_ns = snapshot["move"]
        self._highs = [_Turns(*map(_number, plain)) for plain in snapshot["highs"]]
        self._lows = [_Turns(*map(_number, plain)) for plain in snapshot["lows"]]
        self._trends = [_trend(*turns) for turns in zip(self._highs, self._lows, strict=True)]
        self._context = None


@dataclass(slots=True, eq=False)
class _Turns:
    """What one level needs to know of its confirmed pivots of one kind.

    Attributes:
        newest: price of the newest one.
        previous: of the one before it.
        newest_at: its bar, counted from 1970; NaN before the first.
        middle: price of the newest that differs from its left neighbour: it may be a pivot above.
        middle_ns: its bar [ns UTC].
        before: price of the left neighbour.
    """

    newest: float = math.nan
    previous: float = math.nan
    newest_at: float = math.nan
    middle: float = math.nan
    middle_ns: int = 0
    before: float = math.nan

    def plain(self) -> list[float | None]:
        """Return the attributes in their order, NaN as None."""
        return [_plain(getattr(self, name)) for name in self.__slots__]


def _trend(high: _Turns, low: _Turns) -> float:
    """Return the trend of a level."""
    if high.newest > high.previous and low.newest > low.previous:
        return 1.0
    if high.newest < high.previous and low.newest < low.previous:
        return -1.0
    return math.nan if math.isnan(high.previous + low.previous) else 0.0


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _number(plain: Any) -> Any:
    return math.nan if plain is None else plain
