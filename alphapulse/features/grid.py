"""Lay the rows of a window on the 300 slots of an input, and say which are not there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    BarFlag,
    Bools,
    Flags,
    Floats,
    Ints,
    Timeframe,
)
from alphapulse.domain.windows import BookWindow, MarketWindow, StreamWindow
from alphapulse.features.rows import BOOK_COLUMNS, COLUMN, COLUMNS

# axes: F timeframe · T slot, oldest first · C column · B book column

BOOK = "book"  # name of the stream beside the timeframes
NUM_SLOTS = INPUT_SPEC.num_rows
REQUIRED = tuple(Timeframe(name) for name in INPUT_SPEC.required)
VALID, WARMUP = int(BarFlag.VALID), int(BarFlag.WARMUP)
INCOMPLETE = int(BarFlag.INCOMPLETE)
LOW, HIGH = COLUMN["low"], COLUMN["high"]


def first_slot_ns(stream: str, event_ns: int) -> int:
    """Return the time of slot 0 of a stream at an instant [ns UTC].

    The last slot of 1m, 1h and 1d is the forming bar; the last of 1s is the second that ended
    last, the last of the book its boundary.
    """
    if stream == BOOK:
        return Timeframe.S1.floor(event_ns) - (NUM_SLOTS - 1) * SECOND_NS
    timeframe = Timeframe(stream)
    return timeframe.floor(event_ns) - num_closed(timeframe) * timeframe.ns


def num_closed(timeframe: Timeframe) -> int:
    """Return how many slots of a timeframe hold closed bars."""
    return NUM_SLOTS if timeframe is Timeframe.S1 else NUM_SLOTS - 1


def shown_bars(stream: StreamWindow, event_ns: int) -> Ints:
    """Return the positions of the closed bars that an input at `event_ns` shows, oldest first."""
    timeframe = stream.timeframe
    first_ns = first_slot_ns(timeframe.value, event_ns)
    end_ns = first_ns + num_closed(timeframe) * timeframe.ns
    start, stop = np.searchsorted(stream.open_ns_T, (first_ns, end_ns))
    flags_T = stream.flags_T[start:stop]
    is_shown_T = (flags_T & VALID > 0) & ~is_hidden(timeframe.value, flags_T)
    return np.asarray(start + np.flatnonzero(is_shown_T))


def shown_seconds(book: BookWindow, event_ns: int) -> Ints:
    """Return the positions of the book seconds that an input at `event_ns` shows, oldest first."""
    first_ns = first_slot_ns(BOOK, event_ns)
    end_ns = first_ns + NUM_SLOTS * SECOND_NS
    start, stop = np.searchsorted(book.second_ns_T, (first_ns, end_ns))
    return np.asarray(start + np.flatnonzero(~is_hidden(BOOK, book.flags_T[start:stop])))


def is_hidden(stream: str, flags_T: Flags) -> Bools:
    """Return which rows no input shows: seconds whose trades were missed.

    A longer bar is worth more flagged than masked: without one of its 299 there is no input.
    """
    return (flags_T & INCOMPLETE > 0) & (stream in (BOOK, Timeframe.S1.value))


def shows_forming(stream: StreamWindow, event_ns: int) -> bool:
    """Return whether the stream's forming bar is the one of `event_ns` and has a slot."""
    return (
        stream.timeframe is not Timeframe.S1
        and stream.forming_C is not None
        and stream.forming_open_ns == stream.timeframe.floor(event_ns)
    )


