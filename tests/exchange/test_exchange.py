"""The exchange says what the recording says, to the real client, as of the played moment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.exchange.columns import LENGTHS, MINUTE, MS, SECOND
from tests.exchange.conftest import FROM_NS, MIDNIGHT, UNTIL_NS, client_of, until, watching
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

ETH = "ETH/USDT"
BY_NUMBER = {"fetchTradesMethod": "publicGetHistoricalTrades"}


def recorded(recordings: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file with times in nanoseconds."""
    table = pq.read_table(recordings / f"{name}.parquet")
    ts = table["ts"].to_numpy().astype(np.int64).tolist()
    return [row | {"ts": ns} for row, ns in zip(table.to_pylist(), ts, strict=True)]


def test_time_stands_still_until_it_is_played(stretch: Recording) -> None:
    async def times() -> list[int]:
        exchange = Exchange(stretch)
        async with client_of(exchange) as venue:
            seen = [await venue.fetch_time(), await venue.fetch_time()]
            await exchange.play(FROM_NS + 5 * SECOND)
            return [*seen, await venue.fetch_time()]

    assert asyncio.run(times()) == [FROM_NS // MS, FROM_NS // MS, FROM_NS // MS + 5_000]


def test_markets_have_both_symbols_and_their_filters(stretch: Recording) -> None:
    async def markets() -> Any:
        async with client_of(Exchange(stretch)) as venue:
            return await venue.load_markets()

    found = asyncio.run(markets())

    assert sorted(found) == ["BTC/USDT", ETH]
    assert found[ETH]["precision"]["price"] == 0.01
    assert found[ETH]["precision"]["amount"] == 0.0001
    assert found["BTC/USDT"]["precision"]["amount"] == 0.00001
    assert found[ETH]["limits"]["cost"]["min"] == 5


@pytest.mark.parametrize("interval", ["1s", "1m", "1h", "1d"])
def test_closed_candles_are_the_recorded_ones_in_pages(
    recordings: Path, stretch: Recording, interval: str
) -> None:
    now_ns, length = FROM_NS + 15 * SECOND, LENGTHS[interval]
    rows = recorded(recordings, f"candles-{interval}-ETHUSDT")
    closed = [row for row in rows if row["ts"] + length <= now_ns][-30:]
    names = ("open", "high", "low", "close", "volume")
    expected = [[row["ts"] // MS, *(round(row[name], 8) for name in names)] for row in closed]

    async def pages() -> list[list[float]]:
        exchange = Exchange(stretch)
        async with client_of(exchange) as venue:
            await exchange.play(now_ns)
            since, until_ms = expected[0][0], expected[-1][0]
            first = await venue.fetch_ohlcv(ETH, interval, since=since, limit=20)
            rest = await venue.fetch_ohlcv(
                ETH, interval, since=first[-1][0] + 1, limit=20, params={"until": until_ms}
            )
            newest = await venue.fetch_ohlcv(ETH, interval, limit=2)
            assert newest[0] == expected[-1]  # and the one that forms
            assert newest[1][0] == (now_ns - now_ns % length) // MS
            return [*first, *rest]

    assert asyncio.run(pages()) == expected


def test_a_forming_candle_ends_as_the_published_one(whole: Recording) -> None:
    ends = [MIDNIGHT + minute * MINUTE for minute in range(-4, 5)]
    asked = [(end, "1m") for end in ends] + [(MIDNIGHT, "1h"), (MIDNIGHT, "1d")]

    for symbol in whole.symbols:
        for end, interval in asked:
            num_played = whole.trades[symbol].first_since(end, len(whole.trades[symbol].ts_N))
            formed = whole.forming(symbol, interval, end - 1, num_played)
            published = whole.closed(symbol, interval, end - LENGTHS[interval], end)

            assert formed is not None
            assert published is not None
            assert formed.ohlc == published.ohlc
            assert formed.volume == pytest.approx(published.volume, rel=1e-9)


def test_a_candle_the_trades_do_not_cover_from_its_open_is_not_invented(whole: Recording) -> None:
    half_past = MIDNIGHT - 330 * SECOND  # 23:54:30; the recording begins at 23:54:15

    assert whole.forming("ETHUSDT", "1m", half_past, 200) is None
    assert whole.forming("ETHUSDT", "1h", half_past, 200) is None


def test_trades_are_found_by_number_and_end_at_the_played_moment(
    recordings: Path, stretch: Recording
) -> None:
    now_ns = FROM_NS + 10 * SECOND
    trades = [row for row in recorded(recordings, "trades-ETHUSDT") if row["ts"] <= now_ns]
    expected = [(str(row["trade_id"]), row["price"], row["size"], row["side"]) for row in trades]

    async def found() -> list[Any]:
        exchange = Exchange(stretch)
        async with client_of(exchange) as venue:
            venue.apiKey = "any"  # ccxt asks for a key here, Binance does not
            await exchange.play(now_ns)
            by_number = {**BY_NUMBER, "fromId": trades[-150]["trade_id"]}
            older = await venue.fetch_trades(ETH, limit=100, params=by_number)
            newest = await venue.fetch_trades(
                ETH, limit=50, params={"fetchTradesMethod": "publicGetTrades"}
            )
            return [*older, *newest]

    seen = [(t["id"], t["price"], t["amount"], t["side"]) for t in asyncio.run(found())]
    assert seen == expected[-150:]


def test_aggregates_hold_every_trade_once(stretch: Recording) -> None:
    async def found() -> list[Any]:
        exchange = Exchange(stretch)
        async with client_of(exchange) as venue:
            await exchange.play()
            return await venue.fetch_trades(ETH, since=FROM_NS // MS, limit=1000)

    rows = [trade["info"] for trade in asyncio.run(found())]

    trades = stretch.trades["ETHUSDT"]
    places = range(trades.num_before, trades.num_before + trades.num_lap)
    ids = [id for row in rows for id in range(int(row["f"]), int(row["l"]) + 1)]
    assert len(rows) < len(ids)
    assert ids == [trades.id_at(place) for place in places]
    assert sum(float(row["q"]) for row in rows) == pytest.approx(
        sum(trades.size_at(place) for place in places)
    )


def test_the_snapshot_is_the_book_of_the_played_moment(
    recordings: Path, stretch: Recording
) -> None:
    table = pq.read_table(recordings / "book-ETHUSDT.parquet")
    ts = table["ts"].to_numpy().astype(np.int64)
    row = int(np.searchsorted(ts, FROM_NS + 10 * SECOND))  # rebuilt elsewhere, 50 levels a side
    kept = table.slice(row, 1).to_pylist()[0]

    async def snapshot() -> Any:
        exchange = Exchange(stretch)
        async with client_of(exchange) as venue:
            await exchange.play(int(ts[row]))
            return await venue.fetch_order_book(ETH, 50)

    book = asyncio.run(snapshot())

    for side in ("bid", "ask"):
        levels = book[f"{side}s"]
        assert [level[0] for level in levels] == [kept[f"{side}_px_{i}"] for i in range(50)]
        assert [level[1] for level in levels] == [kept[f"{side}_sz_{i}"] for i in range(50)]


def test_each_second_streams_its_candle_as_recorded(stretch: Recording) -> None:
    exchange = Exchange(stretch)

    async def run() -> list[Any]:
        async with (
            client_of(exchange) as venue,
            watching(exchange, "ethusdt@kline_1s", lambda: venue.watch_ohlcv(ETH, "1s")) as seen,
        ):
            await exchange.play(FROM_NS + 5 * SECOND)
            await until(lambda: sum(map(len, seen)) >= 6)
            return [candle for candles in seen for candle in candles]

    rows = asyncio.run(run())

    kept = [
        stretch.closed("ETHUSDT", "1s", FROM_NS + second * SECOND, UNTIL_NS)
        for second in range(-1, 5)
    ]
    assert rows == [[c.open_ns // MS, *c.ohlc, round(c.volume, 8)] for c in kept if c is not None]


def test_a_combined_stream_names_the_stream_of_each_message(stretch: Recording) -> None:
    names = ("ethusdt@aggTrade", "btcusdt@depth@100ms")

    async def listen() -> list[Any]:
        exchange, seen = Exchange(stretch), []
        async with opened(exchange), aiohttp.ClientSession() as session:
            address = f"{exchange.url}/stream?streams={'/'.join(names)}"
            async with session.ws_connect(address) as socket:
                await exchange.wait_for(*names)
                await exchange.play(FROM_NS + 2 * SECOND)
                while {message["stream"] for message in seen} != set(names):
                    seen.append(await socket.receive_json(timeout=5))
        return seen

    kinds = {message["stream"]: message["data"]["e"] for message in asyncio.run(listen())}
    assert kinds == dict(zip(names, ("aggTrade", "depthUpdate"), strict=True))


def test_what_is_not_played_is_refused(stretch: Recording) -> None:
    async def ask() -> None:
        async with client_of(Exchange(stretch)) as venue:
            with pytest.raises(ccxt.BadSymbol):
                await venue.public_get_depth({"symbol": "XRPUSDT"})
            with pytest.raises(ccxt.BaseError, match="Invalid interval"):
                await venue.fetch_ohlcv(ETH, "5m")
            with pytest.raises(ccxt.BaseError, match="ethusdt@kline_5m"):
                async with asyncio.timeout(5):
                    await venue.watch_ohlcv(ETH, "5m")

    asyncio.run(ask())


def test_the_play_keeps_the_pace_it_is_given(stretch: Recording) -> None:
    async def run() -> float:
        exchange = Exchange(stretch)
        begun = asyncio.get_running_loop().time()
        await exchange.run(speed=40)
        assert exchange.now_ns == stretch.last_ns
        return asyncio.get_running_loop().time() - begun

    assert 0.45 < asyncio.run(run()) < 3  # 20 s at 40x


def test_each_lap_is_later_and_higher_by_a_whole_lap_with_a_gap_at_the_seam(
    stretch: Recording,
) -> None:
    exchange, messages = Exchange(stretch, is_looping=True), []
    num_lap = stretch.trades["ETHUSDT"].num_lap

    async def watch(session: aiohttp.ClientSession) -> None:
        address = f"{exchange.url}/stream?streams=ethusdt@trade/ethusdt@depth@100ms"
        async with session.ws_connect(address) as socket:
            await exchange.wait_for("ethusdt@trade")
            await exchange.play(FROM_NS + 2 * stretch.lap_ns + 30 * SECOND)
            while sum(m["e"] == "trade" for m in messages) < 3 * num_lap:
                messages.append((await socket.receive_json(timeout=5))["data"])

    async def run() -> Any:
        async with opened(exchange), aiohttp.ClientSession() as session:
            await watch(session)
            address = f"{exchange.url}/api/v3/historicalTrades?symbol=ETHUSDT&limit=1000&fromId="
            first_id = next(m["t"] for m in messages if m["e"] == "trade")
            async with session.get(f"{address}{first_id}") as answer:
                return await answer.json()

    rest = asyncio.run(run())

    trades = [message for message in messages if message["e"] == "trade"]
    ids, times = ([m[key] for m in trades[: 3 * num_lap]] for key in ("t", "T"))
    steps = np.diff(ids)
    assert steps[num_lap - 1] == steps[2 * num_lap - 1] == 2
    assert sorted(steps)[:-2] == [1] * (3 * num_lap - 3)
    assert np.all(np.array(times[num_lap : 2 * num_lap]) == np.array(times[:num_lap]) + 60_000)
    assert [row["id"] for row in rest[: len(ids)]] == ids[: len(rest)]
    changes = [message for message in messages if message["e"] == "depthUpdate"]
    gaps = [b["U"] - a["u"] for a, b in pairwise(changes)]
    assert sorted(gaps)[-2:] == [2, 2]
    assert sorted(gaps)[:-2] == [1] * (len(gaps) - 2)


def test_people_can_start_it(recordings: Path) -> None:
    command = [sys.executable, "-m", "tests.exchange", "--port", "0", "--recording"]

    async def start() -> tuple[Any, int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *command, str(recordings), stdout=asyncio.subprocess.PIPE, env=os.environ
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
            address = line.split()[-1]
            answer = await asyncio.to_thread(_get, f"{address}/api/v3/depth?symbol=BTCUSDT&limit=5")
            process.send_signal(signal.SIGINT)
            await process.communicate()
        return answer, process.returncode, line

    answer, code, line = asyncio.run(start())

    assert len(answer["bids"]) == 5
    assert "2024-08-08T23:54:15" in line
    assert code == 0


def _get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)
