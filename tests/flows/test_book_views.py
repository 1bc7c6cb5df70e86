"""At every recorded change the book's buckets are what a plain sum over all levels gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from alphapulse.data.book import Book, BookChange
from alphapulse.data.tape import book_messages, read_depth
from alphapulse.domain.market import BookDelta, Floats, Instrument

LOTS = 1e8
EVERY = 200  # events between two looks at all levels, and at the band of 90 percent


@dataclass(frozen=True)
class Recorded:
    """One instrument's changes in a folder of the recordings, and how many of them there are."""

    folder: str
    instrument: Instrument
    num_applied: int

    @property
    def name(self) -> str:
        return f"{self.folder.removesuffix('-2024-08')}-{self.instrument.venue_symbol}"

    def deltas(self, recordings: Path) -> list[BookDelta]:
        file = f"depth-updates-{self.instrument.venue_symbol}.parquet"
        columns = read_depth(recordings.parent / self.folder / file)
        messages = book_messages(columns, self.instrument.symbol)
        return sorted(messages, key=lambda delta: (delta.ts_ns, delta.last_id))


# ticks and buckets as the venue has them; the number of rows is that of book-*.parquet, T4 in
# PROVENANCE.md, where it has one row a change
STREAMS = [
    Recorded("binance-spot-2024-08", Instrument("ETH/USDT", 0.01, 1.0), 6_469),
    Recorded("binance-spot-2024-08", Instrument("BTC/USDT", 0.01, 10.0), 6_493),
    Recorded("binance-usdm-2024-08", Instrument("ETH/USDT:USDT", 0.01, 1.0), 6_581),
    Recorded("binance-usdm-2024-08", Instrument("BTC/USDT:USDT", 0.1, 10.0), 6_548),
    Recorded("binance-coinm-2024-08", Instrument("ETH/USD:ETH", 0.01, 1.0), 39_134),
    Recorded("binance-coinm-2024-08", Instrument("BTC/USD:BTC", 0.1, 10.0), 44_773),
]
each_stream = pytest.mark.parametrize("recorded", STREAMS, ids=lambda recorded: recorded.name)


