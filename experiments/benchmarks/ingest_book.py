"""What does a book message cost, a view of the book, and the way from the wire into the book?"""

from __future__ import annotations

import gc
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from alphapulse.data.book import Book
from alphapulse.data.levels import Buckets
from alphapulse.data.tape import book_messages, read_depth
from alphapulse.domain.market import BookDelta, Instrument
from experiments.benchmarks.result import Row, parser, show

INSTRUMENTS = (Instrument("ETH/USDT", 0.01, 1.0), Instrument("BTC/USDT", 0.01, 10.0))
UPDATES_RATIO, VIEW_RATIO, JSON_RATIO = 8.0, 100.0, 0.85  # TARGETS.md, ingest
VIEW_US = 2.0
SCAN_EVERY = 20  # events between two scans of the dict book, which costs as much as hundreds
ROOT = Path(__file__).resolve().parents[2]
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PEER_SCRIPT = Path(__file__).parent / "peers" / "nautilus_book.py"
Streams = dict[Instrument, list[BookDelta]]


def depth_file(recording: Path, instrument: Instrument) -> Path:
    """Return the file of the book changes of `instrument`."""
    return recording / f"depth-updates-{instrument.venue_symbol}.parquet"


def streams_of(recording: Path) -> Streams:
    """Return the snapshot of each instrument and every change after it, in order."""
    streams = {}
    for instrument in INSTRUMENTS:
        columns = read_depth(depth_file(recording, instrument))
        deltas = book_messages(columns, instrument.symbol)
        snapshot = next(delta for delta in deltas if delta.is_snapshot)
        later = [d for d in deltas if not d.is_snapshot and d.last_id > snapshot.last_id]
        streams[instrument] = [snapshot, *sorted(later, key=lambda d: d.last_id)]
    return streams


def num_levels(streams: Streams) -> int:
    """Return the number of levels in all messages."""
    deltas = [delta for stream in streams.values() for delta in stream]
    return sum(len(delta.bids_L2) + len(delta.asks_L2) for delta in deltas)


