"""The cache gives out windows that never change, and refuses what is late or cannot be."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.book import Book
from alphapulse.data.cache import MarketCache
from alphapulse.data.rows import TRADES, Columns, Rows
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.inputs import Tensor
from alphapulse.domain.market import (
    SECOND_NS,
    BarFlag,
    BookDelta,
    FeedGap,
    Flags,
    Floats,
    MarketEvent,
    Timeframe,
    Trade,
    Trades,
)
from alphapulse.domain.windows import BookSnapshot, CacheView, MarketWindow, Shown
from alphapulse.features.rows import BUCKET_COLUMN

INSTRUMENTS = Market().instruments
ETH, BTC = (instrument.symbol for instrument in INSTRUMENTS)
FIRST_NS = 1_723_161_257 * SECOND_NS  # 2024-08-08 23:54:17, the first decision instant
T0 = 1_723_161_600 * SECOND_NS  # 2024-08-09 00:00 UTC


async def _read(tape: Tape) -> tuple[MarketCache, AsyncIterator[MarketEvent]]:
    cache = MarketCache(INSTRUMENTS, Feed())
    for timeframe in Timeframe:
        for instrument in INSTRUMENTS:
            cache.seed(await tape.history(instrument, timeframe, None))
    return cache, tape.events()


async def _replay(tape: Tape, until_ns: int) -> MarketCache:
    cache, events = await _read(tape)
    async for event in events:
        if event.ts_ns >= until_ns:
            break
        cache.apply(event)
    return cache


@pytest.fixture(scope="module")
def cache(recordings: Path) -> MarketCache:
    return asyncio.run(_replay(Tape(recordings, INSTRUMENTS), FIRST_NS + SECOND_NS))


@pytest.fixture(scope="module")
def window(cache: MarketCache) -> MarketWindow:
    return cache.window(FIRST_NS + SECOND_NS)


def test_window_holds_the_slots_of_an_input_and_nothing_older(window: MarketWindow) -> None:
    counts = {key: len(stream.open_ns_T) for key, stream in window.streams.items()}

    assert [counts[ETH, timeframe] for timeframe in Timeframe] == [2, 299, 299, 299]
    for (_, timeframe), stream in window.streams.items():
        end_ns = timeframe.floor(window.event_ns)
        assert stream.open_ns_T[-1] == end_ns - timeframe.ns
        assert (np.diff(stream.open_ns_T) == timeframe.ns).all()
        assert stream.forming_open_ns == (None if timeframe is Timeframe.S1 else end_ns)
    assert window.books[BTC].second_ns_T.tolist() == [FIRST_NS + i * SECOND_NS for i in (-1, 0, 1)]
    assert window.down == frozenset()


def test_forming_bars_that_began_before_the_first_tick_are_partial(window: MarketWindow) -> None:
    flags = {tf: BarFlag(window.streams[ETH, tf].forming_flags) for tf in list(Timeframe)[1:]}

    wanted = BarFlag.VALID | BarFlag.FORMING | BarFlag.PARTIAL
    assert flags == dict.fromkeys(flags, wanted)
    assert window.close(ETH) == pytest.approx(2683, abs=2)


def test_window_never_changes_once_given_out(recordings: Path) -> None:
    async def run() -> tuple[MarketWindow, MarketWindow, MarketWindow]:
        cache, events = await _read(Tape(recordings, INSTRUMENTS))
        first = before = None
        async for event in events:
            if event.ts_ns >= FIRST_NS and first is None:
                first = cache.window(FIRST_NS)
                before = copy.deepcopy(first)
            if event.ts_ns >= FIRST_NS + 20 * SECOND_NS:
                break
            cache.apply(event)
        assert first is not None
        assert before is not None
        return first, before, cache.window(FIRST_NS + 20 * SECOND_NS)

    first, before, later = asyncio.run(run())

    for key, stream in before.streams.items():
        np.testing.assert_array_equal(first.streams[key].rows_TC, stream.rows_TC)
        np.testing.assert_array_equal(first.streams[key].forming_C, stream.forming_C)
    np.testing.assert_array_equal(first.books[ETH].rows_TC, before.books[ETH].rows_TC)
    with pytest.raises(ValueError, match="read-only"):
        first.streams[ETH, Timeframe.M1].rows_TC[0, 0] = 1.0
    assert (first.version, later.version) == (1, 2)


def test_rows_move_on_without_touching_what_was_given_out() -> None:
    def room(num: int) -> Shown:
        return Shown(
            np.zeros((num, 1), np.float32), np.zeros((num, 1), np.uint8), np.zeros((num, 1))
        )

    def show(rows_NC: Floats, values_NC: Tensor, known_NC: Flags, prices_NP: Floats) -> None:
        values_NC[:], known_NC[:], prices_NP[:] = 2 * rows_NC, 1, 3 * rows_NC

    rows = Rows(keep=3, num_columns=1, room=room, show=show)
    given = []
    for i in range(40):
        rows.append(i, np.array([float(i)]), 0)
        given.append(rows.newest(3))

    assert [view[0].tolist() for view in given[-2:]] == [[36, 37, 38], [37, 38, 39]]
    for i, (_, rows_TC, _, shown) in enumerate(given):
        assert rows_TC[-1, 0] == i
        assert shown.values_TC[-1, 0] == 2 * i
        assert np.array_equal(shown.values_TC, 2 * rows_TC)
        assert np.array_equal(shown.prices_TP, 3 * rows_TC)
        assert shown.known_TC.all()
    assert rows.newest(3, from_ns=38)[0].tolist() == [38, 39]


def test_columns_of_trades_move_on_without_touching_what_was_given_out() -> None:
    rows, given = Columns(*TRADES), []
    for i in range(400):
        second_ns = T0 + i * SECOND_NS
        rows.extend(Trades.of([trade(10 * i + k + 1, second_ns) for k in range(10)]).columns)
        rows.forget(second_ns - 300 * SECOND_NS)
        given.append(Trades(ETH, *rows.all()))

    assert [len(view) for view in given] == [min(10 * (i + 1), 3_010) for i in range(400)]
    for i, view in enumerate(given):
        last = 10 * (i + 1)
        assert view.trade_id_N.tolist() == list(range(last - len(view) + 1, last + 1))
    with pytest.raises(ValueError, match="read-only"):
        given[-1].price_N[0] = 1.0


def test_trades_in_batches_leave_the_cache_as_one_by_one(recordings: Path) -> None:
    async def run() -> list[Trade]:
        events = Tape(recordings, INSTRUMENTS).events()
        return [e async for e in events if isinstance(e, Trade) and e.symbol == ETH][:4_000]

    trades = asyncio.run(run())
    trades[700], trades[701] = trades[701], trades[700]  # one comes late
    one_by_one, at_once = MarketCache(INSTRUMENTS, Feed()), MarketCache(INSTRUMENTS, Feed())
    for event in trades:
        one_by_one.apply(event)
    for first in range(0, len(trades), 333):
        at_once.apply_trades(Trades.of(trades[first : first + 333]))

    wanted, found = one_by_one.view([ETH]), at_once.view([ETH])
    assert at_once.quarantined == one_by_one.quarantined == {"out_of_order": 1}
    assert at_once.quarantine == one_by_one.quarantine
    assert at_once.num_events == one_by_one.num_events == 3_999
    assert found.at_ns == wanted.at_ns == trades[-1].ts_ns
    for mine, theirs in zip(found.trades[ETH].columns, wanted.trades[ETH].columns, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for key, stream in wanted.streams.items():
        np.testing.assert_array_equal(found.streams[key].rows_TC, stream.rows_TC)
        np.testing.assert_array_equal(found.streams[key].forming_C, stream.forming_C)


def test_view_never_changes_and_its_version_names_its_moment(recordings: Path) -> None:
    async def run() -> tuple[CacheView, CacheView, CacheView, CacheView]:
        cache, events = await _read(Tape(recordings, INSTRUMENTS))
        first = again = kept = None
        async for event in events:
            if event.ts_ns >= FIRST_NS + 500_000_000 and first is None:
                first, again = (cache.view([ETH, BTC]) for _ in range(2))
                kept = copy.deepcopy(first)
            if event.ts_ns >= FIRST_NS + 20 * SECOND_NS:
                break
            cache.apply(event)
        assert first is not None
        assert again is not None
        assert kept is not None
        return first, again, kept, cache.view([ETH])

    first, again, kept, later = asyncio.run(run())

    assert first.version == again.version < later.version
    assert {symbol for symbol, _ in later.streams} == set(later.trades) == {ETH}
    assert FIRST_NS < first.at_ns < FIRST_NS + 500_000_000
    assert first.trades[BTC].ts_ns_N[-1] > FIRST_NS  # the second that is not over is inside
    for mine, theirs in zip(arrays(first), arrays(kept), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert not mine.flags.writeable
        assert mine.flags.c_contiguous
    assert [len(first.streams[ETH, tf].open_ns_T) for tf in Timeframe] == [1, 599, 599, 599]


def test_view_holds_the_book_by_bucket_for_the_seconds_kept(recordings: Path) -> None:
    async def run() -> tuple[CacheView, BookSnapshot | None]:
        cache = MarketCache(INSTRUMENTS, Feed(cache_s=10))
        book, last = Book(INSTRUMENTS[0]), None
        boundary_ns = FIRST_NS
        async for event in Tape(recordings, INSTRUMENTS).events():
            if event.ts_ns >= boundary_ns:
                last, _ = book.bucket_second(boundary_ns), book.second_row(boundary_ns)
                boundary_ns += SECOND_NS
                if boundary_ns > FIRST_NS + 30 * SECOND_NS:
                    break
            cache.apply(event)
            if event.symbol == ETH:
                if isinstance(event, BookDelta):
                    book.apply(event)
                elif isinstance(event, Trade):
                    book.note_trade(event.price, event.size, is_buy=event.is_buy)
        cache.close_until(FIRST_NS + 30 * SECOND_NS)
        return cache.view([ETH, BTC]), last

    view, wanted = asyncio.run(run())

    seconds = np.unique(view.bucket_seconds[ETH].second_ns_R)
    assert seconds.tolist() == [FIRST_NS + i * SECOND_NS for i in range(21, 31)]
    found = view.bucket_seconds[ETH].at(FIRST_NS + 30 * SECOND_NS)
    assert wanted is not None
    assert found is not None
    np.testing.assert_array_equal(found.price_K, wanted.price_K)
    np.testing.assert_array_equal(found.rows_KC, wanted.rows_KC)
    np.testing.assert_array_equal(found.known_KC, wanted.known_KC)
    assert view.bucket_seconds[ETH].at(FIRST_NS) is None
    assert np.nansum(view.bucket_seconds[BTC].rows_RC[:, BUCKET_COLUMN["bought"]]) > 0
    price_K = view.buckets[ETH].price_K
    assert (np.diff(price_K) == 1.0).all()
    assert price_K[-1] / price_K[0] == pytest.approx(1.02, abs=0.001)


def arrays(view: CacheView) -> list[np.ndarray]:
    found = [a for trades in view.trades.values() for a in trades.columns]
    for stream in view.streams.values():
        found += [stream.open_ns_T, stream.rows_TC, stream.flags_T]
        found += [] if stream.forming_C is None else [stream.forming_C]
    for now in view.buckets.values():
        found += [now.price_K, now.bids_K, now.asks_K, now.known_bids_K, now.known_asks_K]
    found += [array for outputs in view.peers.values() for array in outputs]
    for seconds in view.bucket_seconds.values():
        found += [seconds.second_ns_R, seconds.price_R, seconds.rows_RC, seconds.known_RC]
    return found + [a for book in view.books.values() for a in (book.second_ns_T, book.rows_TC)]


def trade(number: int, ts_ns: int, symbol: str = ETH) -> Trade:
    return Trade(symbol, ts_ns, ts_ns, number, 2700.0, 1.0, True)


def delta(number: int, ts_ns: int, *levels: tuple[float, float], snap: bool = False) -> BookDelta:
    asks_L2 = np.array([(2701.0, 1.0)]) if snap else np.empty((0, 2))
    bids_L2 = np.array(levels, float).reshape(-1, 2)
    return BookDelta(ETH, ts_ns, ts_ns, number, number, snap, bids_L2, asks_L2)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([trade(1, T0, "X/Y")], "unknown_symbol"),
        ([trade(1, T0 + SECOND_NS), trade(2, T0)], "out_of_order"),
        ([trade(2, T0), trade(2, T0)], "out_of_order"),
        ([delta(1, T0, (2700.0, -1.0), snap=True)], "invalid"),
        ([delta(1, T0, (2700.0, 1.0), snap=True), delta(2, T0, (2702.0, 1.0))], "crossed"),
        ([delta(1, T0, (2700.0, 1.0), snap=True), delta(3, T0, (2700.0, 1.0))], "sequence_gap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_events_that_cannot_be_are_refused_and_counted(
    events: list[MarketEvent], reason: str
) -> None:
    cache = MarketCache(INSTRUMENTS, Feed())

    for event in events:
        cache.apply(event)

    assert cache.quarantined == {reason: 1}
    assert [kept[0] for kept in cache.quarantine] == [reason]
    assert cache.quarantine[0][1] is events[-1]


def test_batches_that_cannot_be_are_refused_and_counted() -> None:
    cache = MarketCache(INSTRUMENTS, Feed())
    cache.apply_trades(Trades.of([trade(5, T0 + 3 * SECOND_NS), trade(6, T0 + 3 * SECOND_NS)]))

    cache.apply_trades(Trades.of([trade(7, T0), trade(8, T0 + 4 * SECOND_NS)]))
    cache.apply_trades(Trades.of([trade(1, T0, "X/Y")]))

    assert cache.quarantined == {"out_of_order": 1, "unknown_symbol": 1}
    assert [event for _, event in cache.quarantine] == [trade(7, T0), trade(1, T0, "X/Y")]
    assert cache.trades(ETH).trade_id_N.tolist() == [5, 6, 8]
    assert cache.num_events == 3


def test_columns_with_a_price_that_cannot_be_are_not_built() -> None:
    good = Trades.of([trade(1, T0), trade(2, T0)])

    with pytest.raises(InvalidEvent, match="trade 2: expected a positive finite price"):
        replace(good, price_N=np.array([2700.0, np.nan]))


def test_symbol_is_down_in_a_gap_and_after_too_long_a_silence() -> None:
    cache = MarketCache(INSTRUMENTS, Feed(gap_s=3.0))
    for i in range(10):
        cache.apply(trade(i + 1, T0 + i * SECOND_NS, BTC))
        if i < 3:
            cache.apply(trade(i + 1, T0 + i * SECOND_NS))
    silent = cache.window(T0 + 10 * SECOND_NS)
    cache.apply(FeedGap(BTC, T0 + 10 * SECOND_NS + 600, T0 + 9 * SECOND_NS + 5, "reset"))
    cache.apply(trade(20, T0 + 10 * SECOND_NS + 700, BTC))
    broken = cache.window(T0 + 11 * SECOND_NS)

    assert silent.down == {ETH}
    assert broken.down == {ETH, BTC}
    assert silent.streams[ETH, Timeframe.S1].open_ns_T[-1] == T0 + 4 * SECOND_NS
    assert broken.streams[BTC, Timeframe.S1].open_ns_T[-1] == T0 + 9 * SECOND_NS


def test_window_of_the_past_is_refused(cache: MarketCache) -> None:
    with pytest.raises(InvalidEvent, match="expected a whole second at or after"):
        cache.window(FIRST_NS)


def test_views_for_people_are_plain_values(cache: MarketCache) -> None:
    candles = cache.candles(ETH, "1m", 3)
    book = cache.book(BTC)
    pivots = cache.pivots(ETH, "1h")
    state = cache.snapshot()["symbols"][ETH]

    assert [c["open_at"][11:16] for c in candles] == ["23:51", "23:52", "23:53", "23:54"]
    assert candles[-1]["flags"] == ["valid", "forming", "partial"]
    assert {row["bids"] is None for row in book["buckets"]} == {True, False}
    assert 0 < book["ask"] - book["bid"] < 1
    assert {pivot["level"] for pivot in pivots} == {1, 2, 3, 4, 5}
    assert state["num_bars"] == {"1s": 2, "1m": 600, "1h": 600, "1d": 600}
    assert len(cache.trades(ETH)) == state["num_trades"]
