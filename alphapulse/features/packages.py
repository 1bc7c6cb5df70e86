"""Store an input as references to rows that are written once, and put its window together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage, StoredRow, StreamRef
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import TIMEFRAMES, Flags, Floats, Ints, Timeframe
from alphapulse.domain.windows import BookWindow, MarketWindow, StreamWindow
from alphapulse.features.grid import (
    BOOK,
    INCOMPLETE,
    VALID,
    first_slot_ns,
    is_hidden,
    iso,
    shown_bars,
    shown_seconds,
    shows_forming,
)
from alphapulse.features.rows import COLUMNS

# axes: T row, oldest first · C column

# By (symbol, stream): int64 (T,) times [ns UTC] strictly rising, uint8 (T,) flags, float64 (T, C).
StoredStreams = Mapping[tuple[str, str], tuple[Ints, Flags, Floats]]
STORED = len(COLUMNS)  # columns of a cached row that are stored
_NO_ROWS = (np.empty(0, np.int64), np.empty(0, np.uint8), np.empty((0, len(COLUMNS))))


def stored_rows(
    window: MarketWindow, *, newer_than: Mapping[tuple[str, str], int]
) -> tuple[StoredRow, ...]:
    """Return the closed rows of `window` that were not handed out before.

    Args:
        window: everything known at an instant.
        newer_than: by (symbol, stream), time of the newest row handed out [ns UTC]; a stream that
            is not in it gives all its rows. A stream is a timeframe or `book`.
    """
    found: list[StoredRow] = []
    for (symbol, timeframe), stream in window.streams.items():
        after_ns = newer_than.get((symbol, timeframe.value), -1)
        for i in _newer(stream.open_ns_T, after_ns):
            flags = int(stream.flags_T[i])
            if flags & VALID:
                ts_ns, row_C = int(stream.open_ns_T[i]), stream.rows_TC[i, :STORED].copy()
                found.append(StoredRow(symbol, timeframe.value, ts_ns, flags, row_C))
    for symbol, book in window.books.items():
        for i in _newer(book.second_ns_T, newer_than.get((symbol, BOOK), -1)):
            ts_ns, row_B = int(book.second_ns_T[i]), book.rows_TC[i].copy()
            found.append(StoredRow(symbol, BOOK, ts_ns, 0, row_B))
    return tuple(found)


def _newer(ts_ns_T: Ints, after_ns: int) -> range:
    return range(int(np.searchsorted(ts_ns_T, after_ns, side="right")), len(ts_ns_T))


def pack(window: MarketWindow, input: ModelInput) -> InputPackage:
    """Return `input`, built from `window`, as references to stored rows plus what is new in it."""
    streams: list[StreamRef] = []
    for symbol in (input.symbol, input.reference):
        for timeframe in TIMEFRAMES:
            stream = window.streams.get((symbol, timeframe))
            if stream is not None:
                streams.append(_reference_bars(stream, window.event_ns))
        book = window.books.get(symbol)
        if book is not None:
            shown_ns = book.second_ns_T[shown_seconds(book, window.event_ns)]
            rows_T = (book.second_ns_T, book.flags_T)
            streams.append(_reference(symbol, BOOK, window.event_ns, shown_ns, *rows_T))
    return InputPackage(
        symbol=input.symbol,
        reference=input.reference,
        event_ns=input.event_ns,
        window_version=input.window_version,
        input_hash=input.content_hash,
        spec_version=input.spec.version,
        own=input.spec.own,
        streams=tuple(streams),
        peers_KP=input.peers_KP,
        awake_K=input.awake_K,
        account_A=input.account_A,
        scale_S2=input.scale_S2,
        substitutions=input.substitutions,
    )


def _reference(
    symbol: str, stream: str, event_ns: int, shown_ns: Ints, ts_ns_T: Ints, flags_T: Flags
) -> StreamRef:
    first_ns = first_slot_ns(stream, event_ns)
    last_ns = int(shown_ns[-1]) if len(shown_ns) else -1
    is_told_T = (flags_T & INCOMPLETE > 0) & (first_ns <= ts_ns_T) & (ts_ns_T <= last_ns)
    told_ns = tuple(ts_ns_T[is_told_T].tolist())
    return StreamRef(symbol, stream, first_ns, last_ns, len(shown_ns), incomplete_ns=told_ns)


def _reference_bars(stream: StreamWindow, event_ns: int) -> StreamRef:
    shown_ns = stream.open_ns_T[shown_bars(stream, event_ns)]
    rows_T = (stream.open_ns_T, stream.flags_T)
    closed = _reference(stream.symbol, stream.timeframe.value, event_ns, shown_ns, *rows_T)
    if not shows_forming(stream, event_ns):
        return closed
    return replace(
        closed,
        forming_ns=stream.forming_open_ns,
        forming_flags=stream.forming_flags,
        forming_C=None if stream.forming_C is None else stream.forming_C[:STORED],
    )


def restore_window(package: InputPackage, rows: StoredStreams) -> MarketWindow:
    """Return the window `package` was made from, as far as its input shows it.

    Raises StoreError if a stream has fewer or more rows than the input showed.
    """
    streams: dict[tuple[str, Timeframe], StreamWindow] = {}
    books: dict[str, BookWindow] = {}
    for ref in package.streams:
        ts_ns_T, flags_T, values_TC = rows.get((ref.symbol, ref.stream), _NO_ROWS)
        shown: slice | Ints = slice(*np.searchsorted(ts_ns_T, (ref.first_ns, ref.last_ns + 1)))
        if ref.incomplete_ns:
            told_T = np.isin(ts_ns_T, ref.incomplete_ns)
            flags_T = np.where(told_T, flags_T | np.uint8(INCOMPLETE), flags_T)
            shown = np.arange(len(ts_ns_T))[shown][~is_hidden(ref.stream, flags_T[shown])]
        if len(ts_ns_T[shown]) != ref.count:
            raise StoreError(
                f"input of {package.symbol} at {iso(package.event_ns)}: {ref.symbol} {ref.stream}: "
                f"expected {ref.count} stored rows, was {len(ts_ns_T[shown])}; "
                "restore the history from a backup"
            )
        if ref.stream == BOOK:
            kept = (ts_ns_T[shown], values_TC[shown], flags_T[shown])
            books[ref.symbol] = BookWindow(ref.symbol, *kept)
        else:
            timeframe = Timeframe(ref.stream)
            streams[ref.symbol, timeframe] = StreamWindow(
                symbol=ref.symbol,
                timeframe=timeframe,
                open_ns_T=ts_ns_T[shown],
                rows_TC=values_TC[shown],
                flags_T=flags_T[shown],
                forming_open_ns=ref.forming_ns,
                forming_C=ref.forming_C,
                forming_flags=ref.forming_flags,
            )
    at_ns, version = package.event_ns, package.window_version
    return MarketWindow(at_ns, version, streams, books, {}, {}, 0, own=package.own)
