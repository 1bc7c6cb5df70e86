"""How long does a closed bar take to become a row, a forming bar of every stream, and a pivot?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import talib

from alphapulse.config import Market
from alphapulse.data.recordings import read_series
from alphapulse.domain.market import Bar, BarSeries, Floats, Timeframe
from alphapulse.features.indicators import RowBuilder, sample_of
from alphapulse.features.pivots import WilliamsStructure
from alphapulse.features.registry import INDICATORS, SERIES
from experiments.benchmarks.peer import seconds
from experiments.benchmarks.result import Row, in_turn_us, us_row

CLOSED_GOAL, SNAPSHOT_GOAL, PIVOTS_GOAL = 15.0, 15.0, 100.0  # TARGETS.md, features
NUM_STREAMS = 8
NUM_HISTORY = 2_000  # bars behind a stream, so that every indicator is warm
NUM_CLOSED = 500  # bars a stream and run
NUM_RECOMPUTED = 600  # bars the peers look back
PEER = f"TA-Lib {talib.__version__} batch, {len(INDICATORS)} functions of the last 600 bars"


def rows(recording: Path, *, runs: int) -> list[Row]:
    """Return `closed_bar`, `closed_bar_8`, `snapshot` and `pivots`, on recorded bars of 1m."""
    streams = stretches(recording)
    return [
        closed_row(streams[0], runs=runs),
        closed_8_row(streams, runs=runs),
        snapshot_row(streams, runs=runs),
        pivots_row(streams, runs=runs),
    ]


def stretches(recording: Path) -> list[BarSeries]:
    """Return eight stretches of recorded 1m bars, as many of each symbol."""
    instruments = Market().instruments[:2]
    num_bars, found = NUM_HISTORY + NUM_CLOSED + 1, []
    for instrument in instruments:
        file = recording / f"candles-1m-{instrument.venue_symbol}.parquet"
        series = read_series(file, instrument.symbol, Timeframe.M1)
        for i in range(NUM_STREAMS // len(instruments)):
            part = slice(i * num_bars, (i + 1) * num_bars)
            found.append(
                BarSeries(
                    series.symbol, Timeframe.M1, series.open_ns_T[part], series.ohlcv_TC[part]
                )
            )
    return found


def opened(series: BarSeries, num_bars: int) -> tuple[RowBuilder, list[Bar]]:
    """Return the builder that has seen the first `num_bars`, and the bars that follow."""
    builder = RowBuilder(series.symbol, series.timeframe)
    builder.open(
        BarSeries(
            series.symbol, series.timeframe, series.open_ns_T[:num_bars], series.ohlcv_TC[:num_bars]
        )
    )
    following = zip(
        series.open_ns_T[num_bars:].tolist(), series.ohlcv_TC[num_bars:].tolist(), strict=True
    )
    return builder, [Bar(series.symbol, series.timeframe, at, *ohlcv) for at, ohlcv in following]


def batch_functions(series: BarSeries) -> list[Callable[[], object]]:
    """Return every indicator of the registry as a TA-Lib call over the newest 600 bars.

    What the functions read is made beforehand: the peer does not pay for it.
    """
    bars = series.ohlcv_TC[-NUM_RECOMPUTED - 1 :].tolist()
    samples = [sample_of(bar, before[3]) for before, bar in pairwise(bars)]
    series_IT: Floats = np.array(samples).T.copy()
    read = dict(zip(SERIES, series_IT, strict=True))
    return [
        partial(getattr(talib, i.function), *(read[name] for name in i.reads), **i.parameters)
        for i in INDICATORS
    ]


def recompute(streams: Sequence[BarSeries], *, times: int) -> Callable[[], float]:
    """Return a run of the peer: all functions of all streams; it gives microseconds a round."""
    functions = [function for series in streams for function in batch_functions(series)]

    def run() -> None:
        for _ in range(times):
            for function in functions:
                function()

    return lambda: seconds(run) * 1e6 / times


def close_all(streams: Sequence[BarSeries]) -> float:
    """Return the microseconds a closed bar takes, the streams in turn as a feed closes them."""
    made = [opened(series, NUM_HISTORY) for series in streams]
    closes = [builder.close for builder, _ in made]
    minutes = list(zip(*(bars[:NUM_CLOSED] for _, bars in made), strict=True))

    def run() -> None:
        for bars in minutes:
            for close, bar in zip(closes, bars, strict=True):
                close(bar)

    return seconds(run) * 1e6 / (NUM_CLOSED * len(streams))


def closed_row(series: BarSeries, *, runs: int) -> Row:
    """Return the time of one closed bar of one stream: all indicators, pivots and levels."""
    ours_us, peer_us = in_turn_us(
        lambda: close_all([series]), recompute([series], times=20), runs=runs
    )
    return us_row("closed_bar", ours_us, PEER, peer_us, goal=CLOSED_GOAL)


def closed_8_row(streams: Sequence[BarSeries], *, runs: int) -> Row:
    """Return the time of one closed bar where eight streams close in turn."""
    ours_us, peer_us = in_turn_us(
        lambda: close_all(streams), recompute(streams[:1], times=20), runs=runs
    )
    return us_row("closed_bar_8", ours_us, PEER, peer_us, goal=CLOSED_GOAL)


def snapshot_row(streams: Sequence[BarSeries], *, runs: int) -> Row:
    """Return the time of the rows of eight forming bars."""
    made = [opened(series, NUM_HISTORY) for series in streams]
    peeks = [(builder.peek, bars[0]) for builder, bars in made]
    times = 100

    def run() -> None:
        for _ in range(times):
            for peek, bar in peeks:
                peek(bar)

    ours_us, peer_us = in_turn_us(
        lambda: seconds(run) * 1e6 / times, recompute(streams, times=3), runs=runs
    )
    return us_row("snapshot", ours_us, f"{PEER}, 8 streams", peer_us, goal=SNAPSHOT_GOAL)


def pivots_row(streams: Sequence[BarSeries], *, runs: int) -> Row:
    """Return the time of one bar in the Williams structure, all levels."""
    walked = [
        (series, list(zip(series.open_ns_T.tolist(), *series.ohlcv_TC.T[:4].tolist(), strict=True)))
        for series in streams
    ]
    newest = [(series, bars[-NUM_RECOMPUTED:]) for series, bars in walked]
    count = sum(len(bars) for _, bars in walked)

    def walk(
        some: Sequence[tuple[BarSeries, list[tuple[int, float, float, float, float]]]],
    ) -> None:
        for series, bars in some:
            update = WilliamsStructure(series.symbol, series.timeframe).update
            for bar in bars:
                update(*bar)

    ours_us, peer_us = in_turn_us(
        lambda: seconds(lambda: walk(walked)) * 1e6 / count,
        lambda: seconds(lambda: walk(newest)) * 1e6 / len(newest),
        runs=runs,
    )
    peer = "the same structure walked anew over the last 600 bars"
    return us_row("pivots", ours_us, peer, peer_us, goal=PIVOTS_GOAL)
