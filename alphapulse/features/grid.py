"""Say which rows of a window an input shows on its 300 slots, and which are not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from alphapulse.domain.inputs import INPUT_SPEC, Masks, Tensor
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
from alphapulse.domain.windows import BookWindow, MarketWindow, Shown, StreamWindow
from alphapulse.features.channels import bar_channels, book_columns, room_for_bars, room_for_book
from alphapulse.features.laying import Book, Stream, lay

# axes: F timeframe · T slot, oldest first · C column · B book column

BOOK = "book"  # name of the stream beside the timeframes
NUM_SLOTS = INPUT_SPEC.num_rows
REQUIRED = tuple(Timeframe(name) for name in INPUT_SPEC.required)
VALID, WARMUP = int(BarFlag.VALID), int(BarFlag.WARMUP)
INCOMPLETE = int(BarFlag.INCOMPLETE)


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
    """Return which rows no input shows: seconds whose trades were missed, as `laying` has it.

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


def iso(ts_ns: int) -> str:
    """Return a time [ns UTC] as ISO-8601 with Z, whole seconds."""
    return datetime.fromtimestamp(ts_ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# To a compiled function an array that may be written is of another type: all it gets may not.
_NO_FORMING: Floats = np.empty(0)
_NO_FORMING.flags.writeable = False


def _locked(array: Any) -> Any:
    if not array.flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _rows(ts_ns_T: Ints, flags_T: Flags, shown: Shown) -> Book:
    values_TC, known_TC, prices_TP = map(_locked, shown)
    return _locked(ts_ns_T), _locked(flags_T), values_TC, known_TC, prices_TP


@cache
def _none(room: Callable[[int], Shown]) -> Book:
    return _rows(np.empty(0, np.int64), np.empty(0, np.uint8), room(0))


def _stream(window: MarketWindow, symbol: str, timeframe: Timeframe) -> Stream:
    """Return what is laid of a stream, made here where nobody has made what models see of it."""
    stream = window.streams.get((symbol, timeframe))
    if stream is None:
        return (*_none(room_for_bars), _NO_FORMING, 0)
    rows = _rows(stream.open_ns_T, stream.flags_T, stream.shown or bar_channels(stream.rows_TC))
    if not shows_forming(stream, window.event_ns):
        return (*rows, _NO_FORMING, 0)
    return (*rows, _locked(stream.forming_C), stream.forming_flags)


@dataclass(frozen=True, slots=True)
class Grid:
    """One symbol's part of an input: its rows on the slots; 0 and flag 0 where there is none.

    Attributes:
        low: lowest low of the highest timeframe, its forming bar included (R1.9).
        high: highest high of it.
        num_usable: slots with a valid, warmed-up row, by timeframe.
        num_valid: slots with a valid row, by timeframe.
        num_incomplete: slots with a row that lacks trades, by timeframe.
        num_seconds: book seconds that are there.
        flags_FT: uint8 (4, 300) BarFlag bits.
    """

    symbol: str
    event_ns: int
    low: float
    high: float
    num_usable: list[int]
    num_valid: list[int]
    num_incomplete: list[int]
    num_seconds: int
    flags_FT: Flags

    @classmethod
    def lay(
        cls,
        window: MarketWindow,
        symbol: str,
        *,
        price: float,
        bars_FTC: Tensor,
        known_FTC: Masks,
        flags_FT: Flags,
        book_TB: Tensor,
        known_TB: Masks,
    ) -> Grid:
        """Fill a symbol's part of an input, all of it, with what an input at the instant shows.

        Args:
            window: everything known at the instant.
            symbol: which one.
            price: its newest traded price [quote currency].
            bars_FTC: float32 (4, 300, 32) to fill.
            known_FTC: uint8 (4, 300, 32) to fill.
            flags_FT: uint8 (4, 300) to fill.
            book_TB: float32 (300, 50) to fill.
            known_TB: uint8 (300, 50) to fill.
        """
        at_ns = window.event_ns
        streams = tuple(_stream(window, symbol, timeframe) for timeframe in TIMEFRAMES)
        book = window.books.get(symbol)
        seconds = (
            _none(room_for_book)
            if book is None
            else _rows(book.second_ns_T, book.flags_T, book.shown or book_columns(book.rows_TC))
        )
        counts_FN = np.empty((len(TIMEFRAMES), 3), np.int64)
        low, high, num_seconds = lay(
            at_ns, streams, seconds, price, bars_FTC, known_FTC, flags_FT, book_TB, known_TB,
            counts_FN,
        )  # fmt: skip
        usable, valid, incomplete = counts_FN.T.tolist()
        return cls(symbol, at_ns, low, high, usable, valid, incomplete, num_seconds, flags_FT)

    def missing(self) -> list[str]:
        """Return one sentence for each required stream that is not whole."""
        return [
            self._missing_of(timeframe)
            for timeframe, num_usable in zip(TIMEFRAMES, self.num_usable, strict=True)
            if timeframe in REQUIRED and num_usable < NUM_SLOTS
        ]

    def _missing_of(self, timeframe: Timeframe) -> str:
        flags_T = self.flags_FT[TIMEFRAMES.index(timeframe)]
        usable_T = (flags_T & (VALID | WARMUP)) == VALID
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
        sentences = []
        if self.num_valid[0] < NUM_SLOTS:
            sentences.append(
                f"{self.symbol} 1s: {self.num_valid[0]} of {NUM_SLOTS} seconds; "
                f"{lowest} is the lowest whole timeframe"
            )
        if self.num_seconds < NUM_SLOTS:
            sentences.append(
                f"{self.symbol} book: {self.num_seconds} of {NUM_SLOTS} seconds; the rest is masked"
            )
        for timeframe, count in zip(TIMEFRAMES, self.num_incomplete, strict=True):
            if count:
                sentences.append(
                    f"{self.symbol} {timeframe.value}: {count} of {NUM_SLOTS} bars lack trades "
                    "that were missed; they are flagged"
                )
        return sentences
