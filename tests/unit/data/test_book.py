"""The book follows the recorded stream level by level and never passes off the unknown as empty."""

from __future__ import annotations

import asyncio
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
from alphapulse.domain.windows import BookSnapshot
from alphapulse.features.rows import BOOK_COLUMN, BOOK_COLUMNS, BUCKET_COLUMN, NUM_BINS

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


@pytest.mark.parametrize("instrument", [ETH, BTC], ids=["ETH", "BTC"])
def test_bins_of_a_second_equal_a_plain_sum_of_levels(
    deltas: dict[str, list[BookDelta]], instrument: Instrument
) -> None:
    book, num_known = Book(instrument), 0
    for i, delta in enumerate(deltas[instrument.symbol]):
        book.apply(delta)
        if i % 200 or not book.is_known:
            continue
        row = book.second_row(delta.ts_ns + 1)
        mid = row[BOOK_COLUMN["mid"]]
        for name, levels_L2 in zip(("bid", "ask"), book.levels(100_000), strict=True):
            distance_L = np.abs(levels_L2[:, 0] / mid - 1)
            inside_L = distance_L < NUM_BINS * 5e-4
            sums = np.bincount(
                (distance_L[inside_L] / 5e-4).astype(int), levels_L2[inside_L, 1], NUM_BINS
            )
            found = row[[BOOK_COLUMN[f"{name}_{j:02d}"] for j in range(NUM_BINS)]]
            known = ~np.isnan(found)
            assert found[known] == pytest.approx(sums[known], rel=1e-12)
            num_known += known.sum()

    assert num_known > 400


@pytest.mark.parametrize("instrument", [ETH, BTC], ids=["ETH", "BTC"])
def test_bins_beyond_the_snapshots_reach_are_unknown(
    deltas: dict[str, list[BookDelta]], instrument: Instrument
) -> None:
    book = Book(instrument)
    stream = [delta for delta in deltas[instrument.symbol] if delta.is_snapshot]
    book.apply(stream[0])

    row = book.second_row(stream[0].ts_ns + SECOND_NS)
    bids = row[:NUM_BINS]

    reach = 1 - stream[0].bids_L2[:, 0].min() / row[BOOK_COLUMN["mid"]]
    assert np.isnan(bids).tolist() == [(i + 1) * 5e-4 > reach for i in range(NUM_BINS)]
    assert np.isnan(row[[BOOK_COLUMN[n] for n in ("ofi", "bought", "num_updates")]]).all()


def delta(
    first: int,
    last: int,
    bids: list,
    asks: list,
    *,
    is_snapshot: bool = False,
    prev: int | None = None,
) -> BookDelta:
    levels = [np.array(side, float).reshape(-1, 2) for side in (bids, asks)]
    return BookDelta("X", last, last, first, last, is_snapshot, *levels, prev)


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


def test_futures_changes_follow_the_one_they_name() -> None:
    book = Book(X)
    book.apply(snapshot(10))

    changes = [
        book.apply(delta(3, 9, [(99, 7)], [], prev=2)),  # all in the snapshot
        book.apply(delta(9, 14, [(99, 5)], [], prev=8)),  # the snapshot lies inside it
        book.apply(delta(20, 25, [(99, 6)], [], prev=14)),  # numbers leave gaps
        book.apply(delta(26, 30, [(99, 8)], [], prev=26)),  # the one before is missing
    ]

    assert changes == [BookChange.STALE, BookChange.APPLIED, BookChange.APPLIED, BookChange.GAP]
    assert (book.num_gaps, book.last_id, book.touch()) == (1, 25, None)


def test_only_the_first_futures_change_after_a_snapshot_may_hold_its_number() -> None:
    book = Book(X)
    book.apply(snapshot(10))
    book.apply(delta(9, 14, [(99, 5)], [], prev=8))

    assert book.apply(delta(13, 20, [(99, 6)], [], prev=12)) is BookChange.GAP


def test_futures_changes_that_waited_are_taken_from_the_one_that_holds_the_snapshot() -> None:
    book = Book(X)
    for change in (
        delta(1, 4, [(99, 7)], [], prev=0),
        delta(8, 12, [(99, 5)], [], prev=4),
        delta(15, 16, [], [(100, 0)], prev=12),
    ):
        book.apply(change)

    book.apply(snapshot(10))

    assert (book.last_id, book.touch()) == (16, (99.0, 5.0, 101.0, 4.0))


