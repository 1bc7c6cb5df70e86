"""The validator refuses what cannot be right, keeps it, and lets a real crash through."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.merge import Merger
from alphapulse.data.tape import Tape
from alphapulse.data.validation import Validator
from alphapulse.domain.market import SECOND_NS, BookDelta, FeedGap, MarketEvent, Trade
from alphapulse.domain.quality import Reason

INSTRUMENTS = Market().instruments
ETH, BTC = (instrument.symbol for instrument in INSTRUMENTS)
T0 = 1_723_161_600 * SECOND_NS  # 2024-08-09 00:00 UTC
MS = 1_000_000


def make(touch: tuple[float, float] | None = None) -> Validator:
    return Validator((ETH, BTC), Feed(), touch=lambda symbol: touch)


def trade(trade_id: int, price: float = 2_500.0, *, ms: int | None = None) -> Trade:
    ts_ns = T0 + (10 * trade_id if ms is None else ms) * MS
    return Trade(ETH, ts_ns, ts_ns, trade_id, price, 1.0, True)


def book(last_id: int, *, ms: int, snapshot: bool = False, bid: float = 2_499.99) -> BookDelta:
    bids, asks = np.array([[bid, 1.0]]), np.array([[2_500.0, 1.0]])
    return BookDelta(ETH, T0 + ms * MS, T0 + ms * MS, last_id, last_id, snapshot, bids, asks)


def taken(validator: Validator, events: Sequence[MarketEvent]) -> list[MarketEvent]:
    return [out for event in events for out in validator.take(event)]


def quiet(count: int = 20) -> list[Trade]:
    """Return trades at one price, enough to know where the market stands."""
    return [trade(i) for i in range(1, count + 1)]


def test_nothing_of_the_recorded_window_is_refused_or_changed(recordings: Path) -> None:
    validator = make()

    async def read() -> int:
        count = 0
        async for event in Tape(recordings, INSTRUMENTS).events():
            assert validator.take(event) == [event]
            count += 1
        return count

    assert asyncio.run(read()) > 40_000
    validator.flush()
    assert (dict(validator.refused), list(validator.quarantine)) == ({}, [])


@pytest.mark.parametrize("order", [[1, 2, 2], [1, 2, 3, 1], [1, 3, 2, 2], [2, 1, 3, 1]])
def test_trade_that_comes_twice_is_taken_once(order: list[int]) -> None:
    validator = make()

    out = taken(validator, [trade(i) for i in order])

    assert sorted(event.trade_id for event in out if isinstance(event, Trade)) == [*set(order)]
    assert validator.refused == {Reason.DUPLICATE: 1}
    assert validator.quarantine[0].event == trade(order[-1])


def test_trade_that_was_overtaken_is_left_to_the_merger() -> None:
    validator = make()

    out = taken(validator, [trade(i) for i in (1, 4, 3, 2, 5)])

    assert len(out) == 5
    assert not validator.refused


def test_trade_with_a_lower_number_and_a_later_time_is_out_of_order() -> None:
    validator = make()

    out = taken(validator, [trade(1), trade(3), trade(2, ms=31)])

    assert len(out) == 2
    assert validator.refused == {Reason.OUT_OF_ORDER: 1}


def test_book_message_that_comes_twice_or_against_its_number_is_refused() -> None:
    validator = make()
    messages = [book(10, ms=0), book(14, ms=100), book(14, ms=100), book(12, ms=200)]

    out = taken(validator, [*messages, book(9, ms=-100), book(15, ms=300)])

    assert [e.last_id for e in out if isinstance(e, BookDelta)] == [10, 14, 9, 15]
    assert validator.refused == {Reason.DUPLICATE: 1, Reason.OUT_OF_ORDER: 1}


def test_event_older_than_the_newest_by_more_than_the_limit_is_stale() -> None:
    validator = make()
    at_limit, beyond = trade(2, ms=0), trade(3, ms=-1)

    out = taken(validator, [trade(9, ms=5_000), at_limit, beyond, book(4, ms=-1)])

    assert out == [trade(9, ms=5_000), at_limit]
    assert validator.refused == {Reason.STALE: 2}


def test_event_from_the_future_is_refused_and_makes_no_other_stale() -> None:
    validator = make()
    year_ns = 365 * 86_400 * SECOND_NS
    wrong = [replace(event, ts_ns=event.ts_ns + year_ns) for event in (trade(2), book(9, ms=20))]
    right = [trade(1), trade(3), book(10, ms=30)]

    assert taken(validator, [right[0], *wrong, *right[1:]]) == right
    assert validator.refused == {Reason.AHEAD: 2}


def test_crossed_snapshot_is_refused_and_a_touching_one_too() -> None:
    validator = make()

    crossed = [book(1, ms=0, snapshot=True, bid=bid) for bid in (2_501.0, 2_500.0)]
    out = taken(validator, [*crossed, book(2, ms=0, snapshot=True)])

    assert [event.last_id for event in out if isinstance(event, BookDelta)] == [2]
    assert validator.refused == {Reason.CROSSED: 2}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, math.nan, Reason.NOT_FINITE),
        (1, math.nan, Reason.NOT_FINITE),
        (1, math.inf, Reason.NOT_FINITE),
        (0, 0.0, Reason.NEGATIVE),
        (1, -1.0, Reason.NEGATIVE),
    ],
)
@pytest.mark.parametrize("side", ["bids_L2", "asks_L2"])
def test_level_that_is_no_price_or_size_is_refused(
    side: str, column: int, value: float, reason: Reason
) -> None:
    validator, delta = make(), book(1, ms=0)
    getattr(delta, side)[0, column] = value

    out = validator.take(delta)

    assert out == []
    assert validator.refused == {reason: 1}


def test_level_of_size_zero_is_no_fault() -> None:
    delta = book(1, ms=0)
    delta.bids_L2[0, 1] = 0.0

    assert make().take(delta) == [delta]


def test_symbol_nobody_watches_is_refused() -> None:
    validator = make()
    other = Trade("SOL/USDT", T0, T0, 1, 150.0, 1.0, True)

    assert validator.take(other) == []
    assert validator.refused == {Reason.UNKNOWN_SYMBOL: 1}


def test_single_wrong_print_is_refused_and_the_rest_goes_on() -> None:
    validator = make()
    wrong, after = trade(21, 2_800.0), [trade(i) for i in range(22, 60)]

    out = taken(validator, [*quiet(), wrong, *after])

    assert out == [*quiet(), *after]
    assert validator.refused == {Reason.PRICE_JUMP: 1}
    assert validator.quarantine[0].event == wrong


def test_crash_of_five_percent_in_a_second_loses_no_trade() -> None:
    """The second trade down there confirms the first, within the watermark."""
    validator, merger = make(), Merger((ETH, BTC), watermark_ms=Feed().watermark_ms)
    crash = [trade(i, 2_375.0 - i) for i in range(21, 121)]

    events = [*quiet(), *crash]
    out = [e for event in taken(validator, events) for e in merger.push(event)] + merger.flush()

    assert out == events
    assert not validator.refused
    assert not merger.late


def test_crash_whose_second_trade_comes_late_costs_one_trade_and_no_more() -> None:
    validator = make()
    first, second = trade(21, 2_375.0, ms=210), trade(22, 2_376.0, ms=1_210)

    out = taken(validator, [*quiet(), first, second, trade(23, 2_374.0, ms=1_220)])

    assert [e.trade_id for e in out[20:] if isinstance(e, Trade)] == [22, 23]
    assert validator.refused == {Reason.PRICE_JUMP: 1}


def test_sweep_that_walks_down_the_book_is_believed_and_so_is_the_way_back() -> None:
    validator = make()
    down = [trade(21 + i, 2_500.0 * (1 - 0.004 * i)) for i in range(13)]
    back = [trade(34, 2_500.0), trade(35, 2_500.0)]

    assert len(taken(validator, [*quiet(), *down, *back])) == 20 + 13 + 2
    assert not validator.refused


def test_jump_the_book_stands_at_is_believed_at_once() -> None:
    validator, far = make(touch=(2_374.9, 2_375.0)), trade(21, 2_375.0)

    assert taken(validator, [*quiet(), far])[-1] == far
    assert not validator.refused


def test_jump_the_book_does_not_stand_at_waits() -> None:
    validator = make(touch=(2_499.9, 2_500.0))

    assert len(taken(validator, [*quiet(), trade(21, 2_375.0)])) == 20


def test_price_after_a_gap_needs_no_confirmation() -> None:
    validator = make()
    gap = FeedGap(ETH, T0 + 900 * MS, T0 + 200 * MS, "network")
    far = trade(21, 2_375.0, ms=901)

    assert taken(validator, [*quiet(), gap, far])[-2:] == [gap, far]


def test_jump_that_nothing_follows_is_refused_when_its_place_is_given_away_or_the_source_ends() -> (
    None
):
    given_away, ended = make(), make()
    for validator in (given_away, ended):
        taken(validator, [*quiet(), trade(21, 2_375.0, ms=210)])

    given_away.take(book(1, ms=461))
    ended.flush()

    assert given_away.refused == ended.refused == {Reason.PRICE_JUMP: 1}


def test_quarantine_is_bounded_and_the_counter_is_not() -> None:
    validator = make()

    taken(validator, [trade(1) for _ in range(1_102)])

    assert len(validator.quarantine) == 1_000
    assert validator.refused == {Reason.DUPLICATE: 1_101}
