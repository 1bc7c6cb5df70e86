"""The book follows the recorded stream level by level and never passes off the unknown as empty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse.data.book import Book, BookChange
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.market import SECOND_NS, BookDelta, Instrument, MarketEvent
from alphapulse.features.rows import BOOK_COLUMN, BOOK_COLUMNS, NUM_BINS

ETH = Instrument("ETH/USDT", tick_size=0.01, bucket_size=1.0)
BTC = Instrument("BTC/USDT", tick_size=0.01, bucket_size=10.0)
X = Instrument("X", tick_size=0.5, bucket_size=2.0)


async def collect(events: AsyncIterator[MarketEvent]) -> list[MarketEvent]:
    return [event async for event in events]


@pytest.fixture(scope="module")
def deltas(recordings: Path) -> dict[str, list[BookDelta]]:
    events = asyncio.run(collect(Tape(recordings, (ETH, BTC)).events()))
    books: dict[str, list[BookDelta]] = {ETH.symbol: [], BTC.symbol: []}
    for event in events:
        if isinstance(event, BookDelta):
            books[event.symbol].append(event)
    return books


@pytest.mark.parametrize("instrument", [ETH, BTC], ids=["ETH", "BTC"])
def test_fifty_levels_equal_the_recorded_book_at_every_second(
    recordings: Path, deltas: dict[str, list[BookDelta]], instrument: Instrument
) -> None:
    recorded = pd.read_parquet(recordings / f"book-1s-{instrument.venue_symbol}.parquet")
    columns = [
        recorded[[f"{side}_{what}_{i}" for i in range(50)]].to_numpy()
        for side in ("bid", "ask")
        for what in ("px", "sz")
    ]
    book, num_equal = Book(instrument), 0
    stream = iter(deltas[instrument.symbol])
    delta = next(stream)

    for i, ts in enumerate(recorded["ts"].astype("int64")):
        while delta.ts_ns < ts:
            assert book.apply(delta) in (BookChange.APPLIED, BookChange.BUFFERED, BookChange.STALE)
            delta = next(stream)
        bids, asks = book.levels(50)
        row = book.second_row(ts)
        found = (bids[:, 0], bids[:, 1], asks[:, 0], asks[:, 1])
        num_equal += all((a == b[i]).all() for a, b in zip(found, columns, strict=True))
        assert row[BOOK_COLUMN["mid"]] == (columns[0][i, 0] + columns[2][i, 0]) / 2

    assert (num_equal, book.num_gaps, book.num_crossed) == (len(recorded), 0, 0)


def test_costs_at_most_ten_times_a_plain_dict(deltas: dict[str, list[BookDelta]]) -> None:
    stream = deltas[ETH.symbol]  # a plain dict takes 10.5 M level updates a second on our machine
    levels = [
        (np.rint(side[:, 0] * 100).astype(int).tolist(), side[:, 1].tolist())
        for delta in stream
        for side in (delta.bids_L2, delta.asks_L2)
    ]
    seconds: dict[str, list[float]] = {"book": [], "dict": []}
    for _ in range(3):
        book, plain = Book(ETH), dict[int, float]()
        start = time.process_time()
        for delta in stream:
            book.apply(delta)
        middle = time.process_time()
        for ticks, sizes in levels:
            for tick, size in zip(ticks, sizes, strict=True):
                plain[tick] = size
        seconds["book"].append(middle - start)
        seconds["dict"].append(time.process_time() - middle)

    assert min(seconds["book"]) < 10 * min(seconds["dict"])


@pytest.mark.parametrize("instrument", [ETH, BTC], ids=["ETH", "BTC"])
def test_bins_beyond_the_snapshots_reach_are_unknown(
    deltas: dict[str, list[BookDelta]], instrument: Instrument
) -> None:
    book = Book(instrument)
    stream = [delta for delta in deltas[instrument.symbol] if delta.is_snapshot]
    book.apply(stream[0])

    row = book.second_row(stream[0].ts_ns + SECOND_NS)
    bids, asks = row[:NUM_BINS], row[NUM_BINS : 2 * NUM_BINS]

    reach = 1 - stream[0].bids_L2[:, 0].min() / row[BOOK_COLUMN["mid"]]
    assert np.isnan(bids).tolist() == [(i + 1) * 5e-4 > reach for i in range(NUM_BINS)]
    assert row[BOOK_COLUMN["depth"]] >= np.nansum(bids) + np.nansum(asks)
    assert np.isnan(row[[BOOK_COLUMN[n] for n in ("ofi", "bought", "num_updates")]]).all()


def delta(first: int, last: int, bids: list, asks: list, *, is_snapshot: bool = False) -> BookDelta:
    levels = [np.array(side, float).reshape(-1, 2) for side in (bids, asks)]
    return BookDelta("X", last, last, first, last, is_snapshot, *levels)


def snapshot(last: int = 10) -> BookDelta:
    return delta(last, last, [(99, 1), (98, 2)], [(100, 3), (101, 4)], is_snapshot=True)


def test_changes_before_the_snapshot_wait_and_those_it_holds_are_dropped() -> None:
    book = Book(X)
    early = [delta(5, 8, [(99, 7)], []), delta(9, 12, [(99, 5)], []), delta(13, 14, [], [(100, 0)])]

    changes = [book.apply(d) for d in (*early, snapshot(), delta(11, 13, [(99, 9)], []))]

    assert changes == [BookChange.BUFFERED] * 3 + [BookChange.APPLIED, BookChange.STALE]
    assert book.touch() == (99.0, 5.0, 101.0, 4.0)


def test_missing_number_makes_the_book_unknown_until_the_next_snapshot() -> None:
    book = Book(X)
    book.apply(snapshot())

    change = book.apply(delta(12, 13, [(99.5, 1)], []))
    unknown = (book.touch(), book.buckets(), book.second_row(SECOND_NS)[: len(BOOK_COLUMNS) - 3])
    book.apply(snapshot(13))

    assert (change, book.num_gaps) == (BookChange.GAP, 1)
    assert unknown[:2] == (None, None)
    assert np.isnan(unknown[2]).all()
    assert book.touch() == (99.0, 1.0, 100.0, 3.0)


def test_crossed_book_is_unknown() -> None:
    book = Book(X)
    book.apply(snapshot())

    change = book.apply(delta(11, 11, [(100, 1)], []))

    assert (change, book.is_known, book.num_crossed) == (BookChange.CROSSED, False, 1)


def test_price_off_the_tick_is_refused() -> None:
    book = Book(X)
    book.apply(snapshot())

    with pytest.raises(InvalidEvent, match="whole ticks"):
        book.apply(delta(11, 11, [(99.3, 1)], []))


def test_row_of_a_second_refuses_messages_from_after_it() -> None:
    book = Book(X)
    book.apply(snapshot(2 * SECOND_NS))

    with pytest.raises(InvalidEvent, match="expected messages before"):
        book.second_row(SECOND_NS)


def test_flow_and_trades_describe_the_second_just_ended() -> None:
    book = Book(X)
    book.apply(snapshot())
    book.second_row(SECOND_NS)
    book.note_trade(99.5, 0.5, is_buy=True)
    book.note_trade(99.0, 0.25, is_buy=False)
    book.apply(delta(11, 11, [(99, 4)], []))  # best bid grows by 3
    book.apply(delta(12, 12, [], [(99.5, 2)]))  # a new best ask of 2 presses

    row = book.second_row(2 * SECOND_NS)

    names = ("mid", "ofi", "bought", "sold", "num_trades", "num_updates")
    assert [row[BOOK_COLUMN[n]] for n in names] == [99.25, 1.0, 0.5, 0.25, 2, 2]
    assert row[BOOK_COLUMN["imbalance"]] == pytest.approx((4 - 2) / 6)
    assert row[BOOK_COLUMN["spread_bps"]] == pytest.approx(0.5 / 99.25 * 1e4)


level = st.tuples(st.integers(1, 60), st.integers(0, 50))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(level, st.booleans()), max_size=40), st.sampled_from([0.5, 1.0, 5.0]))
def test_buckets_equal_a_brute_force_aggregation(
    changes: list[tuple[tuple[int, int], bool]], pct: float
) -> None:
    levels = {True: {2000: 1.0, 1980: 2.0}, False: {2001: 1.5, 2030: 2.5}}
    book = Book(X)
    sides = [[(t * 0.5, s) for t, s in levels[is_bid].items()] for is_bid in (True, False)]
    book.apply(delta(1, 1, *sides, is_snapshot=True))
    for i, ((distance, size), is_bid) in enumerate(changes):
        tick = 2000 - distance if is_bid else 2001 + distance
        changed = [(tick * 0.5, size)]
        book.apply(delta(i + 2, i + 2, *((changed, []) if is_bid else ([], changed))))
        levels[is_bid][tick] = float(size)

    found = book.buckets(pct)

    assert found is not None
    mid = 2000.5  # the touch is never changed
    low, high = mid * (1 - pct / 100), mid * (1 + pct / 100)
    lowest = int(-(-low // 1)) // 4  # a bucket is 4 ticks
    assert found.price_K.tolist() == [k * 2.0 for k in range(lowest, int(high) // 4 + 1)]
    sums = ((found.bids_K, found.known_bids_K, True), (found.asks_K, found.known_asks_K, False))
    for sizes_K, known_K, is_bid in sums:
        for price, size, known in zip(found.price_K, sizes_K, known_K, strict=True):
            ticks = range(round(price * 2), round(price * 2) + 4)
            inside = [levels[is_bid].get(t, 0.0) for t in ticks if low <= t <= high]
            assert known == (ticks[0] >= 1980 if is_bid else ticks[-1] <= 2030)
            assert np.isnan(size) if not known else size == pytest.approx(sum(inside))