def _run(positions: Ints) -> slice | Ints:
    """Return rising positions as a slice where they have no hole: slices copy four times faster."""
    if len(positions) and positions[-1] - positions[0] == len(positions) - 1:
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def iso(ts_ns: int) -> str:
    """Return a time [ns UTC] as ISO-8601 with Z, whole seconds."""
    return datetime.fromtimestamp(ts_ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Grid:
    """The rows of one symbol on the slots of an input; NaN and flag 0 where there is none.

    Attributes:
        rows_FTC: float64 (4, 300, C) rows of features.rows.COLUMNS.
        flags_FT: uint8 (4, 300) BarFlag bits.
        book_TB: float64 (300, 50) rows of features.rows.BOOK_COLUMNS.
        num_seconds: book seconds that are there.
    """

    symbol: str
    event_ns: int
    rows_FTC: Floats
    flags_FT: Flags
    book_TB: Floats
    num_seconds: int

    @classmethod
    def of(cls, window: MarketWindow, symbol: str) -> Grid:
        """Return the rows of `symbol` that an input at the window's instant shows."""
        rows_FTC = np.full((len(TIMEFRAMES), NUM_SLOTS, len(COLUMNS)), np.nan)
        flags_FT = np.zeros((len(TIMEFRAMES), NUM_SLOTS), np.uint8)
        for f, timeframe in enumerate(TIMEFRAMES):
            stream = window.streams.get((symbol, timeframe))
            if stream is None:
                continue
            shown = shown_bars(stream, window.event_ns)
            first_ns = first_slot_ns(timeframe.value, window.event_ns)
            slots = (stream.open_ns_T[shown] - first_ns) // timeframe.ns
            rows_FTC[f, _run(slots)] = stream.rows_TC[_run(shown)]
            flags_FT[f, slots] = stream.flags_T[shown]
            if shows_forming(stream, window.event_ns):
                rows_FTC[f, -1], flags_FT[f, -1] = stream.forming_C, stream.forming_flags
        book_TB = np.full((NUM_SLOTS, len(BOOK_COLUMNS)), np.nan)
        book, num_seconds = window.books.get(symbol), 0
        if book is not None:
            shown = shown_seconds(book, window.event_ns)
            first_ns = first_slot_ns(BOOK, window.event_ns)
            slots = (book.second_ns_T[shown] - first_ns) // SECOND_NS
            book_TB[_run(slots)] = book.rows_TC[_run(shown)]
            num_seconds = len(shown)
        return cls(symbol, window.event_ns, rows_FTC, flags_FT, book_TB, num_seconds)

    def missing(self) -> list[str]:
        """Return one sentence for each required stream that is not whole."""
        return [sentence for tf in REQUIRED if (sentence := self._missing_of(tf))]

    def _missing_of(self, timeframe: Timeframe) -> str:
        flags_T = self.flags_FT[TIMEFRAMES.index(timeframe)]
        usable_T = (flags_T & (VALID | WARMUP)) == VALID
        if usable_T.all():
            return ""
        count, expected = int(usable_T[:-1].sum()), NUM_SLOTS - 1
        slot = int(np.argmin(usable_T))
        at = iso(first_slot_ns(timeframe.value, self.event_ns) + slot * timeframe.ns)
        where = f"{self.symbol} {timeframe.value}"
        if slot == expected:
            return f"{where}: expected the forming bar of {at}, was none"
        num_warming = int(((flags_T[:-1] & WARMUP) > 0).sum())
        warming = f" and {num_warming} without all indicators" if num_warming else ""
        return (
            f"{where}: expected {expected} closed bars, was {count}{warming}; first missing at {at}"
        )

    def substitutions(self) -> list[str]:
        """Return one sentence for each optional stream that is not whole."""
        lowest = REQUIRED[0].value
        count = int(((self.flags_FT[0] & VALID) > 0).sum())
        sentences = []
        if count < NUM_SLOTS:
            sentences.append(
                f"{self.symbol} 1s: {count} of {NUM_SLOTS} seconds; "
                f"{lowest} is the lowest whole timeframe"
            )
        if self.num_seconds < NUM_SLOTS:
            sentences.append(
                f"{self.symbol} book: {self.num_seconds} of {NUM_SLOTS} seconds; the rest is masked"
            )
        for timeframe, flags_T in zip(TIMEFRAMES, self.flags_FT, strict=True):
            if count := int((flags_T & INCOMPLETE > 0).sum()):
                sentences.append(
                    f"{self.symbol} {timeframe.value}: {count} of {NUM_SLOTS} bars lack trades "
                    "that were missed; they are flagged"
                )
        return sentences

    def scale(self) -> tuple[float, float]:
        """Return low and high of the highest timeframe, its forming bar included (R1.9)."""
        return float(self.rows_FTC[-1, :, LOW].min()), float(self.rows_FTC[-1, :, HIGH].max())
