"""How many trades a second become bars, and how many events a second pass the whole cache?"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from alphapulse.config import Feed, Market
from alphapulse.data.bars import KEEP
from alphapulse.data.cache import MarketCache
from alphapulse.data.merge import Merger
from alphapulse.data.tape import Tape
from alphapulse.data.trade_bars import TradeBars, bars_of_trades
from alphapulse.domain.market import TIMEFRAMES, BarSeries, BookDelta, MarketEvent, Trade, Trades
from experiments.benchmarks.peer import in_turn, rate_row, seconds
from experiments.benchmarks.result import Row

BATCH_NS = 100_000_000  # as often as Binance sends changes of the book
LIVE_GOAL, REPLAY_GOAL = 7.0, 1.1  # TARGETS.md, ingest
INSTRUMENTS = Market().instruments


def recorded_events(recording: Path) -> tuple[list[BarSeries], list[MarketEvent]]:
    """Return the history and all events of a recording, in the order the cache gets them."""
    tape = Tape(recording, INSTRUMENTS)
    merger = Merger([i.symbol for i in INSTRUMENTS], watermark_ms=Feed().watermark_ms)

    async def read() -> tuple[list[BarSeries], list[MarketEvent]]:
        history = [await tape.history(i, tf, None) for tf in TIMEFRAMES for i in INSTRUMENTS]
        events = [ordered async for event in tape.events() for ordered in merger.push(event)]
        return history, [*events, *merger.flush()]

    recorded = asyncio.run(read())
    gc.collect()
    gc.freeze()  # a feed does not hold its past: no collection is to walk it
    return recorded


def seeded_cache(history: Sequence[BarSeries]) -> MarketCache:
    """Return a cache with the bars before the first event."""
    cache = MarketCache(INSTRUMENTS, Feed())
    for series in history:
        cache.seed(series)
    return cache


def rows(recording: Path, *, runs: int) -> list[Row]:
    """Return `bars_live`, `bars_replay` and `cache_events`."""
    history, events = recorded_events(recording)
    columns = [
        Trades.of([e for e in events if isinstance(e, Trade) and e.symbol == i.symbol])
        for i in INSTRUMENTS
    ]
    files = [recording / f"trades-{i.venue_symbol}.parquet" for i in INSTRUMENTS]
    count = sum(map(len, columns))
    live = in_turn(_live(columns), "nautilus_bars", files, runs=runs)
    replay = in_turn(
        lambda: [bars_of_trades(trades) for trades in columns], "polars_bars", files, runs=runs
    )
    return [
        rate_row("bars_live", live, events=count, goal=LIVE_GOAL),
        rate_row("bars_replay", replay, events=count, goal=REPLAY_GOAL),
        _cache_row(history, events, runs=runs),
    ]


def _live(columns: Sequence[Trades]) -> Callable[[], object]:
    """Return a run of 100 ms batches, of both symbols in turn, through the bars of the cache."""
    batches = [
        (int(part.ts_ns_N[0]), k, (part.ts_ns_N, part.price_N, part.lots_N))
        for k, trades in enumerate(columns)
        for part in _cut(trades)
    ]
    batches.sort(key=lambda batch: batch[:2])

    def run() -> object:
        made = [TradeBars(keep=(KEEP,) * len(TIMEFRAMES)) for _ in columns]
        for _, k, batch in batches:
            made[k].add(*batch)
        return made

    return run


def _cut(trades: Trades) -> list[Trades]:
    starts = np.flatnonzero(np.diff(trades.ts_ns_N // BATCH_NS)) + 1
    edges = (0, *starts.tolist(), len(trades))
    return [trades.part(slice(first, end)) for first, end in pairwise(edges)]


def _cache_row(history: Sequence[BarSeries], events: Sequence[MarketEvent], *, runs: int) -> Row:
    """Return events a second through the whole cache: bars, indicators, pivots, book rows."""
    rates = []
    for _ in range(runs + 1):
        cache = seeded_cache(history)

        def run(cache: MarketCache = cache) -> None:
            for event in events:
                cache.apply(event)

        rates.append(len(events) / seconds(run))
    trades = sum(isinstance(event, Trade) for event in events)
    deltas = sum(isinstance(event, BookDelta) for event in events)
    return Row(
        name="cache_events",
        value=statistics.median(rates[1:]),  # the first compiles
        unit="1/s",
        goal=f"report: {trades} trades, {deltas} book messages, one object each",
        met=True,
        runs=rates[1:],
    )