def test_crossed_book_is_unknown() -> None:
    book = Book(X)
    book.apply(snapshot())

    change = book.apply(delta(11, 11, [(100, 1)], []))

    assert (change, book.is_known, book.num_crossed) == (BookChange.CROSSED, False, 1)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ((99.3, 1), "whole ticks of 0.5, was 99.3"),
        ((np.nan, 1), "whole ticks of 0.5, was nan"),
        ((-99, 1), "whole ticks of 0.5, was -99.0"),
        ((np.inf, 0), "whole ticks of 0.5, was inf"),
        ((99, -1), "whole lots of 1e-08 up to 90071993, was -1.0"),
        ((99, np.nan), "whole lots of 1e-08 up to 90071993, was nan"),
        ((99, np.inf), "whole lots of 1e-08 up to 90071993, was inf"),
        ((99, 0.5e-8), "whole lots of 1e-08 up to 90071993, was 5e-09"),
        ((99, 1e9), "whole lots of 1e-08 up to 90071993, was 1000000000.0"),
    ],
)
@pytest.mark.parametrize("is_snapshot", [False, True], ids=["change", "snapshot"])
def test_level_that_cannot_be_is_refused_and_changes_nothing(
    level: tuple[float, float], expected: str, is_snapshot: bool
) -> None:
    book = Book(X)
    book.apply(snapshot())
    bad = delta(11, 11, [(98, 7), level], [(102, 1)], is_snapshot=is_snapshot)

    with pytest.raises(InvalidEvent, match=expected):
        book.apply(bad)

    assert [side.tolist() for side in book.levels(9)] == [[[99, 1], [98, 2]], [[100, 3], [101, 4]]]
    assert (book.is_known, book.last_id) == (True, 10)


@pytest.mark.parametrize("asks", [[], [(100, 0)]], ids=["none", "of size 0"])
def test_snapshot_without_a_side_is_refused(asks: list[tuple[float, float]]) -> None:
    book = Book(X)

    with pytest.raises(InvalidEvent, match="expected a snapshot with levels on both sides"):
        book.apply(delta(10, 10, [(99, 1)], asks, is_snapshot=True))

    assert not book.is_known


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


def seconds_of(book: Book) -> BookSnapshot:
    """Return two seconds of changes and trades, the second one by bucket."""
    bids, asks = [(99, 1), (98, 2), (96, 1)], [(100, 3), (101, 4), (102, 5)]
    book.apply(delta(10, 10, bids, asks, is_snapshot=True))
    book.second_row(SECOND_NS)
    book.note_trade(99.5, 0.5, is_buy=True)
    book.note_trade(98.0, 0.25, is_buy=False)
    book.note_trade(98.5, 0.5, is_buy=False)
    book.apply(delta(11, 11, [(99, 4), (98, 0.5)], [(100.5, 2)]))
    book.apply(delta(12, 12, [(99, 3)], [(101, 1)]))
    found = book.bucket_second(2 * SECOND_NS)
    assert found is not None
    return found


def test_second_by_bucket_says_what_rests_what_was_traded_and_what_was_added() -> None:
    found = seconds_of(Book(X))

    assert (found.symbol, found.second_ns) == ("X", 2 * SECOND_NS)
    assert found.price_K.tolist() == [98, 100]  # the mid is 99.5, a bucket is 2 wide
    columns = {name: found.rows_KC[:, c].tolist() for name, c in BUCKET_COLUMN.items()}
    assert columns["bids"] == [3.5, 0]
    assert columns["asks"] == [0, 6]
    assert columns["bought"] == [0.5, 0]
    assert columns["sold"] == [0.75, 0]
    assert columns["ofi"] == [3 + 0.5 - 1 - 2, -(3 + 2 + 1 - 3 - 4)]
    # the mid's bucket alone, then with those beside it
    assert columns["imbalance"] == [1, (4.5 - 6) / (4.5 + 6)]
    assert found.known_KC.all()


def test_second_by_bucket_is_unknown_beyond_the_snapshots_reach() -> None:
    book = Book(X)
    sides = [(1000, 1), (992, 2)], [(1000.5, 3), (1012, 4)]
    book.apply(delta(1, 1, *sides, is_snapshot=True))
    book.second_row(SECOND_NS)
    book.apply(delta(2, 2, [(990.5, 5)], []))

    found = book.bucket_second(2 * SECOND_NS)

    assert found is not None
    assert found.price_K.tolist() == [990 + 2 * k for k in range(11)]  # 990.2 to 1010.2
    known = {name: found.known_KC[:, c].tolist() for name, c in BUCKET_COLUMN.items()}
    assert known["bids"] == [0] + [1] * 10
    assert known["asks"] == known["bought"] == known["sold"] == [1] * 11
    assert known["ofi"] == [0] + [1] * 10
    assert known["imbalance"] == [0] + [1] * 9 + [0]  # 1010 mirrors 990
    assert np.array_equal(np.isnan(found.rows_KC), found.known_KC == 0)


