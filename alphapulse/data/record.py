"""Record what a source says as a recording that survives a killed process.

What comes is kept in pieces of a few seconds in a folder whose name begins with a dot, until
`finish` merges them and takes the dot away.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import FIRST_COMPLETED
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphapulse.data.download import BARS
from alphapulse.data.live import Live
from alphapulse.data.pieces import PIECES, finish_held, hold_new, writing
from alphapulse.data.segments import Refusal, sync_folder, write_piece
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider

PIECE_S = 5.0  # what a killed process loses at most

Tell = Callable[[int, int | None], None]
Taken = tuple[list[MarketEvent], list[Refusal]]
NewRefusals = Callable[[], Sequence[Refusal]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a recording came to.

    Attributes:
        folder: the recording; None if nothing came.
        trades: number of trades.
        book_changes: number of book messages, snapshots included.
        candles: number of venue candles that came as events.
        gaps: number of told gaps.
        refused: number of lines in the quarantine.
    """

    folder: Path | None
    trades: int
    book_changes: int
    candles: int
    gaps: int
    refused: int


def new_refusals(live: Live) -> NewRefusals:
    """Return a function that gives what `live` has quarantined since it was last called."""
    num_seen = 0

    def since() -> list[Refusal]:
        nonlocal num_seen
        num_new, num_seen = live.num_quarantined - num_seen, live.num_quarantined
        kept = list(live.quarantine)[-num_new:] if num_new else []
        if len(kept) < num_new:
            kept.insert(0, ("not_kept", f"{num_new - len(kept)} more were refused before these"))
        return kept

    return since


async def record(
    source: DataProvider,
    instruments: Sequence[Instrument],
    folder: Path,
    *,
    for_s: float | None = None,
    ended: asyncio.Event | None = None,
    refusals: NewRefusals = list,
    bars: Mapping[Timeframe, int] = BARS,
    piece_s: float = PIECE_S,
    tell: Tell = lambda done_s, for_s: None,
) -> Recorded:
    """Record `source` into `folder` until it ends, `for_s` seconds have passed or `ended` is set.

    However it ends, what came is a recording then; a killed process leaves it to the next
    `finish`. A second candle of one period is refused: a recording has one.

    Args:
        source: what is recorded.
        instruments: whose history is recorded; the source says whose events come.
        folder: the recording to be; it must not exist.
        for_s: how long, from the first event on at the latest [s]; None is without end.
        ended: set it to end the recording.
        refusals: gives what the source has refused since the last call.
        bars: candles of history, by timeframe.
        piece_s: time between two pieces [s].
        tell: called with the seconds done, and all of them, after each piece.

    Raises InvalidRequest if the folder exists, StoreError if it cannot be written, and what the
    source raises once what came is kept.
    """
    with hold_new(folder) as hidden:
        pieces = _Pieces(hidden, instruments)
        try:
            asked = [
                (i, timeframe, count) for i in instruments for timeframe, count in bars.items()
            ]
            pieces.begin([await source.history(*what) for what in asked])
            await _listen(pieces, source, ended or asyncio.Event(), for_s, piece_s, refusals, tell)
        finally:
            pieces.write(pieces.taken(), refusals())
            finished = finish_held(hidden, folder)
    return pieces.told(finished)


async def _listen(
    pieces: _Pieces,
    source: DataProvider,
    ended: asyncio.Event,
    for_s: float | None,
    piece_s: float,
    refusals: NewRefusals,
    tell: Tell,
) -> None:
    reader = asyncio.create_task(pieces.read(source))
    stopper = asyncio.create_task(ended.wait())
    begun_s, done_s, all_s = time.monotonic(), 0.0, math.inf if for_s is None else for_s
    try:
        while not (reader.done() or stopper.done() or done_s >= all_s):
            wait_s = min(piece_s, all_s - done_s)
            await asyncio.wait({reader, stopper}, timeout=wait_s, return_when=FIRST_COMPLETED)
            # on a thread: the events that come while the disk is slow keep their received times
            await asyncio.to_thread(pieces.write, pieces.taken(), refusals())
            done_s = time.monotonic() - begun_s
            tell(int(done_s), None if for_s is None else int(for_s))
    finally:
        stopper.cancel()
        reader.cancel()
        await asyncio.wait({reader, stopper})
    if not reader.cancelled():
        reader.result()


class _Pieces:
    """The pieces of a recording under way, and what will be in the next one."""

    def __init__(self, hidden: Path, instruments: Sequence[Instrument]) -> None:
        self._folder = hidden / PIECES
        self._names = {i.symbol: i.venue_symbol for i in instruments}
        self._events: list[MarketEvent] = []
        self._refused: list[Refusal] = []
        self._known: set[tuple[str, Timeframe, int]] = set()
        self._counts: Counter[type[MarketEvent]] = Counter()
        self._num_refused = 0
        self._num_pieces = 0

    def begin(self, history: Sequence[BarSeries]) -> None:
        """Write the first piece, which is the history."""
        for series in history:
            key = series.symbol, series.timeframe
            self._known |= {(*key, open_ns) for open_ns in series.open_ns_T.tolist()}
        self._write(history=history)

    async def read(self, source: DataProvider) -> None:
        """Take in what the source says until it ends."""
        async for event in source.events():
            if event.symbol not in self._names:
                self._refused.append(("unknown_symbol", f"{event.symbol} is not recorded: {event}"))
                continue
            if isinstance(event, Bar):
                period = event.symbol, event.timeframe, event.open_ns
                if period in self._known:
                    self._refused.append(("duplicate", f"a candle of this period is kept: {event}"))
                    continue
                self._known.add(period)
            self._events.append(event)
            self._counts[type(event)] += 1

    def taken(self) -> Taken:
        """Return what has come since the last call."""
        taken = self._events, self._refused
        self._events, self._refused = [], []
        return taken

    def write(self, taken: Taken, refused: Sequence[Refusal]) -> None:
        """Write the next piece, if anything has come."""
        events, ours = taken
        if events or ours or refused:
            self._num_refused += len(ours) + len(refused)
            self._write(events=events, refused=[*refused, *ours])

    def told(self, folder: Path | None) -> Recorded:
        """Return what it came to."""
        return Recorded(
            folder=folder,
            trades=self._counts[Trade],
            book_changes=self._counts[BookDelta],
            candles=self._counts[Bar],
            gaps=self._counts[FeedGap],
            refused=self._num_refused,
        )

    def _write(self, **what: Any) -> None:
        piece = self._folder / f"{self._num_pieces:08}"
        unborn = piece.with_name(f".{piece.name}")
        with writing(piece):
            write_piece(unborn, self._names, **what)
            unborn.rename(piece)
            sync_folder(self._folder)
        self._num_pieces += 1
