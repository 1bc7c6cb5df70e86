"""Trades and book changes come out once each in order, whatever way they come in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.data.book import Book, BookChange
from alphapulse.data.continuity import MOST_MISSING, BookOrder, TradeOrder
from alphapulse.domain.market import BookDelta, FeedGap, Instrument, Trade

ETH = Instrument(symbol="ETH/USDT", tick_size=0.01, bucket_size=1.0)


def trade(trade_id: int) -> Trade:
    """Return a trade of that number, a millisecond after the one before."""
    return Trade("ETH/USDT", trade_id * 1_000_000, 0, trade_id, 2_000.0, 1.0, True)


def ids(trades: list[Trade]) -> list[int]:
    return [t.trade_id for t in trades]


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(0, 39))
def test_whatever_comes_first_all_from_it_on_comes_once_in_order(
    arrived: list[int], first: int
) -> None:
    order = TradeOrder("ETH/USDT")
    released = order.push(trade(first))

    for trade_id in arrived:
        released += order.push(trade(trade_id))
    while (missing := order.missing) is not None:
        for trade_id in range(missing[0], missing[1] + 1):
            released += order.push(trade(trade_id))

    assert ids(released) == list(range(first, max([first, *arrived]) + 1))


@given(st.sets(st.integers(1, 60), min_size=1), st.randoms())
def test_what_is_given_up_is_told_and_all_else_comes_in_order(
    arrived: set[int], random: object
) -> None:
    order, sent = TradeOrder("ETH/USDT"), sorted(arrived)
    random.shuffle(sent)  # type: ignore[attr-defined]
    released = order.push(trade(0))
    gaps: list[FeedGap] = []

    for trade_id in sent:
        released += order.push(trade(trade_id))
    while order.missing is not None:
        given_up = order.give_up()
        assert given_up.gap is not None
        gaps.append(given_up.gap)
        released += given_up.trades

    assert ids(released) == [0, *sorted(arrived)]
    lost = {i for gap in gaps for i in range(gap.from_ns // 1_000_000 + 1, gap.ts_ns // 1_000_000)}
    assert lost == set(range(max(arrived))) - arrived - {0}
    assert not any(gap.is_book_lost for gap in gaps)


def test_a_number_that_cannot_be_does_not_move_the_order() -> None:
    order = TradeOrder("ETH/USDT")
    order.push(trade(1))

    order.push(trade(2 + MOST_MISSING))
    given_up = order.give_up()

    assert given_up.gap is None
    assert given_up.stray == trade(2 + MOST_MISSING)
    assert ids(order.push(trade(2))) == [2]


def test_a_long_silence_is_believed_when_two_trades_in_a_row_tell_it() -> None:
    order, far = TradeOrder("ETH/USDT"), 2 + MOST_MISSING
    order.push(trade(1))

    order.push(trade(far))
    order.push(trade(far + 1))

    assert ids(order.give_up().trades) == [far, far + 1]


def change(first_id: int, last_id: int) -> BookDelta:
    """Return a change that names the bid of its last number."""
    bids = np.array([[10.0 + last_id, 1.0]])
    return BookDelta("ETH/USDT", last_id * 10, 0, first_id, last_id, False, bids, bids[:0])


def snapshot(last_id: int) -> BookDelta:
    levels = np.array([[10.0, 1.0]]), np.array([[9_000.0, 1.0]])
    return BookDelta("ETH/USDT", 0, 0, last_id, last_id, True, *levels)


@given(st.data())
def test_the_readers_book_is_known_once_the_order_says_so(data: st.DataObject) -> None:
    """Changes lost, doubled and a snapshot as of any moment: what is known is known downstream."""
    order, book = BookOrder(), Book(ETH)
    for last_id in range(10, 200, 10):
        for _ in range(data.draw(st.sampled_from([0, 1, 1, 1, 2]), label="times sent")):
            for event in order.push(change(last_id - 9, last_id)):
                assert isinstance(event, BookDelta)
                book.apply(event)
        if not order.is_known and data.draw(st.booleans(), label="asked"):
            order.take(snapshot(last_id + data.draw(st.integers(-25, 15), label="as of")))

    for _ in range(2):  # the snapshot that waits leaves with the change it does not hold
        last_id += 10
        for event in order.push(change(last_id - 9, last_id)):
            assert isinstance(event, BookDelta)
            book.apply(event)

    assert book.is_known or not order.is_known


def test_a_snapshot_older_than_the_changes_is_refused() -> None:
    order = BookOrder()
    order.push(change(101, 110))

    assert not order.take(snapshot(99))
    assert order.take(snapshot(100))


def test_a_snapshot_waits_for_the_first_change_it_does_not_hold() -> None:
    order = BookOrder()
    order.take(snapshot(115))

    first, second = order.push(change(101, 110)), order.push(change(111, 120))

    assert [e.is_snapshot for e in first if isinstance(e, BookDelta)] == [False]
    assert [(e.ts_ns, e.is_snapshot) for e in second if isinstance(e, BookDelta)] == [
        (1_200, True),
        (1_200, False),
    ]


def test_a_polled_book_goes_on_with_the_changes_that_follow_it() -> None:
    order, book = BookOrder(), Book(ETH)

    assert order.replace(snapshot(100))
    book.apply(snapshot(100))
    assert not order.replace(snapshot(100))

    for event in order.push(change(96, 105)):
        assert isinstance(event, BookDelta)
        assert book.apply(event) is BookChange.APPLIED
    assert order.is_known