class Plain:
    """The lots at every tick there is, from zero on: no window, no sums, no best."""

    def __init__(self, instrument: Instrument, deltas: list[BookDelta]) -> None:
        self.tick = instrument.tick_size
        self.width = round(instrument.bucket_size / self.tick)
        highest = max(s[:, 0].max() for d in deltas for s in (d.bids_L2, d.asks_L2) if len(s))
        highest = max(highest, *(2 * d.asks_L2[0, 0] for d in deltas if d.is_snapshot))
        # pages that are never touched are never there: most of it
        self.lots = np.zeros((2, round(highest / self.tick) + 1), np.int64)
        self.total = [0, 0]
        self.reach = (0, 0)

    def set(self, delta: BookDelta) -> None:
        if delta.is_snapshot:
            self.lots[:] = 0
            self.total = [0, 0]
            lowest, highest = delta.bids_L2[:, 0].min(), delta.asks_L2[:, 0].max()
            self.reach = round(lowest / self.tick), round(highest / self.tick)
        for side, levels_L2 in enumerate((delta.bids_L2, delta.asks_L2)):
            ticks_L = np.rint(levels_L2[:, 0] / self.tick).astype(np.int64)
            lots_L = np.rint(levels_L2[:, 1] * LOTS).astype(np.int64)
            self.total[side] += int((lots_L - self.lots[side, ticks_L]).sum())
            self.lots[side, ticks_L] = lots_L

    def buckets(self, bid: int, ask: int, pct: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the ticks where the buckets round the mid begin, and the sizes (2, K)."""
        low = -(-(bid + ask) * (100 - pct) // 200)
        high = (bid + ask) * (100 + pct) // 200
        edges_K = np.arange(low // self.width, high // self.width + 1) * self.width
        starts_K = np.maximum(edges_K - low, 0)
        sums_SK = np.add.reduceat(self.lots[:, low : high + 1], starts_K, axis=1)
        sizes_SK = sums_SK / LOTS
        sizes_SK[0, edges_K < self.reach[0]] = np.nan
        sizes_SK[1, edges_K + self.width - 1 > self.reach[1]] = np.nan
        return edges_K, sizes_SK

    def levels(self) -> tuple[Floats, Floats]:
        """Return all bids and asks, best first."""
        found = []
        for side, step in ((0, -1), (1, 1)):
            ticks_L = np.flatnonzero(self.lots[side])[::step]
            sizes_L = self.lots[side, ticks_L] / LOTS
            found.append(np.column_stack((np.round(ticks_L * self.tick, 2), sizes_L)))
        return found[0], found[1]


def followed(recorded: Recorded, recordings: Path) -> Iterator[tuple[Book, Plain]]:
    """Yield book and plain levels after every message that changed them."""
    deltas = recorded.deltas(recordings)
    book, plain = Book(recorded.instrument), Plain(recorded.instrument, deltas)
    waiting: list[BookDelta] = []
    for delta in deltas:
        change = book.apply(delta)
        if change is BookChange.BUFFERED:
            waiting.append(delta)
            continue
        assert change in (BookChange.APPLIED, BookChange.STALE)
        if change is BookChange.APPLIED:
            plain.set(delta)
            for early in waiting if delta.is_snapshot else ():
                if early.last_id > delta.last_id:
                    plain.set(early)
            yield book, plain
    assert book.num_gaps == book.num_crossed == 0


def require_equal(book: Book, plain: Plain, pct: int) -> None:
    """Fail unless the buckets of the book are those of the plain levels."""
    touch, found = book.touch(), book.buckets(pct)
    assert touch is not None
    assert found is not None
    bid, ask = round(touch[0] / plain.tick), round(touch[2] / plain.tick)
    edges_K, sizes_SK = plain.buckets(bid, ask, pct)
    assert np.array_equal(np.rint(found.price_K / plain.tick), edges_K)
    assert np.array_equal(found.bids_K, sizes_SK[0], equal_nan=True)
    assert np.array_equal(found.asks_K, sizes_SK[1], equal_nan=True)
    assert np.array_equal(found.known_bids_K, ~np.isnan(sizes_SK[0]))
    assert np.array_equal(found.known_asks_K, ~np.isnan(sizes_SK[1]))


@each_stream
def test_buckets_equal_a_plain_sum_at_every_recorded_change(
    recordings: Path, recorded: Recorded
) -> None:
    num_applied = 0
    for book, plain in followed(recorded, recordings):
        require_equal(book, plain, 1)
        num_applied += 1

    assert num_applied == recorded.num_applied


@each_stream
def test_no_lots_are_lost_or_made_near_or_far(recordings: Path, recorded: Recorded) -> None:
    num_far = 0
    for i, (book, plain) in enumerate(followed(recorded, recordings), start=1):
        if i % EVERY and i != recorded.num_applied:
            continue
        for levels_L2, expected_L2, total in zip(
            book.levels(len(plain.lots[0])), plain.levels(), plain.total, strict=True
        ):
            assert np.array_equal(levels_L2, expected_L2)
            assert int(np.rint(levels_L2[:, 1] * LOTS).astype(np.int64).sum()) == total
            num_far += int((np.abs(levels_L2[:, 0] / levels_L2[0, 0] - 1) > 0.2).sum())
        require_equal(book, plain, 90)

    assert num_far > 0  # or nothing was shown of the levels outside the window


@each_stream
def test_touch_equals_the_recorded_best_levels(recordings: Path, recorded: Recorded) -> None:
    file = f"book-{recorded.instrument.venue_symbol}.parquet"
    names = [f"{side}_{what}_0" for side in ("bid", "ask") for what in ("px", "sz")]
    rows = pd.read_parquet(
        recordings.parent / recorded.folder / file, columns=["update_id", *names]
    )
    expected = dict(zip(rows.update_id, map(tuple, rows[names].to_numpy().tolist()), strict=True))
    num_equal = 0
    for book, _ in followed(recorded, recordings):
        if book.last_id in expected:
            num_equal += book.touch() == expected.pop(book.last_id)

    assert expected == {}
    assert num_equal == rows.update_id.nunique()
