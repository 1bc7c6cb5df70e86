"""Compute pivot points, the support and resistance levels that the session before gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import SECOND_NS, Timeframe

DAY_NS = 86_400 * SECOND_NS
WEEK_NS = 7 * DAY_NS
MONDAY_NS = 4 * DAY_NS  # 1970-01-01 was a Thursday


class Variant(StrEnum):
    """How levels follow from a session's high, low and close."""

    CLASSIC = "classic"
    FIBONACCI = "fibonacci"
    CAMARILLA = "camarilla"
    WOODIE = "woodie"  # with the session's own close, p = (high + low + 2 close) / 4


# The levels that a variant has, in their order.
LEVELS: Mapping[Variant, tuple[str, ...]] = {
    Variant.CLASSIC: ("p", "r1", "r2", "r3", "s1", "s2", "s3"),
    Variant.FIBONACCI: ("p", "r1", "r2", "r3", "s1", "s2", "s3"),
    Variant.CAMARILLA: ("r1", "r2", "r3", "r4", "s1", "s2", "s3", "s4"),
    Variant.WOODIE: ("p", "r1", "r2", "s1", "s2"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotPoints:
    """Support and resistance levels of a session, from the one before it [quote currency].

    All variants have one shape; a level that a variant does not have is NaN (see LEVELS). The
    session they are made of must have closed: a forming one is never used.

    Attributes:
        variant: how they were made.
        p: the pivot point.
        r1: first resistance; those of higher numbers lie above it.
        s1: first support; those of higher numbers lie below it.

    Sources: ML notes 1.1; github.com/pgvasiliu/pivot-points-calculation-with-python (classic),
    docs.rs/wickra-core (the others).
    """

    variant: Variant
    p: float = math.nan
    r1: float
    r2: float
    r3: float = math.nan
    r4: float = math.nan
    s1: float
    s2: float
    s3: float = math.nan
    s4: float = math.nan

    @classmethod
    def classic(cls, high: float, low: float, close: float) -> Self:
        """Return the classic levels of a closed session.

        >>> PivotPoints.classic(high=110.0, low=90.0, close=106.0).r1
        114.0
        """
        p, span = (high + low + close) / 3, high - low
        return cls(
            variant=Variant.CLASSIC,
            p=p,
            r1=2 * p - low,
            r2=p + span,
            r3=high + 2 * (p - low),
            s1=2 * p - high,
            s2=p - span,
            s3=low - 2 * (high - p),
        )

    @classmethod
    def fibonacci(cls, high: float, low: float, close: float) -> Self:
        """Return the classic pivot point with levels at Fibonacci's parts of the session's span."""
        p, span = (high + low + close) / 3, high - low
        return cls(
            variant=Variant.FIBONACCI,
            p=p,
            r1=p + 0.382 * span,
            r2=p + 0.618 * span,
            r3=p + span,
            s1=p - 0.382 * span,
            s2=p - 0.618 * span,
            s3=p - span,
        )

    @classmethod
    def camarilla(cls, high: float, low: float, close: float) -> Self:
        """Return the four levels on each side of the close; there is no pivot point."""
        span = (high - low) * 1.1
        return cls(
            variant=Variant.CAMARILLA,
            r1=close + span / 12,
            r2=close + span / 6,
            r3=close + span / 4,
            r4=close + span / 2,
            s1=close - span / 12,
            s2=close - span / 6,
            s3=close - span / 4,
            s4=close - span / 2,
        )

    @classmethod
    def woodie(cls, high: float, low: float, close: float) -> Self:
        """Return the levels that weigh the close twice, two on each side."""
        p, span = (high + low + 2 * close) / 4, high - low
        return cls(
            variant=Variant.WOODIE,
            p=p,
            r1=2 * p - low,
            r2=p + span,
            s1=2 * p - high,
            s2=p - span,
        )


_MAKE = {
    Variant.CLASSIC: PivotPoints.classic,
    Variant.FIBONACCI: PivotPoints.fibonacci,
    Variant.CAMARILLA: PivotPoints.camarilla,
    Variant.WOODIE: PivotPoints.woodie,
}
_PREFIX = {Variant.FIBONACCI: "fib_", Variant.CAMARILLA: "cam_", Variant.WOODIE: "woodie_"}
_SHOWN = [
    (variant, name)
    for variant, names in LEVELS.items()
    for name in names
    if (variant, name) != (Variant.FIBONACCI, "p")  # the classic one again
]
# Names of `SessionLevels.state`: p r1 r2 r3 s1 s2 s3 fib_r1 ... cam_r1 ... woodie_p ... woodie_s2.
SESSION_LEVELS: tuple[str, ...] = tuple(_PREFIX.get(v, "") + name for v, name in _SHOWN)
_UNKNOWN = [math.nan] * len(SESSION_LEVELS)


class SessionLevels:
    """The pivot points a bar of one stream is traded by: those of the last closed session.

    A session is a UTC day, for bars of 1d a UTC week from Monday. Its levels are known from the
    first bar that opens at or after its end, and for the length of one session. It must be whole:
    all its bars from its start to its end, each fed once it had closed.

    ```python
    levels = SessionLevels(Timeframe.M1)  # of one stream for good: it sees a missing bar itself
    for bar in closed_bars:
        levels.update(bar.open_ns, bar.high, bar.low, bar.close)
        known_at_its_close = dict(zip(SESSION_LEVELS, levels.state))
    of_the_forming_bar = levels.peek(forming.open_ns)
    ```

    Attributes:
        state: numbers in the order of SESSION_LEVELS for the newest closed bar [quote currency];
            all NaN where the session before its own is not known whole. Written in place.
    """

    def __init__(self, timeframe: Timeframe) -> None:
        self._timeframe = timeframe
        self._length_ns = timeframe.ns
        self._session_ns = WEEK_NS if timeframe is Timeframe.D1 else DAY_NS
        self._first_ns = MONDAY_NS if timeframe is Timeframe.D1 else 0
        self.state: list[float] = [*_UNKNOWN]
        self._end_ns = self._next_ns = 0  # of the session of the newest bar; of the bar to come
        self._high, self._low, self._close = -math.inf, math.inf, math.nan
        self._is_whole = False  # so far

    def update(self, open_ns: int, high: float, low: float, close: float) -> None:
        """Take the next closed bar, O(1).

        Args:
            open_ns: start of the bar [ns UTC], later than that of the call before.
            high: quote currency, as `low` and `close`.
            low: lowest price.
            close: last price.
        """
        if open_ns >= self._end_ns:
            self.state[:] = self._levels(open_ns)
            start_ns = self._start_ns(open_ns)
            self._next_ns, self._end_ns = start_ns, start_ns + self._session_ns
            self._high, self._low = high, low
            self._is_whole = True
        elif high > self._high:
            self._high = high
        if low < self._low:
            self._low = low
        if open_ns != self._next_ns:
            self._is_whole = False
        self._next_ns = open_ns + self._length_ns
        self._close = close

    def peek(self, open_ns: int) -> list[float]:
        """Return what `state` is to be for a bar that opens then, after the newest closed one.

        The forming bar that opens a session has its levels before it closes.
        """
        return self._levels(open_ns) if open_ns >= self._end_ns else self.state.copy()

    def _start_ns(self, open_ns: int) -> int:
        return open_ns - (open_ns - self._first_ns) % self._session_ns

    def _levels(self, open_ns: int) -> list[float]:
        """Return the levels of the session of the newest bar, for one in the session after it."""
        is_closed = self._is_whole and self._next_ns == self._end_ns
        if not (is_closed and self._start_ns(open_ns) == self._end_ns):
            return [*_UNKNOWN]
        high, low, close = self._high, self._low, self._close
        made = {variant: make(high, low, close) for variant, make in _MAKE.items()}
        return [getattr(made[variant], name) for variant, name in _SHOWN]

    def snapshot(self) -> dict[str, Any]:
        """Return everything known as plain values that JSON carries, NaN as None.

        What follows `restore(snapshot)` is bit for bit what would have followed here.
        """
        return {
            "timeframe": self._timeframe.value,
            "end_ns": self._end_ns,
            "next_ns": self._next_ns,
            "is_whole": self._is_whole,
            "session": [self._high, self._low, self._close] if self._end_ns else None,
            "state": None if math.isnan(self.state[0]) else self.state.copy(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot, as if its bars had been seen here.

        Raises:
            StoreError: it is of another timeframe, or of other levels.
        """
        state = snapshot["state"] or _UNKNOWN
        was = (snapshot["timeframe"], len(state))
        expected = (self._timeframe.value, len(SESSION_LEVELS))
        if was != expected:
            raise StoreError(
                f"session levels: expected a snapshot of timeframe and number of levels {expected},"
                f" was {was}; walk the stored bars instead"
            )
        self._end_ns, self._next_ns = snapshot["end_ns"], snapshot["next_ns"]
        self._is_whole = snapshot["is_whole"]
        session = snapshot["session"] or (-math.inf, math.inf, math.nan)
        self._high, self._low, self._close = session
        self.state[:] = state
