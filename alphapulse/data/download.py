"""Keep a venue's closed candles on disk: those a live run first learns from, and any others.

Both write a recording's candle files, in folders of their own: the first is replaced as a whole
(`<exchange>-candles`), the second grows and is never taken back (`<exchange>-download`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alphapulse.data.history import NS_PER_MS, PAGE_BARS, require_sound, write_candles
from alphapulse.data.live import Live
from alphapulse.data.recordings import read_series
from alphapulse.domain.errors import (
    InvalidRecording,
    InvalidRequest,
    NoData,
    StoreError,
    Unavailable,
)
from alphapulse.domain.market import BarSeries, Instrument, Ints, Timeframe
from alphapulse.features.grid import iso

# two weeks of minutes, four months of hours, three years of days: what the first training looks at
BARS: Mapping[Timeframe, int] = {Timeframe.M1: 20_000, Timeframe.H1: 3_000, Timeframe.D1: 1_000}
SEGMENT_BARS = 20_000  # new bars after which the file is replaced: writing each page is quadratic
EMPTY_BARS = 300  # bars an empty page has ruled out: what Coinbase and OKX look through, 2026-11

Tell = Callable[[int, int], None]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """What a download came to.

    Attributes:
        file: the candle file.
        rows: bars in it.
        new_rows: bars that came now.
        first_ns: its oldest open [ns UTC].
        last_ns: its newest open [ns UTC].
        asked_ns: what was asked for: first open, and the end of the last bar [ns UTC].
        gaps: holes in that, as (first missing open, next open) [ns UTC], oldest first.
        missing: bars in the holes.
    """

    file: Path
    rows: int
    new_rows: int
    first_ns: int
    last_ns: int
    asked_ns: Span
    gaps: tuple[Span, ...]
    missing: int


async def download_candles(venue: Live, instruments: Sequence[Instrument], folder: Path) -> Path:
    """Write the newest closed candles of every instrument into `folder`, whole or not at all.

    Raises Unavailable if the venue does not answer, InvalidRecording if its bars cannot be bars.
    """
    unborn = folder.with_name(f".{folder.name}")
    shutil.rmtree(unborn, ignore_errors=True)
    unborn.mkdir(parents=True)
    try:
        for instrument in instruments:
            for timeframe, count in BARS.items():
                series = await venue.history(instrument, timeframe, count)
                name = f"candles-{timeframe}-{instrument.venue_symbol}.parquet"
                write_candles(unborn / name, series)
    finally:
        await venue.close()
    shutil.rmtree(folder, ignore_errors=True)
    return unborn.rename(folder)


async def download_span(
    venue: Live,
    symbol: str,
    timeframe: Timeframe,
    folder: Path,
    *,
    since_ns: int,
    until_ns: int | None = None,
    tell: Tell = lambda done, total: None,
) -> Downloaded:
    """Bring the candle file of `symbol` in `folder` up to every closed bar the venue has of a span.

    Only bars that are not in the file are asked for: a download that was interrupted goes on where
    the file ends, and holes are asked for again. The file is replaced whole, after every 20 000 new
    bars and however the download ends. Nothing is ever filled in.

    Args:
        venue: where to ask; it is closed at the end.
        symbol: ccxt's name.
        timeframe: length of a bar.
        folder: where the file is or will be.
        since_ns: no bar opens before it [ns UTC].
        until_ns: no bar ends after it [ns UTC]; None, or a time to come, is the venue's present.
        tell: called after every page with the bars done and all bars to ask for.

    Raises InvalidRequest if no bar closed in the span, NoData if the venue does not answer or has
    none of the bars, InvalidRecording if the file or the venue's bars cannot be bars, StoreError if
    the file cannot be written. What came before is kept.
    """
    file = folder / f"candles-{timeframe}-{symbol.replace('/', '')}.parquet"
    try:
        now_ns = await venue.now_ns()  # the venue decides what has closed, not our clock
        end_ns = timeframe.floor(now_ns if until_ns is None else min(until_ns, now_ns))
        first_ns = -(-since_ns // timeframe.ns) * timeframe.ns
        if first_ns >= end_ns:
            raise InvalidRequest(
                f"{symbol} {timeframe}: expected a span with a closed bar, was {iso(since_ns)} "
                f"until {iso(end_ns)}; ask for an earlier start or a later end"
            )
        kept = _Kept(file, symbol, timeframe)
        spans = missing_spans(kept.series.open_ns_T, timeframe, first_ns, end_ns)
        await _fill(kept, venue, spans, tell)
    except Unavailable as error:
        raise NoData(f"{error}; the same command goes on from what is in {file}") from None
    finally:
        await venue.close()
    series = kept.series
    if not len(series):
        raise NoData(
            f"{symbol} {timeframe}: expected candles from {iso(first_ns)} until {iso(end_ns)}, "
            "the venue has none; ask for another time or symbol"
        )
    gaps = missing_spans(series.open_ns_T, timeframe, first_ns, end_ns)
    return Downloaded(
        file=file,
        rows=len(series),
        new_rows=kept.num_new,
        first_ns=int(series.open_ns_T[0]),
        last_ns=int(series.open_ns_T[-1]),
        asked_ns=(first_ns, end_ns),
        gaps=tuple(gaps),
        missing=_num_bars(gaps, timeframe),
    )


def missing_spans(
    open_ns_T: Ints, timeframe: Timeframe, first_ns: int, end_ns: int
) -> list[tuple[int, int]]:
    """Return what `open_ns_T` lacks of [first_ns, end_ns) as (first missing open, next open).

    All times are whole multiples of the timeframe [ns UTC]; opens rise.
    """
    inside_T = open_ns_T[(open_ns_T >= first_ns) & (open_ns_T < end_ns)]
    opens_T = np.concatenate(([first_ns - timeframe.ns], inside_T, [end_ns]))
    before = np.flatnonzero(np.diff(opens_T) > timeframe.ns)
    return [(int(opens_T[i]) + timeframe.ns, int(opens_T[i + 1])) for i in before]


class _Kept:
    """A candle file and the bars that are not in it yet."""

    def __init__(self, file: Path, symbol: str, timeframe: Timeframe) -> None:
        self.num_new = 0
        self._file = file
        self._pages: list[BarSeries] = []
        self.series = (
            read_series(file, symbol, timeframe)
            if file.is_file()
            else _series(symbol, timeframe, {}, where=str(file))
        )

    def add(self, page: BarSeries) -> None:
        self._pages.append(page)
        if sum(map(len, self._pages)) >= SEGMENT_BARS:
            self.flush()

    def flush(self) -> None:
        """Replace the file by one with the new bars; a reader sees the old one or the new one."""
        num_new = sum(map(len, self._pages))
        if not num_new:
            return
        parts = (self.series, *self._pages)
        opens_T = np.concatenate([part.open_ns_T for part in parts])
        order_T = np.argsort(opens_T)
        ohlcv_TC = np.concatenate([part.ohlcv_TC for part in parts])[order_T]
        whole = BarSeries(self.series.symbol, self.series.timeframe, opens_T[order_T], ohlcv_TC)
        unborn = self._file.with_name(f".{self._file.name}")
        try:
            unborn.parent.mkdir(parents=True, exist_ok=True)
            write_candles(unborn, whole)
            with unborn.open("rb") as written:
                os.fsync(written.fileno())
            unborn.replace(self._file)
        except OSError as error:
            raise StoreError(
                f"{self._file}: expected to be written, was {type(error).__name__}: {error}; make "
                "room or correct the folder, then give the same command again"
            ) from None
        self.series, self._pages = whole, []
        self.num_new += num_new


async def _fill(kept: _Kept, venue: Live, spans: Sequence[Span], tell: Tell) -> None:
    timeframe = kept.series.timeframe
    total, done = _num_bars(spans, timeframe), 0
    tell(done, total)
    try:
        for since_ns, until_ns in spans:
            async for page, num_passed in _pages(venue, kept.series, since_ns, until_ns):
                kept.add(page)
                done += num_passed
                tell(done, total)
    finally:
        kept.flush()


async def _pages(
    venue: Live, like: BarSeries, since_ns: int, until_ns: int
) -> AsyncIterator[tuple[BarSeries, int]]:
    """Yield each page's bars in the span, and how many opens it has settled: there or not there."""
    length_ns = like.timeframe.ns
    where = f"{like.symbol} {like.timeframe} from the venue"
    while since_ns < until_ns:
        limit = min(PAGE_BARS, (until_ns - since_ns) // length_ns)
        rows = await venue.candles(like.symbol, like.timeframe, since_ns=since_ns, limit=limit)
        page = _parsed(rows, where=where)
        later = [open_ns for open_ns in page if open_ns >= since_ns]
        passed_ns = max(later) + length_ns if later else since_ns + EMPTY_BARS * length_ns
        next_ns = min(passed_ns, until_ns)
        wanted = {open_ns: page[open_ns] for open_ns in later if open_ns < until_ns}
        series = _series(like.symbol, like.timeframe, wanted, where=where)
        yield series, (next_ns - since_ns) // length_ns
        since_ns = next_ns


def _parsed(rows: Sequence[Sequence[float]], *, where: str) -> dict[int, list[float]]:
    try:
        return {
            int(open_ms) * NS_PER_MS: [
                float(first),
                float(high),
                float(low),
                float(last),
                float(size),
            ]
            for open_ms, first, high, low, last, size in rows
        }
    except (TypeError, ValueError) as error:
        raise InvalidRecording(
            f"{where}: expected rows of time, open, high, low, close, volume, was one that is not "
            f"({error}); ask again, or another venue"
        ) from None


def _series(
    symbol: str, timeframe: Timeframe, rows: Mapping[int, list[float]], *, where: str
) -> BarSeries:
    opens_T = np.array(sorted(rows), np.int64)
    ohlcv_TC = np.array([rows[open_ns] for open_ns in opens_T.tolist()], np.float64)
    series = BarSeries(symbol, timeframe, opens_T, ohlcv_TC.reshape(-1, 5))
    require_sound(series, where=where)
    return series


def _num_bars(spans: Sequence[Span], timeframe: Timeframe) -> int:
    return sum((until_ns - since_ns) // timeframe.ns for since_ns, until_ns in spans)
