"""Show people what is cached of a symbol, as plain values ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from alphapulse.data.symbol_cache import SECONDS, SymbolCache
from alphapulse.domain.market import BarFlag, Timeframe
from alphapulse.features.grid import iso


def candles(
    cache: SymbolCache, timeframe: Timeframe, count: int, now_ns: int
) -> list[dict[str, Any]]:
    """Return the newest `count` closed bars and the one forming at `now_ns`, -1 for none."""
    opens, rows_TC, flags_T, *_ = cache.rows[timeframe].newest(count)
    shown = list(map(_candle, opens.tolist(), rows_TC[:, :5].tolist(), flags_T.tolist()))
    forming = None
    if timeframe is not SECONDS and now_ns >= 0:
        forming = cache.forming(timeframe, now_ns)
    if forming is not None:
        row_C, flags = forming
        shown.append(_candle(timeframe.floor(now_ns), row_C[:5].tolist(), flags))
    return shown


def book(cache: SymbolCache) -> dict[str, Any]:
    """Return the touch and the buckets within one percent of the mid; None where unknown."""
    touch, buckets = cache.book.touch(), cache.book.buckets()
    bid, bid_size, ask, ask_size = touch or (None,) * 4
    rows = []
    if buckets is not None:
        rows = np.column_stack((buckets.price_K, buckets.bids_K, buckets.asks_K)).tolist()
    return {
        "symbol": cache.symbol,
        "last_id": cache.book.last_id,
        "is_known": cache.book.is_known,
        "bid": bid,
        "bid_size": bid_size,
        "ask": ask,
        "ask_size": ask_size,
        "buckets": [{"price": p, "bids": _known(b), "asks": _known(a)} for p, b, a in rows],
    }


def pivots(cache: SymbolCache, timeframe: Timeframe) -> list[dict[str, Any]]:
    """Return the newest confirmed pivots of all levels, oldest first."""
    return [
        {
            "level": pivot.level,
            "kind": pivot.kind.value,
            "price": pivot.price,
            "pivot_at": iso(pivot.pivot_ns),
            "confirm_at": iso(pivot.confirm_ns),
        }
        for pivot in cache.builders[timeframe].pivots
    ]


def state(cache: SymbolCache, now_ns: int) -> dict[str, Any]:
    """Return how much there is of everything, and the newest prices."""
    bid, _, ask, _ = cache.book.touch() or (None,) * 4
    return {
        "price": cache.bars.price,
        "bid": bid,
        "ask": ask,
        "is_down": cache.bars.is_down(now_ns),
        "num_trades": len(cache.trades),
        "num_book_seconds": len(cache.book_rows),
        "num_bars": {tf.value: len(rows) for tf, rows in cache.rows.items()},
        "venue_candles": dict(cache.bars.counters),
        "last_trade_id": cache.last_trade_id,
        "last_book_id": cache.last_book_id,
    }


def _candle(open_ns: int, ohlcv: Sequence[float], flags: int) -> dict[str, Any]:
    names = ("open", "high", "low", "close", "volume")
    kinds = [flag.name.lower() for flag in BarFlag if flag.name and flags & flag]
    return {"open_at": iso(open_ns), **dict(zip(names, ohlcv, strict=True)), "flags": kinds}


def _known(size: float) -> float | None:
    return None if math.isnan(size) else size
