"""Keep the bars of all timeframes of one symbol as its trades make them, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphapulse.data.bar_kernel import BAR, RING, Records, add, close_until, so_far
from alphapulse.domain.market import TIMEFRAMES, Floats, Ints, Timeframe, Trades

# axes: F timeframe, shortest first · T bar, oldest first · N trade


@dataclass(slots=True)
class Tally:
    """Open, high, low, close and exact volume of the part of a period seen so far.

    Attributes:
        lots: volume [1e-8 of the base currency]; 0 where nobody traded, and the prices are void.
    """

    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    lots: int = 0

    def add(self, later: Tally) -> None:
        """Add what follows."""
        if not later.lots:
            return
        if not self.lots:
            self.open, self.high, self.low = later.open, later.high, later.low
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.lots += later.lots


class TradeBars:
    """Bars of one symbol straight from its trades, as if the feed had never been down.

    Whether a bar may be used is another's judgement (`BarMaker`): the first one may have begun
    before the first trade, and a period without trades repeats the close before it.

    ```python
    bars = TradeBars(keep=64)
    bars.add(ts_ns_N, price_N, lots_N)  # one call a batch, whatever seconds it holds
    bars.close_until(boundary_ns)  # where nobody trades, time moves on all the same
    bars.closed(Timeframe.S1)["close"]
    ```
    """

    def __init__(
        self, *, keep: Sequence[int], timeframes: Sequence[Timeframe] = TIMEFRAMES
    ) -> None:
        """Prepare.

        Args:
            keep: closed bars kept, a timeframe each; the oldest leave.
            timeframes: shortest first, each a multiple of the one before.
        """
        self._index = {timeframe: f for f, timeframe in enumerate(timeframes)}
        self._bars_F = np.zeros(len(timeframes), BAR)
        self._bars_F["open_ns"] = -1
        self._upto_F = self._bars_F.copy()
        self._rings_F = np.zeros(len(timeframes), RING)
        self._rings_F["length_ns"] = [timeframe.ns for timeframe in timeframes]
        self._rings_F["size"] = keep
        self._rings_F["first"][1:] = np.cumsum(keep)[:-1]
        self._closed_R = np.zeros(int(np.sum(keep)), BAR)

    def add(self, ts_ns_N: Ints, price_N: Floats, lots_N: Ints) -> None:
        """Add trades, oldest first [ns UTC, quote currency, 1e-8 of the base currency]."""
        add(self._bars_F, self._rings_F, self._closed_R, ts_ns_N, price_N, lots_N)

    def close_until(self, ts_ns: int) -> None:
        """Close every bar that ends at or before `ts_ns` [ns UTC]."""
        close_until(self._bars_F, self._rings_F, self._closed_R, ts_ns)

    def closed(self, timeframe: Timeframe) -> Records:
        """Return the closed bars kept, BAR (T,), a copy."""
        ring = self._rings_F[self._index[timeframe]]
        num, size, first = int(ring["num"]), int(ring["size"]), int(ring["first"])
        rows_T = np.arange(max(num - size, 0), num) % max(size, 1)
        return self._closed_R[first + rows_T]

    def newest(self, timeframe: Timeframe) -> Tally:
        """Return the newest closed bar, an empty one before the first."""
        ring = self._rings_F[self._index[timeframe]]
        if not ring["num"]:
            return Tally()
        row = self._closed_R[ring["first"] + (ring["num"] - 1) % ring["size"]]
        return Tally(*row.item()[1:6])

    def forming(self, timeframe: Timeframe) -> Tally:
        """Return the bar not closed yet, with all trades so far."""
        return Tally(*self._so_far(timeframe).item()[1:6])

    def whole(self, timeframe: Timeframe) -> Records:
        """Return the closed bars kept and the one not closed yet, BAR (T,)."""
        return np.append(self.closed(timeframe), self._so_far(timeframe))

    def _so_far(self, timeframe: Timeframe) -> Any:
        f = self._index[timeframe]
        so_far(self._bars_F, self._upto_F, f)
        return self._upto_F[f]


def bars_of_trades(
    trades: Trades, timeframes: Sequence[Timeframe] = TIMEFRAMES
) -> dict[Timeframe, Records]:
    """Return the bars of every period from the first trade to the last, in one pass.

    The first and the last bar of each timeframe hold what was traded in the part of the period the
    trades reach; between them a period without trades repeats the close before it.

    Args:
        trades: at least one, oldest first.
        timeframes: shortest first, each a multiple of the one before.

    Returns:
        By timeframe, BAR (T,): open_ns, open, high, low, close, lots (1e-8 of the base currency)
        and count of trades; oldest first.
    """
    first_ns, last_ns = int(trades.ts_ns_N[0]), int(trades.ts_ns_N[-1])
    keep = [(tf.floor(last_ns) - tf.floor(first_ns)) // tf.ns for tf in timeframes]
    bars = TradeBars(keep=keep, timeframes=timeframes)
    bars.add(trades.ts_ns_N, trades.price_N, trades.lots_N)
    return {timeframe: bars.whole(timeframe) for timeframe in timeframes}
