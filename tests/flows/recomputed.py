"""What the market answered, worked out again from raw trades and candles, the slow way."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

NS = {"1s": 10**9, "1m": 60 * 10**9}
Pivots = dict[str, list[tuple[int, float, int]]]  # by kind: time, price, confirmation


def bars_of(folder: Path, symbol: str, timeframe: str, until_ns: int) -> pd.DataFrame:
    """Return open, high, low, close by open [ns UTC], closed by `until_ns`, after the last gap."""
    name, ns = symbol.replace("/", ""), NS[timeframe]
    if timeframe == "1s":
        trades = pd.read_parquet(folder / f"trades-{name}.parquet")
        bars = trades["price"].groupby(trades["ts"].astype("int64") // ns * ns).ohlc()
        bars = bars.reindex(range(bars.index[0] + ns, bars.index[-1] + ns, ns))
        bars = bars.T.fillna(bars["close"].ffill()).T
    else:
        bars = pd.read_parquet(folder / f"candles-{timeframe}-{name}.parquet").set_index("ts")
        bars.index = bars.index.astype("int64")
        bars = bars.iloc[np.flatnonzero(np.diff(bars.index, prepend=0) > ns)[-1] :]
    return bars.loc[bars.index + ns <= until_ns, ["open", "high", "low", "close"]]


def pivots_of(bars: pd.DataFrame, ns: int) -> Pivots:
    """Return the pivots of level 2: legs of moves that broke the last bar that was not inside."""
    high, low, moves = math.inf, -math.inf, []
    for i, (at, open_, top, bottom, close) in enumerate(bars.itertuples()):
        if i == 0 or top > high or bottom < low:
            broken = [("L", bottom, at)] * (bottom < low) + [("H", top, at)] * (top > high)
            moves += broken if close >= open_ else broken[::-1]
            high, low = top, bottom
    legs = [list(leg) for _, leg in groupby(moves, key=lambda move: move[0])]
    first, second = {"H": [], "L": []}, {"H": [], "L": []}
    for leg, after in pairwise(legs):
        kind, price, at = max(leg, key=lambda m: m[1] if m[0] == "H" else -m[1])
        first[kind].append((at, price, after[0][2] + ns))
    for kind, sign in (("H", 1), ("L", -1)):
        unlike = [next(same) for _, same in groupby(first[kind], key=lambda pivot: pivot[1])]
        for a, b, c in zip(unlike, unlike[1:], unlike[2:], strict=False):
            if sign * b[1] > max(sign * a[1], sign * c[1]):
                second[kind].append((b[0], b[1], c[2]))
    return second


def forecast_answer(f: Any, price: float, unit: float, pivots: Pivots) -> dict[str, Any]:
    """Return the answer to a stored forecast, empty while it is not known."""
    after = {kind: [p for p in found if p[0] >= f.event_ns] for kind, found in pivots.items()}
    if not all(after.values()):
        return {}
    high, low = after["H"][0], after["L"][0]
    kind, (at, left, _) = ("H", high) if high[0] < low[0] else ("L", low)
    waited, move = (at - f.event_ns) / NS[f.timeframe], math.log(left / price) / unit
    right = (f.p_high >= f.p_low) == (kind == "H")
    timely = abs(f.bars_ahead - waited) <= max(2, waited / 2)
    hit = right and timely and abs(f.move - move) <= 0.5 * max(waited, 1) ** 0.5
    done = any(p[0] < f.event_ns < p[2] for found in pivots.values() for p in found)
    return {"ended_ns": at, "kind": kind, "bars": waited, "move": move, "price": left, "unit": unit,
            "hit": float(hit), "p_done": float(done), "known_ns": max(high[2], low[2])}  # fmt: skip


def action_answer(
    t: int, said: dict[int, str], bars: pd.DataFrame, *, price: float, risk: float, cost: float
) -> dict[str, Any]:
    """Return what a long and a short entered at `t` earned, empty while one of them is open."""
    exits: dict[int, tuple[str, int, float, float]] = {}
    for side, against in ((1, "sell"), (-1, "buy")):
        stop = price * math.exp(-side * risk)
        for n, (at, _, high, low, close) in enumerate(bars.loc[t:].itertuples()):
            stopped, end = low <= stop if side == 1 else high >= stop, at + NS["1s"]
            if stopped or n == 299 or said.get(end) == against:
                reason = "stop" if stopped else "horizon" if n == 299 else "reversal"
                left = stop if stopped else close
                exits[side] = (reason, end, left, math.log(left / price) / risk)
                break
    if len(exits) < 2:
        return {}
    net = {side: side * exit[3] - 2 * cost / risk for side, exit in exits.items()}
    side = {"buy": 1, "sell": -1}.get(said[t]) or max(exits, key=lambda side: exits[side][1])
    reason, end, left, move = exits[side]
    earned, hit = (0.0, math.nan) if said[t] == "hold" else (net[side], float(net[side] > 0))
    return {"reason": reason, "ended_ns": end, "price": left, "move": move, "action": said[t],
            "unit": risk, "result_long": net[1], "result_short": net[-1], "result": earned,
            "hit": hit, "known_ns": max(exit[1] for exit in exits.values())}  # fmt: skip
