"""Compile what runs on every event before the first one comes."""

from __future__ import annotations

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.rows import read_only
from alphapulse.data.symbol_cache import SymbolCache
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.market import SECOND_NS, BookDelta, Instrument, Timeframe, Trade
from alphapulse.domain.windows import MarketWindow
from alphapulse.features.inputs import PeerTable, build


def compile_kernels() -> None:
    """Have numba compile every kernel of book and bars, or load it from its cache.

    On a machine's first start that takes some ten seconds, in which a live stream would look
    silent. A book of two levels of an instrument that is not there is led through a second.
    """
    cache = SymbolCache(Instrument("compiling", tick_size=1.0, bucket_size=1.0), Feed())
    live = np.array([[99.0, 1.0]]), np.array([[101.0, 1.0]])
    taped = read_only(*(levels_L2.copy() for levels_L2 in live))  # to numba another type
    for number, levels in enumerate((live, live, taped), start=1):
        is_snapshot = number == 1
        cache.take_delta(
            BookDelta(cache.symbol, number, number, number, number, is_snapshot, *levels)
        )
    cache.take_trade(Trade(cache.symbol, 4, 4, 1, 100.0, 1.0, is_buy=True))
    cache.close(SECOND_NS)
    cache.stream(Timeframe.M1, SECOND_NS, count=1)
    cache.quote(SECOND_NS)
    assert cache.buckets is not None


def compile_inputs() -> None:
    """Have numba compile what lays an input, or load it from its cache, where inputs are built."""
    nothing = MarketWindow(SECOND_NS, 1, {}, {}, {}, {}, 0)
    account_A = np.zeros(INPUT_SPEC.num_account_fields, np.float32)
    build(nothing, symbol="compiling", reference="too", peers=PeerTable(), account_A=account_A)