def test_flow_and_trades_of_a_second_not_seen_whole_are_unknown_by_bucket() -> None:
    book = Book(X)
    book.apply(snapshot())
    first = book.bucket_second(SECOND_NS)
    book.second_row(SECOND_NS)
    book.apply(delta(13, 13, [(99, 4)], []))  # one is missing
    missed = book.bucket_second(2 * SECOND_NS)
    book.apply(snapshot(13))
    again = book.bucket_second(2 * SECOND_NS)

    assert missed is None
    columns = [BUCKET_COLUMN[name] for name in ("bought", "sold", "ofi")]
    assert first is not None
    assert not first.known_KC[:, columns].any()
    assert again is not None
    assert again.known_KC[:, columns].tolist() == [[1, 1, 0]] * 2  # no trade was missed


def test_second_by_bucket_is_refused_once_its_row_was_taken() -> None:
    book = Book(X)
    book.apply(snapshot())
    book.second_row(SECOND_NS)

    with pytest.raises(InvalidEvent, match="take the buckets of a second before its row"):
        book.bucket_second(SECOND_NS)


def test_flow_is_unknown_while_a_side_was_empty() -> None:
    book = Book(X)
    book.apply(snapshot())
    book.second_row(SECOND_NS)
    book.apply(delta(11, 11, [(99, 0), (98, 0)], []))
    empty = (book.touch(), book.buckets(), book.bucket_second(2 * SECOND_NS))
    book.apply(delta(12, 12, [(99, 2)], []))

    row = book.second_row(2 * SECOND_NS)

    assert empty == (None, None, None)
    assert np.isnan(row[BOOK_COLUMN["ofi"]])
    assert row[BOOK_COLUMN["mid"]] == 99.5


def test_flow_goes_on_over_a_snapshot_that_finds_the_book_known() -> None:
    book = Book(X)
    book.apply(snapshot())
    book.second_row(SECOND_NS)
    book.apply(delta(12, 12, [(99, 6)], [(100, 1)], is_snapshot=True))

    assert book.second_row(2 * SECOND_NS)[BOOK_COLUMN["ofi"]] == (6 - 1) - (1 - 3)


NEAR = {"bids": [(9_999.5, 1), (9_995, 3), (9_000, 1)], "asks": [(10_000.5, 3), (11_000, 1)]}


def level_flow(*changes: BookDelta, bids: list | None = None) -> float:
    """Return `ofi_levels` of a second that begins with NEAR and sees `changes`."""
    book = Book(X)
    book.apply(delta(1, 1, bids or NEAR["bids"], NEAR["asks"], is_snapshot=True))
    book.second_row(SECOND_NS)
    for change in changes:
        book.apply(change)
    return book.second_row(2 * SECOND_NS)[BOOK_COLUMN["ofi_levels"]]


def test_flow_of_levels_is_what_the_bids_gained_less_what_the_asks_gained_near_the_mid() -> None:
    first = delta(2, 2, [(9_999.5, 4), (9_995, 0), (9_980, 9)], [(10_000.5, 8), (10_009, 1)])
    second = delta(3, 3, [], [(10_000.5, 5)])

    flow = level_flow(first, second)

    assert flow == (4 - 1) - 3 - (5 - 3) - 1  # 9,980 is 20 bps away


def test_flow_of_levels_counts_both_moments_round_the_mid_of_the_end() -> None:
    up = delta(2, 2, [(10_019.5, 1)], [(10_000.5, 0), (10_020.5, 2)])

    assert level_flow(up) == 1 - 2  # what rested then is all out of the band by now


def test_flow_of_levels_counts_the_edges_of_its_band() -> None:
    edges = delta(2, 2, [(9_990, 1), (9_989.5, 10)], [(10_010, 4), (10_010.5, 10)])

    assert level_flow(edges) == 1 - 4


