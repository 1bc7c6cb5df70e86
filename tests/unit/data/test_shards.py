"""However many shards lead a market, its instants, windows, inputs and quotes are the same."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from alphapulse.config import Feed
from alphapulse.data.feed import PointFeed, reference_of
from alphapulse.data.shard import Shard
from alphapulse.data.shards import Shards, dealt
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import DecisionPoint
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import SECOND_NS, Instrument, Timeframe
from experiments.benchmarks.renamed import side_by_side

NUM_INSTANTS = 20
LATENCY_NS = 100_000_000


class Market(NamedTuple):
    folder: Path
    instruments: tuple[Instrument, ...]

    def feed(self, num_shards: int, *, count: int = 4, **more: Any) -> PointFeed:
        """Return the feed of the first `count` symbols, led by so many shards."""
        watched = self.instruments[:count]
        by_symbol = {instrument.symbol: instrument for instrument in watched}
        shards = []
        for symbols in dealt(list(by_symbol), num_shards):
            own = [by_symbol[symbol] for symbol in symbols]
            shards.append(Shard(Tape(self.folder, own, **more), own, Feed()))
        return PointFeed(Shards(shards, list(by_symbol)), list(by_symbol))


@pytest.fixture(scope="module")
def market(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Market:
    folder = tmp_path_factory.mktemp("side-by-side")
    return Market(folder, side_by_side(recordings.parent, folder, count=4))


async def walk(
    feed: PointFeed, *, skip_to: int | None = None, limit: int = NUM_INSTANTS
) -> list[Any]:
    """Return everything that is the same in any process of the next points, with quotes."""
    await feed.open()
    if skip_to is not None:
        await feed.skip_to(skip_to)
    seen = []
    while len(seen) < limit and (point := await feed.advance()) is not None:
        quotes = [await feed.quote(s, point.event_ns + LATENCY_NS) for s in point.inputs]
        seen.append((facts(point), [dataclasses.asdict(q) for q in quotes if q is not None]))
    return seen


def facts(point: DecisionPoint) -> dict[str, Any]:
    inputs = {s: i.content_hash for s, i in point.inputs.items() if isinstance(i, ModelInput)}
    plain = {
        field.name: getattr(point, field.name)
        for field in dataclasses.fields(point)
        if field.name not in ("inputs", "packages", "rows")
    }
    rows = [(row.symbol, row.stream, row.ts_ns, row.values_C.tobytes()) for row in point.rows]
    return plain | {"inputs": inputs, "packages": list(point.packages), "rows": rows}


@pytest.fixture(scope="module")
def alone(market: Market) -> list[Any]:
    return asyncio.run(walk(market.feed(1)))


def test_symbols_are_dealt_in_turn_and_no_shard_is_empty() -> None:
    assert dealt(("a", "b", "c", "d", "e"), 2) == [("a", "c", "e"), ("b", "d")]
    assert dealt(("a", "b"), 5) == [("a",), ("b",)]


def test_reference_is_the_second_symbol_and_beside_it_the_first() -> None:
    symbols = ("ETH", "BTC", "SOL", "XRP")

    assert [reference_of(s, symbols) for s in symbols] == ["BTC", "ETH", "BTC", "BTC"]


def test_every_symbol_is_decided_about_at_every_instant(alone: list[Any], market: Market) -> None:
    symbols = [instrument.symbol for instrument in market.instruments]

    assert len(alone) == NUM_INSTANTS
    for point, quotes in alone:
        assert list(point["inputs"]) == list(point["marks"]) == point["packages"] == symbols
        assert [quote["symbol"] for quote in quotes] == symbols


@pytest.mark.parametrize("num_shards", [2, 3, 4])
def test_shards_give_the_points_and_quotes_of_one(
    num_shards: int, alone: list[Any], market: Market
) -> None:
    np.testing.assert_equal(asyncio.run(walk(market.feed(num_shards))), alone)


def test_symbols_beside_them_do_not_change_the_first_two(alone: list[Any], market: Market) -> None:
    pair = {p["event_ns"]: p["inputs"] for p, _ in asyncio.run(walk(market.feed(2, count=2)))}

    shared = [point for point, _ in alone if point["event_ns"] in pair]
    assert len(shared) >= NUM_INSTANTS - 2, "the market of two begins a second earlier"
    for point in shared:
        first_two = {s: point["inputs"][s] for s in ("ETH/USDT", "BTC/USDT")}
        assert pair[point["event_ns"]] == first_two


def test_shards_that_skip_go_on_as_if_nothing_had_happened(
    alone: list[Any], market: Market
) -> None:
    resumed_ns = alone[7][0]["event_ns"]

    resumed = asyncio.run(walk(market.feed(2), skip_to=resumed_ns, limit=NUM_INSTANTS - 8))

    np.testing.assert_equal(resumed, alone[8:])


def test_candles_alone_give_the_same_points_in_shards(market: Market) -> None:
    from_ns = int(pd.Timestamp("2024-08-08T12:00Z").value)
    until_ns = from_ns + 6 * Timeframe.M1.ns
    candles = {"with_ticks": False, "from_ns": from_ns, "until_ns": until_ns}

    one, two = (asyncio.run(walk(market.feed(n, **candles))) for n in (1, 2))

    assert [point["event_ns"] - from_ns for point, _ in one] == [
        i * Timeframe.M1.ns for i in range(1, 7)
    ]
    np.testing.assert_equal(two, one)


def test_source_ends_at_the_same_instant_in_shards(market: Market) -> None:
    until_ns = Tape(market.folder, market.instruments[:2]).first_ns + 5 * SECOND_NS

    one, two = (
        asyncio.run(walk(market.feed(n, count=2, until_ns=until_ns), limit=100)) for n in (1, 2)
    )

    assert 3 <= len(one) <= 5
    np.testing.assert_equal([point for point, _ in two], [point for point, _ in one])


def test_views_of_shards_are_those_of_one_feed(market: Market) -> None:
    async def views(num_shards: int) -> list[Any]:
        feed = market.feed(num_shards)
        await feed.open()
        for _ in range(5):
            await feed.advance()
        names = ("snapshot", "counters")
        shared = [await feed.view(name) for name in names]
        book = await feed.view("book", symbol="BTC/USDT")
        return [*shared, book, await feed.view("candles", symbol="BTC/USDT", timeframe="1s",
                                               count=9)]  # fmt: skip

    one, two = (asyncio.run(views(n)) for n in (1, 2))

    assert two == one
    assert list(two[0]["symbols"]) == [instrument.symbol for instrument in market.instruments]


def test_quote_of_a_time_a_shard_has_passed_is_refused(market: Market) -> None:
    async def late() -> None:
        feed = market.feed(2)
        await feed.open()
        point = await feed.advance()
        assert point is not None
        await feed.advance()
        assert await feed.has_passed("BTC/USDT", point.event_ns + LATENCY_NS)
        await feed.quote("BTC/USDT", point.event_ns + LATENCY_NS)

    with pytest.raises(Unavailable, match=r"quote of BTC/USDT .* expected a time after"):
        asyncio.run(late())
