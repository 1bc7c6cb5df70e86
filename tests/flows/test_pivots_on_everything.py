"""Hold the pivots to their laws on every stored bar: nothing repaints, restarts change nothing."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from alphapulse.data.recordings import read_series
from alphapulse.domain.market import Pivot, PivotKind, Timeframe
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.pivots import NUM_LEVELS
from alphapulse.features.rows import COLUMN
from experiments.labels import pivots_of
from tests.flows.rescanned import Shape, rescan
from tests.flows.stored_bars import FOLDERS, Stream, flat, load_streams, walk

# distinct ones: 319,669 of spot, and the seconds of the perpetuals
NUM_BARS = 321_645
NUM_PIVOTS = {1: 96_199, 2: 25_635, 3: 6_712, 4: 1_723, 5: 436}
MISSING_NS = 1_679_662_800_000_000_000  # 2023-03-24 13:00, of 1h and both symbols
LEVELS = range(1, NUM_LEVELS + 1)
OTHER = {PivotKind.HIGH: PivotKind.LOW, PivotKind.LOW: PivotKind.HIGH}


@pytest.fixture(scope="module")
def streams(recordings: Path) -> list[Stream]:
    return load_streams(recordings.parent)


def test_every_stored_bar_is_walked_once(streams: list[Stream]) -> None:
    num_bars = sum(len(stream.events) for stream in streams)
    num_pivots = Counter(pivot.level for stream in streams for pivot in stream.pivots)
    print(f"{num_bars} bars, pivots by level {dict(num_pivots)}")

    assert num_bars == NUM_BARS
    assert num_pivots == NUM_PIVOTS


def test_all_levels_are_those_found_by_scanning_whole_segments(streams: list[Stream]) -> None:
    for stream in streams:
        walked = {
            (p.segment_id, p.level, p.kind.value, p.pivot_ns, p.price, p.confirm_ns)
            for p in stream.pivots
        }
        scanned = {
            (
                i,
                found.level,
                found.kind,
                segment[found.bar][0],
                found.price,
                segment[found.confirm_bar][0] + stream.timeframe.ns,
            )
            for i, segment in enumerate(stream.segments)
            for found in rescan(segment, levels=NUM_LEVELS)
        }

        assert walked == scanned
        assert len(walked) == len(stream.pivots)


def test_a_truncated_walk_gave_the_same_pivots(streams: list[Stream]) -> None:
    for stream in streams:
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            cut = int(share * len(stream.events))
            kept = [bars for bars in _until(stream.segments, cut) if bars]

            assert walk(kept, stream.structure()) == stream.events[:cut]


def _until(segments: Sequence[list[Shape]], cut: int) -> Iterable[list[Shape]]:
    for segment in segments:
        yield segment[:cut]
        cut = max(0, cut - len(segment))


def test_restarts_anywhere_change_no_bit(streams: list[Stream]) -> None:
    chance = random.Random(5)
    for stream in streams:
        whole, restarted = stream.structure(), stream.structure()
        at = 0
        for i, segment in enumerate(stream.segments):
            if i:
                whole.reset()
                restarted.reset()
            for bar in segment:
                if chance.random() < 1 / 200:
                    saved = json.dumps(restarted.snapshot(), allow_nan=False)
                    restarted = stream.structure()
                    restarted.restore(json.loads(saved))
                    assert repr(restarted.context) == repr(whole.context)
                whole.update(*bar)
                assert restarted.update(*bar) == stream.events[at]
                assert restarted.state == whole.state
                at += 1
        assert repr(restarted.context) == repr(whole.context)
        assert restarted.snapshot() == whole.snapshot()


def test_mirrored_prices_swap_highs_and_lows(streams: list[Stream]) -> None:
    for stream in streams:
        mirrored = walk(
            [[_mirrored(bar) for bar in s] for s in stream.segments], stream.structure()
        )

        assert [_key(p, OTHER[p.kind], -p.price) for p in flat(mirrored)] == [
            _key(p, p.kind, p.price) for p in stream.pivots
        ]


def _mirrored(bar: Shape) -> Shape:
    """Return the bar upside down; a close at the open, which is up, becomes one below: down."""
    open_ns, open_, high, low, close = bar
    return open_ns, -open_, -low, -high, math.nextafter(-close, -math.inf)


def _key(pivot: Pivot, kind: PivotKind, price: float) -> tuple[object, ...]:
    return pivot.level, kind, pivot.pivot_ns, price, pivot.confirm_ns, pivot.segment_id


@pytest.mark.parametrize(
    "moved",
    [lambda price: price / 8, lambda price: 1024 * price, lambda price: round(100 * price) + 10**6],
    ids=["scaled down", "scaled up", "shifted by 10,000 in whole cents"],
)
def test_scale_and_shift_move_nothing_but_the_prices(
    streams: list[Stream], moved: Callable[[float], float]
) -> None:
    for stream in streams:
        segments = [
            [(ns, *map(moved, prices)) for ns, *prices in segment] for segment in stream.segments
        ]

        assert [_key(p, p.kind, p.price) for p in flat(walk(segments, stream.structure()))] == [
            _key(p, p.kind, moved(p.price)) for p in stream.pivots
        ]


def test_every_pivot_is_the_high_or_low_of_its_bar_and_known_at_a_close(
    streams: list[Stream],
) -> None:
    for stream in streams:
        bar_at = {bar[0]: bar for bar in stream.bars}
        for bar, confirmed in zip(stream.bars, stream.events, strict=True):
            for pivot in confirmed:
                _, _, high, low, _ = bar_at[pivot.pivot_ns]
                assert pivot.price == (high if pivot.kind is PivotKind.HIGH else low)
                assert pivot.confirm_ns == bar[0] + stream.timeframe.ns
                assert pivot.pivot_ns < pivot.confirm_ns
                assert pivot.timeframe is stream.timeframe


def test_every_higher_pivot_is_one_of_the_level_below_in_order(streams: list[Stream]) -> None:
    for stream in streams:
        known_ns: dict[tuple[object, ...], int] = {}
        newest_ns = dict.fromkeys(LEVELS, 0)
        for pivot in stream.pivots:
            place = (pivot.kind, pivot.pivot_ns, pivot.price, pivot.segment_id)
            if pivot.level > 1:
                assert known_ns[pivot.level - 1, *place] < pivot.confirm_ns
            known_ns[pivot.level, *place] = pivot.confirm_ns
            assert newest_ns[pivot.level] <= pivot.confirm_ns
            newest_ns[pivot.level] = pivot.confirm_ns


def test_context_is_what_the_confirmed_pivots_tell(streams: list[Stream]) -> None:
    for stream in streams:
        structure, at = stream.structure(), 0
        for i, segment in enumerate(stream.segments):
            if i:
                structure.reset()
            first = at
            for bar in segment:
                structure.update(*bar)
                at += 1
                if at % 1_999 == 0:
                    known = flat(stream.events[first:at])
                    told = [x for level in LEVELS for x in _told(known, level, stream, bar[0])]
                    assert repr(structure.context[:-2]) == repr(told)


def _told(pivots: Sequence[Pivot], level: int, stream: Stream, now_ns: int) -> list[float]:
    highs = [p for p in pivots if p.level == level and p.kind is PivotKind.HIGH]
    lows = [p for p in pivots if p.level == level and p.kind is PivotKind.LOW]
    trend = math.nan
    if len(highs) > 1 and len(lows) > 1:
        rising = [b.price > a.price for a, b in (highs[-2:], lows[-2:])]
        falling = [b.price < a.price for a, b in (highs[-2:], lows[-2:])]
        trend = float(all(rising) - all(falling))
    ages = [
        (now_ns - p[-1].pivot_ns) / stream.timeframe.ns if p else math.nan for p in (highs, lows)
    ]
    return [trend, *ages]


def test_no_pivot_spans_a_missing_bar(streams: list[Stream]) -> None:
    hours = [s for s in streams if s.timeframe is Timeframe.H1]
    assert all(s.segments[0][-1][0] + s.timeframe.ns == MISSING_NS for s in hours)
    assert [len(s.segments) for s in hours] == [2, 2]

    for stream in streams:
        starts = [segment[0][0] for segment in stream.segments]
        ends = [segment[-1][0] + stream.timeframe.ns for segment in stream.segments]
        for pivot in stream.pivots:
            assert starts[pivot.segment_id] <= pivot.pivot_ns
            assert pivot.confirm_ns <= ends[pivot.segment_id]


def test_rows_and_answers_are_made_of_the_same_pivots(
    streams: list[Stream], recordings: Path
) -> None:
    for stream in (s for s in streams if s.timeframe is Timeframe.H1):
        symbol = stream.name.split()[1]
        file = recordings.parent / FOLDERS[1] / f"candles-1h-{symbol}.parquet"
        series = read_series(file, stream.name, Timeframe.H1)
        builder = RowBuilder(stream.name, Timeframe.H1)

        rows_TC, _ = builder.open(series)

        assert list(builder.pivots) == stream.pivots[-len(builder.pivots) :]
        after = len(stream.segments[0])
        of_pivots = slice(COLUMN["l1_high"], COLUMN[f"l{NUM_LEVELS}_leg"] + 1)
        assert not np.isnan(rows_TC[after - 1, of_pivots]).any()
        assert np.isnan(rows_TC[after, of_pivots]).all()
        for level in LEVELS:
            assert pivots_of(series, level=level) == [p for p in stream.pivots if p.level == level]