def test_flow_of_levels_survives_a_side_that_was_empty_in_between() -> None:
    emptied = delta(2, 2, [(9_999.5, 0), (9_995, 0), (9_000, 0)], [])
    refilled = delta(3, 3, [(9_999.5, 5)], [])

    assert level_flow(emptied, refilled) == 5 - 1 - 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([delta(2, 2, [(9_999.5, 0), (9_995, 0), (9_000, 0)], [])], id="no bids now"),
        pytest.param([delta(3, 3, [(9_999.5, 5)], [])], id="a gap"),
        pytest.param(
            [delta(3, 3, [(9_999.5, 5)], []), delta(3, 3, **NEAR, is_snapshot=True)],
            id="a gap and a snapshot",
        ),
        pytest.param(
            [delta(3, 3, [(9_999.5, 5), (9_995, 1)], NEAR["asks"], is_snapshot=True)],
            id="a snapshot that reaches less far",
        ),
        pytest.param(
            [delta(2, 2, [(10_099.5, 1)], [(10_000.5, 0), (10_100.5, 2)])],
            id="a mid that moved by 1 %",
        ),
    ],
)
def test_flow_of_levels_is_unknown_where_a_level_was_or_is(changes: list[BookDelta]) -> None:
    assert np.isnan(level_flow(*changes))


def test_flow_of_levels_is_unknown_where_the_second_began_without_a_wide_snapshot() -> None:
    wide = delta(3, 3, **NEAR, is_snapshot=True)

    assert np.isnan(level_flow(wide, bids=NEAR["bids"][:2]))
    assert level_flow(wide) == 0


class PlainBook:
    """Sizes by tick, as a dict a side."""

    def __init__(self) -> None:
        self.sides: tuple[dict[int, float], ...] = ({}, {})

    def apply(self, side: int, tick: int, size: float) -> None:
        self.sides[side].pop(tick, None)
        if size:
            self.sides[side][tick] = size

    def require_same(self, book: Book) -> None:
        found = [levels_L2.tolist() for levels_L2 in book.levels(100_000)]
        bids, asks = self.sides
        assert found[0] == [[t * 0.5, bids[t]] for t in sorted(bids, reverse=True)]
        assert found[1] == [[t * 0.5, asks[t]] for t in sorted(asks)]


def test_levels_stay_while_the_price_leaves_the_window() -> None:
    book, plain = Book(X), PlainBook()
    book.apply(delta(1, 1, [(1000, 1), (500, 2)], [(1001, 3), (2000, 4)], is_snapshot=True))
    for side, tick, size in ((0, 2000, 1), (0, 1000, 2), (1, 2002, 3), (1, 4000, 4)):
        plain.apply(side, tick, size)
    number = 1
    for mid in [*range(2000, 3600, 37), *range(3600, 600, -53)]:  # ticks, far out of the window
        # the side that the price runs into goes first
        gone = [(s, t) for s in (0, 1) for t in plain.sides[s] if (t >= mid) is (s == 0)]
        news = [(0, mid - 1, 1.5), (1, mid + 1, 2.5), *((s, t, 0.0) for s, t in gone)]
        number += 1
        sides = [[(t * 0.5, size) for s, t, size in news if s == side] for side in (0, 1)]
        assert book.apply(delta(number, number, *sides)) is BookChange.APPLIED
        for side, tick, size in news:
            plain.apply(side, tick, size)
        plain.require_same(book)
        touch = book.touch()
        assert touch is not None
        assert (touch[0], touch[2]) == ((mid - 1) * 0.5, (mid + 1) * 0.5)
    found = book.buckets()
    assert found is not None
    assert (found.price_K[0], found.price_K[-1]) == (312, 318)  # far below the snapshot's reach
    assert (found.known_bids_K.any(), found.known_asks_K.all()) == (False, True)


def test_best_level_may_lie_outside_the_window() -> None:
    book = Book(X)
    book.apply(delta(1, 1, [(1000, 1), (500, 2)], [(1001, 3), (2000, 4)], is_snapshot=True))

    book.apply(delta(2, 2, [(1000, 0)], [(1001, 0)]))

    assert book.touch() == (500.0, 2.0, 2000.0, 4.0)


def test_far_levels_are_kept_however_many_there_are() -> None:
    book, plain = Book(X), PlainBook()
    levels = [[(t, 1.0) for t in range(1, 9_000)], [(t, 2.0) for t in range(10_001, 10_009)]]
    more = [[], [(t, 3.0) for t in range(14_000, 25_000)]]
    for side in (0, 1):
        for tick, size in levels[side] + more[side]:
            plain.apply(side, tick, size)
    sides = [[(t * 0.5, size) for t, size in side] for side in levels]

    book.apply(delta(1, 1, *sides, is_snapshot=True))
    book.apply(delta(2, 2, [], [(t * 0.5, size) for t, size in more[1]]))

    plain.require_same(book)
    found = book.buckets(100.0)
    assert found is not None
    assert np.nansum(found.bids_K) == 8_999 - 3  # the bucket from 0 on is not wholly in reach
    assert found.known_asks_K[-1] == 0  # beyond the snapshot's reach


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
