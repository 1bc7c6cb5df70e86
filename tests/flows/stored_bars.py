"""Load every bar the recordings hold once, stream by stream, and walk the pivots over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from alphapulse.data.recordings import read_series
from alphapulse.domain.market import Pivot, Timeframe
from alphapulse.features.pivots import WilliamsStructure
from tests.flows.rescanned import Shape

FOLDERS = (
    "binance-spot-2024-08",
    "binance-spot-2025-05",
    "binance-usdm-2024-08",
    "binance-coinm-2024-08",
)


class Stream(NamedTuple):
    """All bars of one stream, in segments without a missing one, and what its walk gave."""

    name: str
    timeframe: Timeframe
    segments: list[list[Shape]]
    events: list[list[Pivot]]  # by bar

    def structure(self) -> WilliamsStructure:
        return WilliamsStructure(self.name, self.timeframe)

    @property
    def bars(self) -> list[Shape]:
        return [bar for segment in self.segments for bar in segment]

    @property
    def pivots(self) -> list[Pivot]:
        return flat(self.events)


def flat(events: Iterable[list[Pivot]]) -> list[Pivot]:
    return [pivot for confirmed in events for pivot in confirmed]


def walk(segments: Sequence[Sequence[Shape]], structure: WilliamsStructure) -> list[list[Pivot]]:
    """Return the pivots each bar confirms; a segment after the first begins with a reset."""
    events = []
    for i, segment in enumerate(segments):
        if i:
            structure.reset()
        events += [structure.update(*bar) for bar in segment]
    return events


def load_streams(parent: Path) -> list[Stream]:
    """Return the streams of all recordings below `parent`; a bar that two of them hold is once."""
    files: dict[tuple[str, Timeframe], list[Path]] = {}
    for folder in FOLDERS:
        assert (parent / folder).is_dir(), f"{folder} belongs to the recordings"
        market = folder.rsplit("-", 2)[0]
        for timeframe in Timeframe:
            for file in sorted((parent / folder).glob(f"candles-{timeframe}-*")):
                symbol = file.stem.rsplit("-", 1)[1]
                files.setdefault((f"{market} {symbol}", timeframe), []).append(file)
    return [_stream(name, timeframe, paths) for (name, timeframe), paths in files.items()]


def _stream(name: str, timeframe: Timeframe, files: Sequence[Path]) -> Stream:
    known: dict[int, Shape] = {}
    for file in files:
        series = read_series(file, name, timeframe)
        rows = series.ohlcv_TC[:, :4].tolist()
        for open_ns, row in zip(series.open_ns_T.tolist(), rows, strict=True):
            bar = (open_ns, *row)
            assert known.setdefault(open_ns, bar) == bar  # two recordings tell the same
    bars = [known[open_ns] for open_ns in sorted(known)]
    segments = [[bars[0]]]
    for before, bar in pairwise(bars):
        if bar[0] != before[0] + timeframe.ns:
            segments.append([])
        segments[-1].append(bar)
    return Stream(name, timeframe, segments, walk(segments, WilliamsStructure(name, timeframe)))
