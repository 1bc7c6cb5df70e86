"""Turn trades into one-second bars, and those into minutes, hours and days."""

from __future__ import annotations

import math
from collections import Counter, deque

from alphapulse.data.trade_bars import Tally, TradeBars
from alphapulse.domain.market import (
    LOTS,
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BarSeries,
    Floats,
    Ints,
    Timeframe,
)

LOWER = dict(zip(TIMEFRAMES[1:], TIMEFRAMES[:-1], strict=True))
NUM_LOWER = {tf: tf.ns // lower.ns for tf, lower in LOWER.items()}
KEEP = 64  # closed bars kept a timeframe: an hour needs 60 minutes, a day 24 hours
VOLUME_RTOL = 1e-9  # float volumes of the venue carry 16 digits at most


class BarMaker:
    """Makes the bars of one symbol; every bar comes once, at its close, and never changes.

    A bar is made from trades if all of it was seen: its period began at or after the first trade
    and the feed was up throughout. A second in which nobody traded is a bar too, at the price
    before it, unless a gap hid that price. Any other bar is the venue's own candle, or missing. The
    candle of a bar made from trades is only compared with it.

    ```python
    maker.trades(ts_ns_N, price_N, lots_N)
    for bar in maker.close(boundary_ns):  # at every boundary, in order
        ...
    bar, is_partial = maker.forming(Timeframe.H1, boundary_ns)
    ```

    Attributes:
        first_tick_ns: time of the first trade [ns UTC], None before it.
        counters: `venue_compared`, `venue_mismatch`, `venue_too_late`: candles not needed.
    """

    def __init__(self, symbol: str, *, gap_s: float) -> None:
        self.first_tick_ns: int | None = None
        self.counters: Counter[str] = Counter()
        self._symbol = symbol
        self._silence_ns = int(gap_s * SECOND_NS)
        self._closed: dict[Timeframe, deque[Bar]] = {tf: deque(maxlen=KEEP) for tf in TIMEFRAMES}
        self._run_own = dict.fromkeys(TIMEFRAMES, 0)  # newest adjoining bars made from trades
        self._run = dict.fromkeys(TIMEFRAMES, 0)  # newest adjoining bars
        self._staged: dict[Timeframe, dict[int, Bar]] = {tf: {} for tf in TIMEFRAMES}
        self._own = TradeBars(keep=(KEEP,) * len(TIMEFRAMES))
        self._price, self._price_ns = math.nan, -1  # newest known
        self._trade_ns = -1
        self._heard_ns = -1
        self._has_ticks = False
        self._tallies: dict[Timeframe, tuple[tuple[int, int], Tally]] = {}
        self._gaps: deque[tuple[int, int]] = deque()  # of the last two days
        self._new_gaps: list[tuple[int, int]] = []  # since they were taken last

    @property
    def price(self) -> float | None:
        """Return the newest price known [quote currency], None before the first."""
        return self._price if self._price_ns >= 0 else None

    def seed(self, series: BarSeries) -> None:
        """Take the venue's bars from before the first event."""
        opens, rows = series.open_ns_T[-KEEP:].tolist(), series.ohlcv_TC[-KEEP:].tolist()
        for open_ns, (open_, high, low, close, volume) in zip(opens, rows, strict=True):
            prices = (open_, high, low, close)
            candle = Bar(self._symbol, series.timeframe, open_ns, *prices, volume, is_venue=True)
            self._keep(candle)

    def heard(self, ts_ns: int) -> None:
        """Note that the feed was up: a trade or a book message came."""
        if self._heard_ns >= 0 and self._has_ticks and ts_ns - self._heard_ns > self._silence_ns:
            self._gap(self._heard_ns, ts_ns)
        self._has_ticks = True
        self._heard_ns = max(self._heard_ns, ts_ns)

    def trades(self, ts_ns_N: Ints, price_N: Floats, lots_N: Ints) -> None:
        """Add trades, at least one and oldest first, of the second that is not closed yet.

        Args:
            ts_ns_N: int64 (N,) [ns UTC].
            price_N: float64 (N,) [quote currency].
            lots_N: int64 (N,) [1e-8 of the base currency].
        """
        if self.first_tick_ns is None:
            self.first_tick_ns = int(ts_ns_N[0])
        self._own.add(ts_ns_N, price_N, lots_N)
        self._price, self._price_ns = float(price_N[-1]), int(ts_ns_N[-1])
        self._trade_ns = self._price_ns

    def gap(self, from_ns: int, until_ns: int) -> None:
        """Note that the feed was down: no bar that overlaps the gap is made from trades."""
        self._gap(from_ns, until_ns)
        self._heard_ns = max(self._heard_ns, until_ns)

    def take_gaps(self) -> list[tuple[int, int]]:
        """Return the gaps noted since the last call, from and until [ns UTC]."""
        gaps, self._new_gaps = self._new_gaps, []
        return gaps

    def has_gap(self, from_ns: int, until_ns: int) -> bool:
        """Return whether the feed was down at some time between [ns UTC]."""
        return any(start < until_ns and end >= from_ns for start, end in self._gaps)

    def late(self, ts_ns: int, price: float) -> None:
        """Note a trade whose second has closed: its price is known, and no bar is whole there."""
        self._gap(ts_ns, ts_ns)
        if ts_ns >= self._price_ns:
            self._price, self._price_ns = price, ts_ns
        self._trade_ns = max(self._trade_ns, ts_ns)

    def venue(self, candle: Bar) -> None:
        """Take the venue's own candle; its turn comes in the `close` at or after its own."""
        self._staged[candle.timeframe][candle.open_ns] = candle
        if not self._has_ticks:
            self._heard_ns = max(self._heard_ns, candle.ts_ns)

    def close(self, boundary_ns: int) -> list[Bar]:
        """Return the bars complete at `boundary_ns`, a whole second; short timeframes first."""
        if self._has_ticks and boundary_ns - self._heard_ns > self._silence_ns:
            self._gap(self._heard_ns, boundary_ns - 1)
        self._own.close_until(boundary_ns)
        bars: list[Bar] = []
        for timeframe in TIMEFRAMES:
            if boundary_ns % timeframe.ns == 0 and self._is_whole(timeframe, boundary_ns):
                bars.append(self._make(timeframe, boundary_ns - timeframe.ns))
            if self._staged[timeframe]:
                bars += self._admit(timeframe, boundary_ns)
        return bars

    def forming(self, timeframe: Timeframe, event_ns: int) -> tuple[Bar, bool] | None:
        """Return the unfinished bar and whether part of it was not seen; None without any price.

        It is made of the closed lower bars and the trades after them; `event_ns` is the newest
        boundary closed.
        """
        tally, is_partial = self._so_far(timeframe, event_ns)
        if not tally.lots and self._price_ns < 0:
            return None
        return self._bar(timeframe, timeframe.floor(event_ns), tally), is_partial

    def is_down(self, event_ns: int) -> bool:
        """Return whether the feed is silent for too long or was down within the last second."""
        return (
            self._heard_ns < 0
            or event_ns - self._heard_ns > self._silence_ns
            or self.has_gap(event_ns - SECOND_NS, event_ns)
        )

    def _is_whole(self, timeframe: Timeframe, boundary_ns: int) -> bool:
        open_ns = boundary_ns - timeframe.ns
        if self.first_tick_ns is None or self.first_tick_ns > open_ns:
            return False
        if self.has_gap(open_ns, boundary_ns):
            return False
        if timeframe is Timeframe.S1:  # the price before a gap is not the price after it
            is_priced = self._trade_ns >= max((end for _, end in self._gaps), default=-1)
            return is_priced or self._own.newest(timeframe).lots > 0
        return self._num_made(LOWER[timeframe], boundary_ns) >= NUM_LOWER[timeframe]

    def _num_made(self, timeframe: Timeframe, event_ns: int) -> int:
        """Return how many bars up to now adjoin: own ones once there are trades, else all."""
        bars = self._closed[timeframe]
        if not bars or bars[-1].close_ns != timeframe.floor(event_ns):
            return 0
        run = self._run if self.first_tick_ns is None else self._run_own
        return run[timeframe]

    def _make(self, timeframe: Timeframe, open_ns: int) -> Bar:
        return self._keep(self._bar(timeframe, open_ns, self._own.newest(timeframe)))

    def _bar(self, timeframe: Timeframe, open_ns: int, tally: Tally) -> Bar:
        if tally.lots:
            prices = (tally.open, tally.high, tally.low, tally.close)
            return Bar(self._symbol, timeframe, open_ns, *prices, volume=tally.lots / LOTS)
        prices = (self._price,) * 4
        return Bar(self._symbol, timeframe, open_ns, *prices, volume=0.0, is_empty=True)

    def _so_far(self, timeframe: Timeframe, event_ns: int) -> tuple[Tally, bool]:
        open_ns = timeframe.floor(event_ns)
        lower = LOWER[timeframe]
        num_needed = (event_ns - open_ns) // lower.ns
        is_partial = num_needed > self._num_made(lower, event_ns)
        is_partial |= self.has_gap(open_ns, event_ns)
        if timeframe is Timeframe.M1:
            return self._own.forming(timeframe), is_partial
        tally = self._since(lower, open_ns)
        rest, rest_is_partial = self._so_far(lower, event_ns)
        tally.add(rest)
        return tally, is_partial or rest_is_partial

    def _since(self, timeframe: Timeframe, open_ns: int) -> Tally:
        """Return the tally of the closed bars at or after `open_ns`, worked out once a bar."""
        bars = self._closed[timeframe]
        key = (open_ns, bars[-1].open_ns if bars else -1)
        kept = self._tallies.get(timeframe)
        if kept is None or kept[0] != key:
            closed = Tally()
            for bar in bars:
                if bar.open_ns >= open_ns:
                    prices = (bar.open, bar.high, bar.low, bar.close)
                    closed.add(Tally(*prices, lots=round(bar.volume * LOTS)))
            kept = self._tallies[timeframe] = (key, closed)
        tally = Tally()
        tally.add(kept[1])
        return tally

    def _keep(self, bar: Bar) -> Bar:
        timeframe, bars = bar.timeframe, self._closed[bar.timeframe]
        adjoins = bool(bars) and bars[-1].close_ns == bar.open_ns
        self._run[timeframe] = self._run[timeframe] + 1 if adjoins else 1
        self._run_own[timeframe] = 0 if bar.is_venue else self._run_own[timeframe] * adjoins + 1
        bars.append(bar)
        if bar.is_venue and bar.close_ns > self._price_ns:
            self._price, self._price_ns = bar.close, bar.close_ns
        return bar

    def _admit(self, timeframe: Timeframe, boundary_ns: int) -> list[Bar]:
        staged, bars = self._staged[timeframe], self._closed[timeframe]
        admitted: list[Bar] = []
        for open_ns in sorted(ns for ns in staged if ns + timeframe.ns <= boundary_ns):
            candle = staged.pop(open_ns)
            if not bars or open_ns > bars[-1].open_ns:
                admitted.append(self._keep(candle))
            else:
                self._compare(candle)
        return admitted

    def _compare(self, candle: Bar) -> None:
        own = next((b for b in self._closed[candle.timeframe] if b.open_ns == candle.open_ns), None)
        if own is None or own.is_venue:
            self.counters["venue_too_late"] += 1
            return
        self.counters["venue_compared"] += 1
        is_equal = (own.open, own.high, own.low, own.close) == (
            candle.open, candle.high, candle.low, candle.close,
        ) and abs(own.volume - candle.volume) <= VOLUME_RTOL * candle.volume  # fmt: skip
        self.counters["venue_mismatch"] += not is_equal

    def _gap(self, from_ns: int, until_ns: int) -> None:
        first_ns, last_ns = from_ns, until_ns
        # told again and again it is one gap; one that lies apart, before the last, stays apart
        while self._gaps and self._gaps[-1][1] >= first_ns and self._gaps[-1][0] <= last_ns:
            kept_from_ns, kept_until_ns = self._gaps.pop()
            first_ns, last_ns = min(first_ns, kept_from_ns), max(last_ns, kept_until_ns)
        self._gaps.append((first_ns, last_ns))
        self._new_gaps.append((from_ns, until_ns))
        while self._gaps[0][1] < until_ns - 2 * Timeframe.D1.ns:
            self._gaps.popleft()
