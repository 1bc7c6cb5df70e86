"""Find turning points: the recursive Williams structure (convention W1), classic pivot points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from alphapulse.domain.market import Pivot, PivotKind, Timeframe

NUM_LEVELS = 3  # short-term, intermediate, long-term


class WilliamsStructure:
    """Streaming Williams market structure of one stream, O(1) a bar, that never takes a pivot back.

    A level-1 pivot is the extreme between two changes of direction; inside bars are ignored, an
    outside bar moves both ways in the order its open and close suggest. A pivot of level n+1 is
    the middle one of three successive pivots of level n of the same kind, strictly beyond both
    neighbours; equal neighbours count as one, the first.

    ```python
    structure = WilliamsStructure("ETH/USDT", Timeframe.M1)
    for bar in closed_bars:
        confirmed = structure.update(bar.open_ns, bar.open, bar.high, bar.low, bar.close)
    ```

    Attributes:
        state: three numbers a level, level 1 first: price of the newest confirmed high, of the
            newest confirmed low [quote currency], and the leg (-1 since a confirmed high, +1 since
            a confirmed low); NaN before the first.

    Source: L. Williams, Long-Term Secrets to Short-Term Trading (1999), ch. 1.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, levels: int = NUM_LEVELS) -> None:
        self._symbol = symbol
        self._timeframe = timeframe
        self._levels = levels
        self.reset()

    def reset(self) -> None:
        """Begin a new segment: no pivot spans a missing bar."""
        self.state: list[float] = [math.nan] * (3 * self._levels)
        self._high = self._low = math.nan  # of the mother bar; comparisons with NaN are false
        self._direction = 0
        self._extreme = math.nan
        self._extreme_ns = 0
        # the last two pivots (time, price) of each level below the top, by kind
        self._recent: dict[PivotKind, list[list[tuple[int, float]]]] = {
            kind: [[] for _ in range(self._levels - 1)] for kind in PivotKind
        }

    def update(
        self, open_ns: int, open: float, high: float, low: float, close: float
    ) -> list[Pivot]:
        """Take the next closed bar and return the pivots it confirms, oldest first.

        Args:
            open_ns: start of the bar [ns UTC].
            open: quote currency, as `high`, `low` and `close`.
            high: highest price.
            low: lowest price.
            close: last price.

        Returns:
            Pivots with `confirm_ns` at the close of this bar.
        """
        confirmed: list[Pivot] = []
        up, down = high > self._high, low < self._low
        if up and down:
            if close >= open:
                self._move_down(open_ns, low, confirmed)
                self._move_up(open_ns, high, confirmed)
            else:
                self._move_up(open_ns, high, confirmed)
                self._move_down(open_ns, low, confirmed)
        elif up:
            self._move_up(open_ns, high, confirmed)
        elif down:
            self._move_down(open_ns, low, confirmed)
        elif not math.isnan(self._high):
            return confirmed  # inside: the mother bar stays
        self._high, self._low = high, low
        return confirmed

    def _move_up(self, bar_ns: int, high: float, confirmed: list[Pivot]) -> None:
        if self._direction < 0:
            self._confirm(1, PivotKind.LOW, self._extreme_ns, self._extreme, bar_ns, confirmed)
        elif self._direction > 0 and high <= self._extreme:
            return
        self._direction, self._extreme, self._extreme_ns = 1, high, bar_ns

    def _move_down(self, bar_ns: int, low: float, confirmed: list[Pivot]) -> None:
        if self._direction > 0:
            self._confirm(1, PivotKind.HIGH, self._extreme_ns, self._extreme, bar_ns, confirmed)
        elif self._direction < 0 and low >= self._extreme:
            return
        self._direction, self._extreme, self._extreme_ns = -1, low, bar_ns

    def _confirm(
        self,
        level: int,
        kind: PivotKind,
        pivot_ns: int,
        price: float,
        bar_ns: int,
        confirmed: list[Pivot],
    ) -> None:
        is_high = kind is PivotKind.HIGH
        confirm_ns = bar_ns + self._timeframe.ns
        confirmed.append(
            Pivot(self._symbol, self._timeframe, level, kind, pivot_ns, price, confirm_ns)
        )
        at = 3 * (level - 1)
        self.state[at if is_high else at + 1] = price
        self.state[at + 2] = -1.0 if is_high else 1.0
        if level == self._levels:
            return
        recent = self._recent[kind][level - 1]
        if recent and recent[-1][1] == price:
            return
        if len(recent) == 2:
            (_, before), (middle_ns, middle) = recent
            is_peak = middle > max(before, price) if is_high else middle < min(before, price)
            if is_peak:
                self._confirm(level + 1, kind, middle_ns, middle, bar_ns, confirmed)
            del recent[0]
        recent.append((pivot_ns, price))


@dataclass(frozen=True, slots=True)
class PivotPoints:
    """Support and resistance levels of a session, from the one before it [quote currency].

    Attributes:
        p: the pivot point.
        r1: first resistance; `r2` and `r3` lie above it.
        s1: first support; `s2` and `s3` lie below it.
    """

    p: float
    r1: float
    r2: float
    r3: float
    s1: float
    s2: float
    s3: float

    @classmethod
    def classic(cls, high: float, low: float, close: float) -> Self:
        """Return the classic levels; the session must have closed, a forming one is never used.

        >>> PivotPoints.classic(high=110.0, low=90.0, close=106.0).r1
        114.0
        """
        p = (high + low + close) / 3
        return cls(
            p=p,
            r1=2 * p - low,
            r2=p + (high - low),
            r3=high + 2 * (p - low),
            s1=2 * p - high,
            s2=p - (high - low),
            s3=low - 2 * (high - p),
        )
