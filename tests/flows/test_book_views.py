"""At every recorded change the book's buckets are what a plain sum over all levels gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from alphapulse.data.book import Book, BookChange
from alphapulse.data.tape import book_messages, read_depth
from alphapulse.domain.market import SECOND_NS, BookDelta, Floats, Instrument

LOTS = 1e8
EVERY = 400  # events between two looks at all levels, and at the band of 90 percent


Sums = tuple[int, int, npt.NDArray[np.int64]]  # the mid's bucket, the first one's, lots (2, K)
Trades = list[tuple[float, float, bool]]  # price, size, whether the aggressor bought


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

    def trades(self, recordings: Path) -> dict[int, Trades]:
        """Return the trades by second."""
        file = f"trades-{self.instrument.venue_symbol}.parquet"
        rows = pd.read_parquet(recordings.parent / self.folder / file)
        found: dict[int, Trades] = {}
        columns = (rows.ts.astype("int64"), rows.price, rows["size"], rows.side == "buy")
        for ts_ns, price, size, is_buy in zip(*columns, strict=True):
            found.setdefault(ts_ns // SECOND_NS, []).append((price, size, is_buy))
        return found


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
        self.waiting: list[BookDelta] = []

    def follow(self, book: Book, delta: BookDelta) -> bool:
        """Give the book a message and take over what it takes; return whether it has a book."""
        change = book.apply(delta)
        if change is BookChange.BUFFERED:
            self.waiting.append(delta)
            return False
        assert change in (BookChange.APPLIED, BookChange.STALE)
        if change is BookChange.APPLIED:
            self.set(delta)
            for early in self.waiting if delta.is_snapshot else ():
                if early.last_id > delta.last_id:
                    self.set(early)
        return True

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

    def sums(self, book: Book) -> Sums | None:
        """Return the lots of whole buckets within three percent of the mid."""
        touch = book.touch()
        if touch is None:
            return None
        middle = round((touch[0] + touch[2]) / self.tick) // (2 * self.width)
        first, count = middle - middle * 3 // 100, 2 * (middle * 3 // 100) + 1
        lots = self.lots[:, first * self.width : (first + count) * self.width]
        return middle, first, lots.reshape(2, count, self.width).sum(axis=2)

    def second(self, now: Sums, before: Sums, trades: Trades) -> Callable[[int], list[float]]:
        """Return what gives the row of BUCKET_COLUMNS of a bucket."""
        middle, first, lots_SK = now
        bought, sold = Counter[int](), Counter[int]()
        for price, size, is_buy in trades:
            bucket = round(price / self.tick) // self.width
            (bought if is_buy else sold)[bucket] += round(size * LOTS)

        def is_known(side: int, bucket: int) -> bool:
            low, high = bucket * self.width, (bucket + 1) * self.width - 1
            return high <= self.reach[1] if side else low >= self.reach[0]

        def row(bucket: int) -> list[float]:
            (bids, asks), (bids0, asks0) = (
                lots_SK[:, bucket - first],
                before[2][:, bucket - before[1]],
            )
            distance = abs(bucket - middle)
            around = lots_SK[:, middle - distance - first : middle + distance + 1 - first].sum(
                axis=1
            )
            is_even = is_known(0, middle - distance) and is_known(1, middle + distance)
            has_both = is_known(0, bucket) and is_known(1, bucket)
            return [
                bids / LOTS if is_known(0, bucket) else np.nan,
                asks / LOTS if is_known(1, bucket) else np.nan,
                bought[bucket] / LOTS,
                sold[bucket] / LOTS,
                (around[0] - around[1]) / around.sum() if is_even and around.any() else np.nan,
                (bids - bids0 - asks + asks0) / LOTS if has_both else np.nan,
            ]

        return row

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
    for delta in deltas:
        if plain.follow(book, delta):
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


@each_stream
def test_seconds_by_bucket_are_what_rested_was_added_and_was_traded(
    recordings: Path, recorded: Recorded
) -> None:
    deltas, trades = recorded.deltas(recordings), recorded.trades(recordings)
    book, plain = Book(recorded.instrument), Plain(recorded.instrument, deltas)
    before: Sums | None = None
    num_seconds = num_traded = 0
    for second, messages in groupby(deltas, key=lambda delta: delta.ts_ns // SECOND_NS):
        for delta in messages:
            plain.follow(book, delta)
        for price, size, is_buy in trades.get(second, []):
            book.note_trade(price, size, is_buy=is_buy)
        found = book.bucket_second((second + 1) * SECOND_NS)
        book.second_row((second + 1) * SECOND_NS)
        now = plain.sums(book)
        if found is not None and now is not None and before is not None:
            row = plain.second(now, before, trades.get(second, []))
            first = round(found.price_K[0] / recorded.instrument.bucket_size)
            expected_KC = np.array([row(first + k) for k in range(len(found.price_K))])
            np.testing.assert_allclose(found.rows_KC, expected_KC, rtol=1e-15)
            num_seconds += 1
            num_traded += int((found.rows_KC[:, 2:4] > 0).sum())
        before = now

    assert num_seconds > 300
    assert num_traded > 300