def seconds_of(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one run, which neither waits nor has a second thread."""
    gc.collect()
    gc.disable()
    begin = time.process_time()
    run()
    taken = time.process_time() - begin
    gc.enable()
    return taken


def lived_in(streams: Streams) -> dict[Instrument, Book]:
    """Return books that have seen every message once: a book is made once and fed for months."""
    books = {instrument: Book(instrument) for instrument in streams}
    replay(books, streams)
    return books


def replay(books: dict[Instrument, Book], streams: Streams) -> None:
    """Apply every message, from the snapshot on."""
    for instrument, stream in streams.items():
        books[instrument].forget()
        apply = books[instrument].apply
        for delta in stream:
            apply(delta)


class Nautilus:
    """NautilusTrader's OrderBook in its own interpreter, a run at a time.

    Attributes:
        version: of the peer, None if it is not there.
    """

    def __init__(self, recording: Path) -> None:
        self.version: str | None = None
        files = [str(depth_file(recording, instrument)) for instrument in INSTRUMENTS]
        command = [str(PEER_PYTHON), str(PEER_SCRIPT), str(INSTRUMENTS[0].tick_size), *files]
        if not PEER_PYTHON.is_file():
            return
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer() or None

    def seconds(self) -> float:
        """Return the seconds of one run over every message."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the peer's process."""
        if self.version is not None:
            self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def updates_row(streams: Streams, recording: Path, runs: int) -> Row:
    """Return level updates a second, whole messages through Book.apply, beside NautilusTrader."""
    peer, levels, books = Nautilus(recording), num_levels(streams), lived_in(streams)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(runs + 1):  # the first warms up
        ours.append(levels / seconds_of(lambda: replay(books, streams)))
        if peer.version is not None:
            theirs.append(levels / peer.seconds())
    peer.close()
    value = statistics.median(ours[1:])
    peer_value = statistics.median(theirs[1:]) if theirs else None
    ratio = value / peer_value if peer_value else None
    return Row(
        name="book_updates",
        value=value,
        unit="1/s",
        peer=f"NautilusTrader {peer.version or 'missing'} OrderBook.apply_deltas",
        peer_value=peer_value,
        ratio=ratio,
        goal=f">= {UPDATES_RATIO:g} x the peer",
        met=ratio is not None and ratio >= UPDATES_RATIO,
        runs=ours[1:],
    )


class DictBook:
    """The peer of the view: sizes by tick in a dict a side, looked through at every view."""

    def __init__(self, instrument: Instrument, snapshot: BookDelta) -> None:
        self._tick = instrument.tick_size
        self._width = round(instrument.bucket_size / self._tick)
        self._sides: tuple[dict[int, float], ...] = ({}, {})
        self.apply(snapshot)
        bids, asks = self._sides
        self._reach = min(bids), max(asks)

    def apply(self, delta: BookDelta) -> None:
        """Set the levels of a message."""
        for sizes, levels_L2 in zip(self._sides, (delta.bids_L2, delta.asks_L2), strict=True):
            for price, size in levels_L2.tolist():
                tick = round(price / self._tick)
                if size:
                    sizes[tick] = size
                else:
                    sizes.pop(tick, None)

    def buckets(self) -> Buckets:
        """Return what Book.buckets returns."""
        width, (bids, asks) = self._width, self._sides
        both = max(bids) + min(asks)
        low, high = -(-both * 99 // 200), both * 101 // 200
        first, count = low // width, high // width - low // width + 1
        sides = []
        for sizes in (bids, asks):
            sums = [0.0] * count
            for tick, size in sizes.items():
                if low <= tick <= high:
                    sums[tick // width - first] += size
            sides.append(np.array(sums))
        edges_K = (first + np.arange(count)) * width
        is_known_K = edges_K >= self._reach[0], edges_K + width - 1 <= self._reach[1]
        bids_K, asks_K = (
            np.where(known_K, sums_K, np.nan)
            for known_K, sums_K in zip(is_known_K, sides, strict=True)
        )
        known_bids_K, known_asks_K = (known_K.astype(np.uint8) for known_K in is_known_K)
        price_K = np.round(edges_K * self._tick, 2)
        return Buckets(price_K, bids_K, asks_K, known_bids_K, known_asks_K)


def scan_us(streams: Streams) -> float:
    """Return what a scan of the dict book takes [us], having compared its views with ours."""
    taken, num_scans = 0.0, 0
    for instrument, (snapshot, *stream) in streams.items():
        book, peer = Book(instrument), DictBook(instrument, snapshot)
        book.apply(snapshot)
        for i, delta in enumerate(stream):
            book.apply(delta)
            peer.apply(delta)
            if i % SCAN_EVERY:
                continue
            begin = time.process_time()
            scanned = peer.buckets()
            taken += time.process_time() - begin
            num_scans += 1
            require_same(book.buckets(), scanned)
    return taken / num_scans * 1e6


def require_same(ours: Buckets | None, scanned: Buckets) -> None:
    """Raise AssertionError unless both views are the same, sums of floats but for rounding."""
    assert ours is not None
    assert np.array_equal(ours.price_K, scanned.price_K)
    assert np.array_equal(ours.known_bids_K, scanned.known_bids_K)
    assert np.array_equal(ours.known_asks_K, scanned.known_asks_K)
    np.testing.assert_allclose(ours.bids_K, scanned.bids_K, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.asks_K, scanned.asks_K, rtol=1e-9, atol=1e-9)


def view_us(books: dict[Instrument, Book], streams: Streams) -> float:
    """Return what a view adds to every event [us]: events with one, less events without."""

    def viewed() -> None:
        for instrument, stream in streams.items():
            books[instrument].forget()
            apply, buckets = books[instrument].apply, books[instrument].buckets
            for delta in stream:
                apply(delta)
                buckets()

    num_events = sum(map(len, streams.values()))
    return (seconds_of(viewed) - seconds_of(lambda: replay(books, streams))) / num_events * 1e6


def view_row(streams: Streams, runs: int) -> Row:
    """Return the cost of the exact view of one percent at every event beside a dict's scan."""
    books = lived_in(streams)
    ours, theirs = [], []
    for _ in range(runs + 1):
        ours.append(view_us(books, streams))
        theirs.append(scan_us(streams))
    value, peer_value = statistics.median(ours[1:]), statistics.median(theirs[1:])
    ratio = peer_value / value
    return Row(
        name="book_view",
        value=value,
        unit="us",
        peer=f"scan of a dict book for the same output, every {SCAN_EVERY}th event",
        peer_value=peer_value,
        ratio=ratio,
        goal=f">= {VIEW_RATIO:g} x the peer and <= {VIEW_US:g} us",
        met=ratio >= VIEW_RATIO and value <= VIEW_US,
        runs=ours[1:],
    )


def wire_of(streams: Streams) -> dict[Instrument, list[bytes]]:
    """Return every change as the JSON text Binance sends."""
    return {
        instrument: [_message(instrument, delta) for delta in stream[1:]]
        for instrument, stream in streams.items()
    }


def _message(instrument: Instrument, delta: BookDelta) -> bytes:
    sides = {
        name: [[f"{price:.8f}", f"{size:.8f}"] for price, size in levels_L2.tolist()]
        for name, levels_L2 in (("b", delta.bids_L2), ("a", delta.asks_L2))
    }
    return orjson.dumps(
        {
            "e": "depthUpdate", "E": delta.ts_ns // 1_000_000, "s": instrument.venue_symbol,
            "U": delta.first_id, "u": delta.last_id, **sides,
        }
    )  # fmt: skip


def levels_of(side: Sequence[Any]) -> Any:
    """Return the levels of one side of a parsed message, float64 (levels, 2)."""
    return np.array(side, np.float64).reshape(-1, 2)


def to_book(books: dict[Instrument, Book], wire: dict[Instrument, list[bytes]]) -> None:
    """Take every message from its text into the book."""
    for instrument, messages in wire.items():
        symbol, apply = instrument.symbol, books[instrument].apply
        for message in messages:
            found = orjson.loads(message)
            ts_ns = found["E"] * 1_000_000
            sides = levels_of(found["b"]), levels_of(found["a"])
            apply(BookDelta(symbol, ts_ns, ts_ns, found["U"], found["u"], False, *sides))


def to_arrays(wire: dict[Instrument, list[bytes]]) -> None:
    """Take every message from its text into arrays, and no further."""
    for messages in wire.values():
        for message in messages:
            found = orjson.loads(message)
            levels_of(found["b"])
            levels_of(found["a"])


def json_row(streams: Streams, runs: int) -> Row:
    """Return level updates a second from the text into the book beside parsing alone."""
    wire = wire_of(streams)
    levels = num_levels({instrument: stream[1:] for instrument, stream in streams.items()})
    books, snapshots = lived_in(streams), {i: stream[:1] for i, stream in streams.items()}
    ours, theirs = [], []
    for _ in range(runs + 1):
        replay(books, snapshots)
        ours.append(levels / seconds_of(partial(to_book, books, wire)))
        assert all(book.last_id == streams[i][-1].last_id for i, book in books.items())
        theirs.append(levels / seconds_of(lambda: to_arrays(wire)))
    value, peer_value = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return Row(
        name="json_to_book",
        value=value,
        unit="1/s",
        peer=f"orjson {orjson.__version__} and float arrays only, no book",
        peer_value=peer_value,
        ratio=value / peer_value,
        goal=f">= {JSON_RATIO:g} x the peer",
        met=value >= JSON_RATIO * peer_value,
        runs=ours[1:],
    )


def book_rows(recording: Path, runs: int) -> list[Row]:
    """Return the three rows of the book, measured on a recording."""
    streams = streams_of(recording)
    gc.collect()
    gc.freeze()  # the recording is never collected, so a collection would only walk it
    return [updates_row(streams, recording, runs), view_row(streams, runs), json_row(streams, runs)]


def main() -> None:
    """Measure and print the rows."""
    options = parser(__doc__ or "")
    options.add_argument("--runs", type=int, default=5, help="counted runs a row")
    options.add_argument("--recording", type=Path, required=True, help="folder with both symbols")
    arguments = options.parse_args()
    rows = book_rows(arguments.recording, arguments.runs)
    show("ingest_book", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
