"""Each fault the exchange is told to have is seen by the real client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import ccxt
import pytest

from tests.exchange.columns import MS, SECOND
from tests.exchange.conftest import FROM_NS, client_of, until, watching
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
from tests.exchange.server import STREAMS, Exchange

ETH = "ETH/USDT"
TRADES, DEPTH = "ethusdt@trade", "ethusdt@depth@100ms"


def recorded_ids(stretch: Recording, count: int) -> list[int]:
    """Return the numbers of the first trades of the stretch."""
    trades = stretch.trades["ETHUSDT"]
    return [trades.id_at(trades.num_before + i) for i in range(count)]


def flat(seen: Sequence[Any]) -> list[Any]:
    """Return the trades of all answers, and the error that ended them, in order."""
    lists = [item if isinstance(item, list) else [item] for item in seen]
    return [trade for trades in lists for trade in trades]


def watched_trades(stretch: Recording, faults: Sequence[Fault], count: int) -> list[Any]:
    """Return the first `count` trades the client sees, and what ended them, if something did."""
    exchange = Exchange(stretch, faults=faults)

    async def run() -> list[Any]:
        async with (
            client_of(exchange) as venue,
            watching(exchange, TRADES, lambda: venue.watch_trades(ETH)) as seen,
        ):
            await exchange.play()
            await until(lambda: len(flat(seen)) >= count or isinstance(seen[-1], Exception))
            return flat(seen)[:count]

    return asyncio.run(run())


def ids_of(trades: Sequence[Any]) -> list[int]:
    """Return the numbers of trades."""
    return [int(trade["id"]) for trade in trades]


def test_without_a_fault_the_trades_are_the_recorded_ones(stretch: Recording) -> None:
    assert ids_of(watched_trades(stretch, [], 20)) == recorded_ids(stretch, 20)


def test_a_dropped_trade_does_not_arrive(stretch: Recording) -> None:
    fault = Drop(target=TRADES, first=5, count=2)

    seen = ids_of(watched_trades(stretch, [fault], 18))

    ids = recorded_ids(stretch, 20)
    assert seen == [*ids[:5], *ids[7:]]


def test_a_fault_begins_at_its_time(stretch: Recording) -> None:
    after_ns = FROM_NS + 2 * SECOND
    fault = Drop(target=TRADES, after_ns=after_ns)

    seen = ids_of(watched_trades(stretch, [fault], 40))

    trades = stretch.trades["ETHUSDT"]
    place = trades.first_since(after_ns, len(trades.ts_N))
    assert set(recorded_ids(stretch, 41)) - set(seen) == {trades.id_at(place)}


def test_a_duplicate_arrives_twice(stretch: Recording) -> None:
    seen = ids_of(watched_trades(stretch, [Duplicate(target=TRADES, first=3)], 20))

    ids = recorded_ids(stretch, 19)
    assert seen == [*ids[:4], *ids[3:]]


def test_a_reordered_trade_arrives_after_the_next(stretch: Recording) -> None:
    seen = ids_of(watched_trades(stretch, [Reorder(target=TRADES, first=3)], 20))

    ids = recorded_ids(stretch, 20)
    assert seen == [*ids[:3], ids[4], ids[3], *ids[5:]]


def test_a_late_trade_holds_up_those_behind_it(stretch: Recording) -> None:
    exchange = Exchange(stretch, faults=[Delay(target=TRADES, first=3, by_ns=10 * SECOND)])
    ids = recorded_ids(stretch, 20)
    trades = stretch.trades["ETHUSDT"]
    due_ns = trades.ts_at(trades.num_before + 3) + 10 * SECOND

    async def run() -> tuple[list[int], list[int]]:
        async with (
            client_of(exchange) as venue,
            watching(exchange, TRADES, lambda: venue.watch_trades(ETH)) as seen,
        ):
            await exchange.play(due_ns - 1)
            await until(lambda: sum(map(len, seen)) >= 3)
            before = ids_of(flat(seen))
            await exchange.play(due_ns)
            await until(lambda: sum(map(len, seen)) >= 20)
            return before, ids_of(flat(seen))

    before, after = asyncio.run(run())

    assert before == ids[:3]
    assert after[:20] == ids


def test_a_wrong_type_reaches_the_client(stretch: Recording) -> None:
    fault = WrongType(target=TRADES, first=2, field="p", value={"not": "a price"})

    seen = watched_trades(stretch, [fault], 4)

    assert [trade["price"] is None for trade in seen] == [False, False, True, False]


def test_a_price_the_client_cannot_read_silences_its_open_connection(stretch: Recording) -> None:
    fault = WrongType(target=TRADES, first=2, field="p", value="abc")
    exchange = Exchange(stretch, faults=[fault])

    async def run() -> list[int]:
        async with (
            client_of(exchange) as venue,
            watching(exchange, TRADES, lambda: venue.watch_trades(ETH)) as seen,
        ):
            await exchange.play()
            await asyncio.sleep(0.3)
            assert not any(client.closed() for client in venue.clients.values())
            return ids_of(flat(seen))

    assert asyncio.run(run()) == recorded_ids(stretch, 2)


def test_a_hanging_stream_is_silent_on_an_open_connection(stretch: Recording) -> None:
    exchange = Exchange(stretch, faults=[Hang(target=TRADES, first=4)])

    async def run() -> tuple[list[int], list[int]]:
        async with client_of(exchange) as venue:
            async with watching(exchange, TRADES, lambda: venue.watch_trades(ETH)) as seen:
                await exchange.play(FROM_NS + 15 * SECOND)
                await asyncio.sleep(0.2)
                before = ids_of(flat(seen))
                assert not any(client.closed() for client in venue.clients.values())
            await venue.un_watch_trades(ETH)
            async with watching(exchange, TRADES, lambda: venue.watch_trades(ETH)) as seen:
                await exchange.play()
                await until(lambda: bool(seen))
                return before, ids_of(seen[0])

    before, after = asyncio.run(run())

    assert before == recorded_ids(stretch, 4)
    assert after[0] > before[-1] + 1


@pytest.mark.parametrize("kind", [HalfClose, Close])
def test_a_lost_connection_is_a_network_error(stretch: Recording, kind: type[Fault]) -> None:
    seen = watched_trades(stretch, [kind(target=TRADES, first=3)], 20)

    assert ids_of(seen[:-1]) == recorded_ids(stretch, 3)
    assert isinstance(seen[-1], ccxt.NetworkError)


def test_a_dropped_change_is_a_sequence_gap_of_the_book(stretch: Recording) -> None:
    exchange = Exchange(stretch, faults=[Drop(target=DEPTH, first=50)])

    async def run() -> Any:
        async with (
            client_of(exchange) as venue,
            watching(exchange, DEPTH, lambda: venue.watch_order_book(ETH)) as seen,
        ):
            await until(lambda: bool(seen))  # the snapshot is in
            await exchange.play()
            await until(lambda: isinstance(seen[-1], Exception))
            return seen[-1]

    assert isinstance(asyncio.run(run()), ccxt.ChecksumError)


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, ccxt.DDoSProtection), (418, ccxt.DDoSProtection), (503, ccxt.ExchangeNotAvailable)],
)
def test_a_refused_request_says_when_to_come_back(
    stretch: Recording, status: int, error: type[Exception]
) -> None:
    fault = Refuse(target="/api/v3/time", status=status, first=1, retry_after_s=7)

    async def run() -> tuple[str, int]:
        async with client_of(Exchange(stretch, faults=[fault])) as venue:
            await venue.fetch_time()
            with pytest.raises(error):
                await venue.fetch_time()
            wait_s = venue.last_response_headers["Retry-After"]
            return wait_s, await venue.fetch_time()

    assert asyncio.run(run()) == ("7", FROM_NS // MS)


def test_a_refused_websocket_says_when_to_come_back(stretch: Recording) -> None:
    fault = Refuse(target=STREAMS, status=429, retry_after_s=30)

    async def run() -> float:
        async with client_of(Exchange(stretch, faults=[fault])) as venue:
            with pytest.raises(ccxt.NetworkError, match="429"):
                await venue.watch_trades(ETH)
            (state,) = venue.ws_dial_backoff.values()
            return float(state["until"]) / 1000 - time.time()

    assert 25 < asyncio.run(run()) <= 30


def test_a_stalled_request_times_out(stretch: Recording) -> None:
    async def run() -> int:
        exchange = Exchange(stretch, faults=[Stall(target="/api/v3/time")])
        async with client_of(exchange) as venue:
            venue.timeout = 200  # ms
            with pytest.raises(ccxt.RequestTimeout):
                await venue.fetch_time()
            return int(await venue.fetch_time())

    assert asyncio.run(run()) == FROM_NS // MS


def test_a_skewed_clock_shows_in_the_time_and_in_the_messages(stretch: Recording) -> None:
    skew = ClockSkew(by_ms=-3_000, after_ns=FROM_NS + SECOND)
    exchange = Exchange(stretch, faults=[skew])

    async def run() -> tuple[list[int], int, int]:
        async with (
            client_of(exchange) as venue,
            watching(exchange, DEPTH, lambda: venue.watch_order_book(ETH)) as seen,
        ):
            times = [await venue.fetch_time()]
            await until(lambda: bool(seen))
            await exchange.play(FROM_NS + 2 * SECOND)
            last_id = exchange.last_id("ETHUSDT")
            await until(lambda: seen[-1]["nonce"] == last_id)
            return [*times, await venue.fetch_time()], seen[-1]["timestamp"], last_id

    (before, after), stamped, last_id = asyncio.run(run())

    depth = stretch.depths["ETHUSDT"]
    (row,) = [i for i in range(len(depth.ts_N)) if depth.ids(i)[1] == last_id]
    assert (before, after) == (FROM_NS // MS, FROM_NS // MS + 2_000 - 3_000)
    assert stamped == depth.ts_N[row] // MS - 3_000
