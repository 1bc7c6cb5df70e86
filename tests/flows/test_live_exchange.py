"""A recording played through the exchange and the real client is the recording on tape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Market
from alphapulse.data.book import Book, BookChange
from alphapulse.data.live import Live
from alphapulse.data.tape import Tape
from alphapulse.domain.market import (
    Bar,
    BookDelta,
    FeedGap,
    Floats,
    MarketEvent,
    Timeframe,
    Trade,
)
from tests.exchange.columns import SECOND
from tests.exchange.connecting import open_at
from tests.exchange.faults import Close, Drop, Fault, WrongType
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
FROM_NS = MIDNIGHT - 310 * SECOND  # 23:54:50
UNTIL_NS = MIDNIGHT - 290 * SECOND  # 23:55:10
INSTRUMENTS = Market().instruments
CANDLES = ("1m", "1h", "1d")
RECOVERED_BY = 12  # seconds played; every fault below begins before
LEVELS = 800  # a side; ccxt's book of 1000 holds 824 of the recorded ones after twenty seconds


@pytest.fixture(scope="module")
def stretch(recordings: Path) -> Recording:
    """Return twenty seconds of the recording as the exchange plays them."""
    return Recording(recordings, from_ns=FROM_NS, until_ns=UNTIL_NS)


@pytest.fixture(scope="module")
def taped(recordings: Path) -> list[MarketEvent]:
    """Return the same twenty seconds from tape."""
    tape = Tape(recordings, INSTRUMENTS, from_ns=FROM_NS, until_ns=UNTIL_NS)

    async def read() -> list[MarketEvent]:
        return [event async for event in tape.events()]

    return asyncio.run(read())


class RecordedBooks:
    """The book of each symbol after each recorded change, by update number."""

    def __init__(self, recordings: Path, taped: Sequence[MarketEvent]) -> None:
        before = Tape(recordings, INSTRUMENTS, until_ns=FROM_NS)
        books = {i.symbol: Book(i) for i in INSTRUMENTS}
        self.levels: dict[tuple[str, int], tuple[Floats, Floats]] = {}

        async def read() -> list[MarketEvent]:
            return [event async for event in before.events()]

        for event in [*asyncio.run(read()), *taped]:
            if isinstance(event, BookDelta):
                book = books[event.symbol]
                book.apply(event)
                if event.ts_ns >= FROM_NS - 5 * SECOND:
                    self.levels[event.symbol, event.last_id] = book.levels(2_000)


@pytest.fixture(scope="module")
def books(recordings: Path, taped: list[MarketEvent]) -> RecordedBooks:
    """Return the recorded books of the stretch."""
    return RecordedBooks(recordings, taped)


def of_kind(events: Sequence[MarketEvent], kind: type, symbol: str) -> list[Any]:
    """Return the events of one kind and symbol, in order."""
    return [e for e in events if isinstance(e, kind) and getattr(e, "symbol", "") == symbol]


def facts(trade: Trade) -> tuple[Any, ...]:
    """Return all of a trade that does not depend on who received it when."""
    return (trade.symbol, trade.ts_ns, trade.trade_id, trade.price, trade.size, trade.is_buy)


def streams(*kinds: str) -> list[str]:
    """Return the streams of both symbols."""
    return [f"{i.venue_symbol.lower()}@{kind}" for i in INSTRUMENTS for kind in kinds]


def lived(
    stretch: Recording,
    is_enough: Callable[[list[MarketEvent]], bool],
    *,
    faults: Sequence[Fault] = (),
    has_recovered: Callable[[Exchange], bool] = lambda exchange: True,
) -> tuple[Live, list[MarketEvent]]:
    """Return the live source and its events while the stretch is played, until it is enough.

    The play waits for the first book of both symbols, so that every recorded change applies to it,
    and at `RECOVERED_BY` seconds until `has_recovered`.
    """
    exchange = Exchange(stretch, faults=faults)
    events: list[MarketEvent] = []

    async def read(live: Live) -> None:
        async for event in live.events():
            events.append(event)  # noqa: PERF401 - the others look at it meanwhile

    async def run() -> Live:
        async with opened(exchange):
            live = Live(
                "binance",
                INSTRUMENTS,
                history_bars=10,
                exchange=lambda: open_at(exchange.url),
                first_pause_s=0.05,
            )
            for instrument in INSTRUMENTS:
                for timeframe in CANDLES:
                    await live.history(instrument, Timeframe(timeframe), None)
            reader = asyncio.create_task(read(live))
            try:
                async with asyncio.timeout(20):
                    candles = [f"kline_{timeframe}" for timeframe in CANDLES]
                    await exchange.wait_for(*streams("trade", "depth@100ms", *candles))
                    while exchange.requests["/api/v3/depth"] < len(INSTRUMENTS):
                        await asyncio.sleep(0.01)
                    for second in range(1, 21):
                        await exchange.play(FROM_NS + second * SECOND)
                        await asyncio.sleep(0.05)
                        while second == RECOVERED_BY and not has_recovered(exchange):
                            await asyncio.sleep(0.01)
                    while not is_enough(events) and not reader.done():
                        await asyncio.sleep(0.01)
            finally:
                reader.cancel()
                with suppress(asyncio.CancelledError):
                    await reader
                await live.close()
            return live

    return asyncio.run(run()), events


def has_all(taped: Sequence[MarketEvent]) -> Callable[[list[MarketEvent]], bool]:
    """Return whether the last trade, the last book change and the bars of the tape are there."""

    def is_enough(events: list[MarketEvent]) -> bool:
        for instrument in INSTRUMENTS:
            for kind, number in ((Trade, "trade_id"), (BookDelta, "last_id")):
                seen = [getattr(e, number) for e in of_kind(events, kind, instrument.symbol)]
                last = getattr(of_kind(taped, kind, instrument.symbol)[-1], number)
                if last not in seen:
                    return False
        return num_bars(events) >= num_bars(taped)

    return is_enough


def num_bars(events: Sequence[MarketEvent]) -> int:
    return sum(isinstance(event, Bar) for event in events)


def require_recorded_books(events: Sequence[MarketEvent], books: RecordedBooks) -> int:
    """Hold every book in `events` to the recorded one of its number; return how many there are."""
    found = [event for event in events if isinstance(event, BookDelta)]
    for event in found:
        assert event.is_snapshot
        for seen, kept in zip(
            (event.bids_L2, event.asks_L2), books.levels[event.symbol, event.last_id], strict=True
        ):
            assert np.array_equal(seen[:LEVELS], kept[:LEVELS])
    return len(found)


def test_the_client_receives_every_recorded_trade_once_in_order(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    exchange, symbols = Exchange(stretch), [i.symbol for i in INSTRUMENTS]
    recorded = {s: [facts(trade) for trade in of_kind(taped, Trade, s)] for s in symbols}
    seen: dict[str, list[Any]] = {symbol: [] for symbol in symbols}

    async def read(venue: Any, symbol: str) -> None:
        while len(seen[symbol]) < len(recorded[symbol]):
            seen[symbol] += await venue.watch_trades(symbol)

    async def run() -> None:
        async with opened(exchange):
            venue = open_at(exchange.url)
            try:
                async with asyncio.timeout(10), asyncio.TaskGroup() as readers:
                    for symbol in symbols:
                        readers.create_task(read(venue, symbol))
                    await exchange.wait_for(*streams("trade"))
                    await exchange.play()
            finally:
                await venue.close()

    asyncio.run(run())

    for symbol in symbols:
        assert len(recorded[symbol]) > 100
        assert [
            (symbol, t["timestamp"] * 1_000_000, int(t["id"]), t["price"], t["amount"],
             t["side"] == "buy")
            for t in seen[symbol]
        ] == recorded[symbol]  # fmt: skip


def test_the_changes_at_the_clients_message_handler_make_the_recorded_book(
    stretch: Recording, taped: list[MarketEvent], books: RecordedBooks
) -> None:
    exchange, eth = Exchange(stretch), INSTRUMENTS[0]
    recorded = of_kind(taped, BookDelta, eth.symbol)
    messages: list[dict[str, Any]] = []

    async def run() -> Any:
        async with opened(exchange):
            venue = open_at(exchange.url)
            handle = venue.handle_order_book

            def listen(client: Any, message: dict[str, Any]) -> None:
                messages.append(message)
                handle(client, message)

            venue.handle_order_book = listen
            try:
                async with asyncio.timeout(10):
                    snapshot = (await venue.watch_order_book(eth.symbol)).copy()
                    await exchange.play()
                    while len(messages) < len(recorded):
                        await asyncio.sleep(0.01)
            finally:
                await venue.close()
            return snapshot

    snapshot = asyncio.run(run())

    book = Book(eth)
    bids, asks = (np.array(snapshot[side], np.float64) for side in ("bids", "asks"))
    first_id = snapshot["nonce"]
    book.apply(BookDelta(eth.symbol, FROM_NS, 0, first_id, first_id, True, bids, asks))
    for message, delta in zip(messages, recorded, strict=True):
        heard = _delta(eth.symbol, message)
        assert (heard.ts_ns, heard.first_id, heard.last_id) == (
            delta.ts_ns, delta.first_id, delta.last_id,
        )  # fmt: skip
        assert np.array_equal(heard.bids_L2, delta.bids_L2)
        assert np.array_equal(heard.asks_L2, delta.asks_L2)
        assert book.apply(heard) is BookChange.APPLIED
        for seen, kept in zip(
            book.levels(900), books.levels[eth.symbol, book.last_id], strict=True
        ):
            assert np.array_equal(seen, kept[:900])


def _delta(symbol: str, message: dict[str, Any]) -> BookDelta:
    bids, asks = (np.array(message[side], np.float64).reshape(-1, 2) for side in ("b", "a"))
    ids = int(message["U"]), int(message["u"])
    return BookDelta(symbol, message["E"] * 1_000_000, 0, *ids, False, bids, asks)


def test_live_and_tape_give_the_same_trades_and_bars_and_books_of_the_same_numbers(
    stretch: Recording, taped: list[MarketEvent], books: RecordedBooks
) -> None:
    live, events = lived(stretch, has_all(taped))

    for instrument in INSTRUMENTS:
        symbol = instrument.symbol
        recorded = [facts(trade) for trade in of_kind(taped, Trade, symbol)]
        assert [facts(trade) for trade in of_kind(events, Trade, symbol)] == recorded
        assert of_kind(events, Bar, symbol) == of_kind(taped, Bar, symbol)
        assert of_kind(events, FeedGap, symbol) == []
        # What differs: ccxt's book is whole and shows several changes at once, so Live's are
        # snapshots, a part of the tape's changes, each with the time and number of its newest.
        stamps = {(d.ts_ns, d.last_id) for d in of_kind(taped, BookDelta, symbol)}
        seen = [(d.ts_ns, d.last_id) for d in of_kind(events, BookDelta, symbol)]
        assert seen == sorted(set(seen))
        assert set(seen) <= stamps
    assert require_recorded_books(events, books) >= 20
    # What else differs: the first book of a symbol comes from REST, which has no exchange time.
    assert [code for code, _ in live.quarantine] == ["InvalidEvent"] * len(INSTRUMENTS)
    assert all("NoneType" in message for _, message in live.quarantine)


def test_a_book_with_a_level_too_many_is_not_taken_for_the_recorded_one(
    stretch: Recording, taped: list[MarketEvent], books: RecordedBooks
) -> None:
    target = f"{INSTRUMENTS[0].venue_symbol.lower()}@depth@100ms"
    wrong = [["2500.00000000", "1.00000000"], ["2683.61000000", "0.12345678"]]
    fault = WrongType(target=target, first=40, field="b", value=wrong)

    _, events = lived(stretch, has_all(taped), faults=[fault])

    with pytest.raises(AssertionError):
        require_recorded_books(events, books)


def test_live_and_tape_have_the_same_history(recordings: Path, stretch: Recording) -> None:
    tape = Tape(recordings, INSTRUMENTS, from_ns=FROM_NS, until_ns=UNTIL_NS)
    exchange = Exchange(stretch)

    async def histories() -> list[tuple[Any, Any]]:
        async with opened(exchange):
            live = Live("b", INSTRUMENTS, history_bars=1, exchange=lambda: open_at(exchange.url))
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


def test_a_lost_trade_is_told_and_the_rest_is_the_tapes(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    eth = INSTRUMENTS[0]
    fault = Drop(target=f"{eth.venue_symbol.lower()}@trade", first=30)

    _, events = lived(stretch, has_all(taped), faults=[fault])

    recorded = of_kind(taped, Trade, eth.symbol)
    gaps = of_kind(events, FeedGap, eth.symbol)
    seen = [facts(trade) for trade in of_kind(events, Trade, eth.symbol)]
    assert seen == [facts(trade) for trade in [*recorded[:30], *recorded[31:]]]
    assert [(gap.from_ns, gap.ts_ns) for gap in gaps] == [(recorded[29].ts_ns, recorded[31].ts_ns)]


def test_a_sequence_gap_is_told_and_the_book_is_the_recorded_one_again(
    stretch: Recording, taped: list[MarketEvent], books: RecordedBooks
) -> None:
    eth = INSTRUMENTS[0]
    fault = Drop(target=f"{eth.venue_symbol.lower()}@depth@100ms", first=80)

    _, events = lived(
        stretch,
        has_all(taped),
        faults=[fault],
        has_recovered=lambda exchange: exchange.requests["/api/v3/depth"] > len(INSTRUMENTS),
    )

    assert [gap.reason for gap in of_kind(events, FeedGap, eth.symbol)] == ["ChecksumError"]
    assert require_recorded_books(events, books) > 0


def test_a_closed_connection_is_told_and_the_trades_go_on(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    eth = INSTRUMENTS[0]
    stream = f"{eth.venue_symbol.lower()}@trade"

    _, events = lived(
        stretch,
        has_all(taped),
        faults=[Close(target=stream, first=100)],
        has_recovered=lambda exchange: exchange.num_subscriptions[stream] > 1,
    )

    recorded = {trade.trade_id: facts(trade) for trade in of_kind(taped, Trade, eth.symbol)}
    trades = of_kind(events, Trade, eth.symbol)
    missing = set(recorded) - {trade.trade_id for trade in trades}
    reasons = [gap.reason for gap in of_kind(events, FeedGap, eth.symbol)]
    assert [facts(trade) for trade in trades] == [
        fact for id, fact in recorded.items() if id not in missing
    ]
    assert missing == set(range(min(missing), max(missing) + 1))  # those sent meanwhile
    assert reasons == [f"trades {min(missing)} to {max(missing)} did not arrive"]


def test_what_has_the_wrong_type_is_quarantined(
    stretch: Recording, taped: list[MarketEvent]
) -> None:
    eth = INSTRUMENTS[0]
    target = f"{eth.venue_symbol.lower()}@trade"
    fault = WrongType(target=target, first=30, field="p", value={"not": "a price"})

    live, events = lived(stretch, has_all(taped), faults=[fault])

    recorded = of_kind(taped, Trade, eth.symbol)
    seen = [facts(trade) for trade in of_kind(events, Trade, eth.symbol)]
    assert seen == [facts(trade) for trade in [*recorded[:30], *recorded[31:]]]
    assert live.num_quarantined == 1 + len(INSTRUMENTS)  # and the first book of each symbol
