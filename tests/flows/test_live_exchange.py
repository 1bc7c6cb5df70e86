"""A recording played through the exchange and the real client is the recording on tape."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Feed
from alphapulse.data.book import Book
from alphapulse.data.live import Live
from alphapulse.data.merge import Merger
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import (
    Bar,
    BookDelta,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from tests.exchange.columns import SECOND
from tests.exchange.faults import (
    ClockSkew,
    Close,
    Delay,
    Drop,
    Duplicate,
    Fault,
    HalfClose,
    Hang,
    Refuse,
    Reorder,
    Stall,
    WrongType,
)
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened
from tests.flows.lived import DEPTH, FEED, INSTRUMENTS, has_all, led, lived, of_kind

MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
FROM_NS = MIDNIGHT - 310 * SECOND  # 23:54:50
UNTIL_NS = MIDNIGHT - 290 * SECOND  # 23:55:10
ETH, BTC = INSTRUMENTS
TRADES, CHANGES = "ethusdt@trade", "ethusdt@depth@100ms"
LEVELS = 800  # a side: all of them within the reach of the recorded snapshot


@pytest.fixture(scope="module")
def stretch(recordings: Path) -> Recording:
    """Return twenty seconds of the recording as the exchange plays them."""
    return Recording(recordings, from_ns=FROM_NS, until_ns=UNTIL_NS)


@pytest.fixture(scope="module")
def whole(recordings: Path) -> list[MarketEvent]:
    """Return everything on tape until the end of the same twenty seconds."""
    tape = Tape(recordings, INSTRUMENTS, until_ns=UNTIL_NS)

    async def read() -> list[MarketEvent]:
        return [event async for event in tape.events()]

    return asyncio.run(read())


@pytest.fixture(scope="module")
def taped(whole: list[MarketEvent]) -> list[MarketEvent]:
    """Return the same twenty seconds from tape."""
    return [event for event in whole if event.ts_ns >= FROM_NS]


def facts(trade: Trade) -> tuple[Any, ...]:
    """Return all of a trade that does not depend on who received it when."""
    return (trade.symbol, trade.ts_ns, trade.trade_id, trade.price, trade.size, trade.is_buy)


def changes(events: Sequence[MarketEvent], instrument: Instrument) -> list[tuple[Any, ...]]:
    """Return numbers, time and levels of every book change; snapshots are none."""
    return [
        (d.first_id, d.last_id, d.ts_ns, d.bids_L2.tolist(), d.asks_L2.tolist())
        for d in of_kind(events, BookDelta, instrument.symbol)
        if not d.is_snapshot
    ]


def num_snapshots(events: Sequence[MarketEvent], instrument: Instrument) -> int:
    """Return how many whole books came."""
    return sum(d.is_snapshot for d in of_kind(events, BookDelta, instrument.symbol))


def last_book(events: Sequence[MarketEvent], instrument: Instrument) -> tuple[int, Any, Any]:
    """Return number and levels of the book at the end, all events put in order."""
    merger, book = Merger((instrument.symbol,), watermark_ms=250), Book(instrument)
    deltas = of_kind(events, BookDelta, instrument.symbol)
    for delta in [e for d in deltas for e in merger.push(d)] + merger.flush():
        assert isinstance(delta, BookDelta)
        book.apply(delta)
    return book.last_id, *book.levels(LEVELS)


def require_the_same_trades(events: Sequence[MarketEvent], taped: Sequence[MarketEvent]) -> None:
    """Hold the trades of both symbols to those of the tape: each once, in order."""
    for instrument in INSTRUMENTS:
        recorded = [facts(trade) for trade in of_kind(taped, Trade, instrument.symbol)]
        assert [facts(trade) for trade in of_kind(events, Trade, instrument.symbol)] == recorded


def require_the_same_book(
    events: Sequence[MarketEvent], whole: Sequence[MarketEvent], instrument: Instrument
) -> None:
    """Hold the book at the end to that of the tape."""
    seen, kept = last_book(events, instrument), last_book(whole, instrument)
    assert seen[0] == kept[0]
    for side in (1, 2):
        assert len(seen[side]) == LEVELS
        assert np.array_equal(seen[side], kept[side])


def gaps(events: Sequence[MarketEvent]) -> list[FeedGap]:
    """Return every gap that was told."""
    return [event for event in events if isinstance(event, FeedGap)]


def test_live_and_tape_are_the_same_events(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    live, events = lived(stretch, has_all(taped))

    require_the_same_trades(events, taped)
    for instrument in INSTRUMENTS:
        symbol = instrument.symbol
        assert of_kind(events, Bar, symbol) == of_kind(taped, Bar, symbol)
        assert changes(events, instrument) == changes(taped, instrument)
        assert num_snapshots(events, instrument) == 1
        require_the_same_book(events, whole, instrument)
    assert gaps(events) == []
    assert live.quarantine == type(live.quarantine)([], 1_000)


def test_the_snapshot_stands_before_the_first_change_it_does_not_hold(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    _, events = lived(stretch, has_all(taped))

    for instrument in INSTRUMENTS:
        first, second = of_kind(events, BookDelta, instrument.symbol)[:2]
        assert (first.is_snapshot, second.is_snapshot) == (True, False)
        assert first.ts_ns == second.ts_ns
        assert second.first_id <= first.last_id + 1 <= second.last_id


def test_live_and_tape_have_the_same_history(recordings: Path, stretch: Recording) -> None:
    tape = Tape(recordings, INSTRUMENTS, from_ns=FROM_NS, until_ns=UNTIL_NS)
    exchange = Exchange(stretch)

    async def histories() -> list[tuple[Any, Any]]:
        async with opened(exchange):
            live = Live("binance", INSTRUMENTS, Feed(), url=exchange.url)
            try:
                return [
                    (await live.history(i, tf, 1_200), await tape.history(i, tf, 1_200))
                    for i in INSTRUMENTS
                    for tf in (Timeframe.M1, Timeframe.H1, Timeframe.D1)
                ]
            finally:
                await live.close()

    for seen, kept in asyncio.run(histories()):
        assert len(kept) == 1_200
        assert np.array_equal(seen.open_ns_T, kept.open_ns_T)
        assert np.array_equal(seen.ohlcv_TC, kept.ohlcv_TC)


def test_a_level_too_many_is_not_taken_for_the_recorded_book(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    wrong = [["2500.00000000", "1.00000000"], ["2683.61000000", "0.12345678"]]
    fault = WrongType(target=CHANGES, first=195, field="b", value=wrong)

    _, events = lived(stretch, has_all(taped), faults=[fault])

    with pytest.raises(AssertionError):
        require_the_same_book(events, whole, ETH)


@pytest.mark.parametrize(
    "fault",
    [
        Drop(target=TRADES, first=30),
        Reorder(target=TRADES, first=30),
        Duplicate(target=TRADES, first=30, count=3),
        WrongType(target=TRADES, first=30, field="p", value={"not": "a price"}),
        WrongType(target=TRADES, first=30, field="p", value="abc"),
        WrongType(target=TRADES, first=30, field="t", value="17"),
        WrongType(target=TRADES, first=30, field="s", value=None),
        WrongType(target=TRADES, first=30, field="e", value=["trade"]),
    ],
    ids=repr,
)
def test_a_broken_trade_leaves_no_trace(
    stretch: Recording, taped: list[MarketEvent], fault: Fault
) -> None:
    live, events = lived(stretch, has_all(taped), faults=[fault])

    require_the_same_trades(events, taped)
    assert gaps(events) == []
    health = live.health()
    symbol, refused = health["symbols"][ETH.symbol], health["quarantined"]
    assert symbol["backfilled"] == (0 if isinstance(fault, Reorder | Duplicate) else 1)
    if isinstance(fault, Duplicate):
        assert refused == {"duplicate": 3}
    elif isinstance(fault, WrongType):
        code = "unknown_symbol" if fault.field == "s" else "unreadable"
        assert refused == {code: 1}
    else:
        assert refused == {}


@pytest.mark.parametrize(
    "fault",
    [
        Drop(target=CHANGES, first=80),
        Drop(target=CHANGES, first=80, count=9),
        WrongType(target=CHANGES, first=80, field="b", value=[["x", "y"]]),
        WrongType(target=CHANGES, first=80, field="a", value="levels"),
        WrongType(target=CHANGES, first=80, field="b", value=[["2683.61", "NaN"]]),
        WrongType(target=CHANGES, first=80, field="u", value={"no": "number"}),
    ],
    ids=repr,
)
def test_a_lost_change_brings_a_new_snapshot_and_touches_no_trade(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent], fault: Fault
) -> None:
    live, events = lived(
        stretch,
        has_all(taped),
        faults=[fault],
    )

    require_the_same_trades(events, taped)
    require_the_same_book(events, whole, ETH)
    assert gaps(events) == []
    assert num_snapshots(events, ETH) == 2
    health = live.health()
    assert health["symbols"][ETH.symbol]["book_gaps"] == 1
    code = "not_finite" if "NaN" in repr(fault) else "unreadable"
    assert health["quarantined"] == ({code: 1} if isinstance(fault, WrongType) else {})


def test_an_overtaken_change_finds_its_place(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    _, events = lived(stretch, has_all(taped), faults=[Reorder(target=CHANGES, first=80)])

    assert sorted(changes(events, ETH)) == changes(taped, ETH)
    require_the_same_book(events, whole, ETH)


@pytest.mark.parametrize("target", [TRADES, CHANGES])
@pytest.mark.parametrize("kind", [Close, HalfClose, Hang])
def test_what_a_lost_connection_missed_is_fetched(
    stretch: Recording,
    taped: list[MarketEvent],
    whole: list[MarketEvent],
    kind: type[Fault],
    target: str,
) -> None:
    live, events = lived(
        stretch,
        has_all(taped),
        faults=[kind(target=target, first=100)],
    )

    require_the_same_trades(events, taped)
    require_the_same_book(events, whole, ETH)
    symbol = live.health()["symbols"][ETH.symbol]
    assert symbol["reconnects"] == 1
    assert symbol["silences"] == (kind is Hang)
    assert not symbol["fallback"]
    assert not symbol["down"]
    if target == TRADES:
        assert symbol["backfilled"] > 0
    if kind is not Hang:
        assert gaps(events) == []


def test_a_book_that_crosses_downstream_is_fetched_anew(
    recordings: Path, stretch: Recording, taped: list[MarketEvent]
) -> None:
    wrong = [["2690.00000000", "1.00000000"]]  # above the asks: the numbers follow, the book cannot
    fault = WrongType(target=CHANGES, first=80, field="b", value=wrong)

    live, feed = led(stretch, faults=[fault])

    assert feed.cache.quarantined == {"crossed": 1}
    assert live.health()["symbols"][ETH.symbol]["snapshots"] == 2
    assert feed.cache.book(ETH.symbol)["is_known"]


def test_a_book_whose_price_drifts_is_fetched_anew_and_stays_whole(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    """A book is known no further than its newest snapshot reaches."""
    prices = [trade.price for trade in of_kind(taped, Trade, ETH.symbol)]
    drift_pct = 50 * (max(prices) / min(prices) - 1)

    live, events = lived(
        stretch, has_all(taped), settings=replace(FEED, book_drift_pct=drift_pct / 2)
    )

    require_the_same_trades(events, taped)
    require_the_same_book(events, whole, ETH)
    assert changes(events, ETH) == changes(taped, ETH)
    assert num_snapshots(events, ETH) == live.health()["symbols"][ETH.symbol]["snapshots"] == 2
    assert gaps(events) == []


def test_late_trades_are_told_by_a_gap_that_keeps_the_book(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    fault = Delay(target=TRADES, first=100, by_ns=2 * SECOND)

    live, events = lived(stretch, has_all(taped), faults=[fault])

    require_the_same_trades(events, taped)
    require_the_same_book(events, whole, ETH)
    told = gaps(events)
    recorded = of_kind(taped, Trade, ETH.symbol)
    assert told
    assert {gap.from_ns for gap in told} == {recorded[100].ts_ns}
    assert not any(gap.is_book_lost for gap in told)
    assert live.health()["symbols"][ETH.symbol]["backfilled"] == 0


def test_trades_that_cannot_be_fetched_are_told_as_a_gap(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    faults = [
        Drop(target=TRADES, first=30, count=2),
        Refuse(target="/api/v3/trades", status=503, count=1_000),
    ]

    live, events = lived(stretch, has_all(taped), faults=faults)

    recorded = of_kind(taped, Trade, ETH.symbol)
    kept = [facts(trade) for trade in (*recorded[:30], *recorded[32:])]
    assert [facts(trade) for trade in of_kind(events, Trade, ETH.symbol)] == kept
    told = gaps(events)
    assert [(gap.from_ns, gap.ts_ns, gap.is_book_lost) for gap in told] == [
        (recorded[29].ts_ns, recorded[32].ts_ns, False)
    ]
    assert f"trades {recorded[30].trade_id} to {recorded[31].trade_id}" in told[0].reason
    assert live.health()["symbols"][ETH.symbol]["gaps"] == 1


def test_while_no_trades_can_be_had_every_second_is_missing(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    """The stream cannot be opened again and REST refuses: no second may look like a quiet one."""
    faults = [
        Close(target=TRADES, first=100),
        Refuse(target="/stream/ws", status=503, first=5, count=1_000),
        Refuse(target="/api/v3/trades", status=503, count=1_000),
    ]

    live, feed = led(stretch, faults=faults)

    symbol = live.health()["symbols"][ETH.symbol]
    assert symbol["down"]
    last = of_kind(taped, Trade, ETH.symbol)[99]
    view = feed.cache.view([ETH.symbol])
    seconds = view.streams[ETH.symbol, Timeframe.S1]
    assert int(seconds.open_ns_T[-1]) < last.ts_ns
    assert feed.cache.book(ETH.symbol)["is_known"]
    assert ETH.symbol in view.down


@pytest.mark.parametrize("status", [429, 418])
def test_who_is_told_to_wait_waits(
    stretch: Recording, taped: list[MarketEvent], status: int
) -> None:
    faults = [
        Drop(target=TRADES, first=30),
        Refuse(target="/api/v3/trades", status=status, retry_after_s=3),
    ]
    times: list[float] = []

    _, events = lived(stretch, has_all(taped), faults=faults, waited=times)

    require_the_same_trades(events, taped)
    assert gaps(events) == []
    assert any(2.9 <= pause <= 3.1 for pause in times)


def test_a_request_that_is_never_answered_is_asked_again(
    stretch: Recording, taped: list[MarketEvent], whole: list[MarketEvent]
) -> None:
    faults = [Drop(target=CHANGES, first=20), Stall(target=DEPTH, first=2)]

    live, events = lived(stretch, has_all(taped), faults=faults)

    require_the_same_trades(events, taped)
    require_the_same_book(events, whole, ETH)
    assert live.health()["symbols"][ETH.symbol]["snapshots"] == 2


def test_the_difference_of_the_clocks_is_measured(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    live, _ = lived(stretch, has_all(taped), faults=[ClockSkew(by_ms=-120)])

    assert live.health()["skew_ms"] == pytest.approx(-120, abs=1)


def test_a_silent_book_is_polled_until_its_stream_is_back(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    faults = [
        Hang(target=CHANGES, first=40),
        Refuse(target="/stream/ws", status=503, first=5, count=2),
    ]

    live, events = lived(stretch, has_all(taped), faults=faults)

    symbol = live.health()["symbols"][ETH.symbol]
    assert symbol["polls"] >= 1
    assert not symbol["fallback"]
    polled = [d for d in of_kind(events, BookDelta, ETH.symbol) if d.is_snapshot]
    assert len(polled) == symbol["polls"] + symbol["snapshots"]
    require_the_same_trades(events, taped)


def test_a_candle_that_a_silent_stream_owes_is_fetched_and_the_stream_opened_anew(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    fault = Hang(target="ethusdt@kline_1m")

    live, events = lived(stretch, has_all(taped), faults=[fault])

    assert of_kind(taped, Bar, ETH.symbol)
    for instrument in INSTRUMENTS:
        assert of_kind(events, Bar, instrument.symbol) == of_kind(taped, Bar, instrument.symbol)
    symbols = live.health()["symbols"].values()
    assert sum(symbol["silences"] for symbol in symbols) == 1  # one connection for all


@pytest.mark.parametrize(("target", "said"), [(TRADES, "trades"), (CHANGES, "book")])
def test_a_stream_that_never_begins_is_named(stretch: Recording, target: str, said: str) -> None:
    faults = [Hang(target=target)]

    with pytest.raises(Unavailable, match=f"ETH/USDT {said}: expected a message within 10 s"):
        lived(stretch, lambda events: False, faults=faults)
