"""Bars made of recorded trades equal what the venue published, on both ways bars are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.data.trade_bars import bars_of_trades
from alphapulse.domain.market import (
    LOTS,
    SECOND_NS,
    BarFlag,
    Floats,
    Instrument,
    Ints,
    Timeframe,
    Trade,
    Trades,
)

INSTRUMENTS = Market().instruments
NAMES = tuple(instrument.venue_symbol for instrument in INSTRUMENTS)
FIRST_NS, END_NS = (  # the window, whole seconds: 2024-08-08 23:54:16 - 2024-08-09 00:05:05
    1_723_161_256 * SECOND_NS,
    1_723_161_905 * SECOND_NS,
)
FIRST_MINUTE_NS, NUM_MINUTES = FIRST_NS + 44 * SECOND_NS, 10  # 23:55 - 00:04
OHLCV = ("open", "high", "low", "close", "volume")

# open_ns (T,), rows (T, 5) of one symbol and timeframe
Made = tuple[Ints, Floats]
Maker = Callable[[str, Timeframe], Made]


@pytest.fixture(scope="module")
def through_the_cache(recordings: Path) -> Maker:
    """Return the closed bars the cache holds at the last instant of the window."""

    async def replay() -> MarketFeed:
        provider = Tape(recordings, INSTRUMENTS)
        feed = MarketFeed(provider, INSTRUMENTS, Feed(cache_bars=700))  # all seconds at once
        await feed.open()
        await feed.skip_to(END_NS)
        return feed

    view = asyncio.run(replay()).cache.view([i.symbol for i in INSTRUMENTS])
    symbols = {instrument.venue_symbol: instrument.symbol for instrument in INSTRUMENTS}

    def made(name: str, timeframe: Timeframe) -> Made:
        stream = view.streams[symbols[name], timeframe]
        is_ours_T = stream.flags_T & BarFlag.VENUE == 0
        return stream.open_ns_T[is_ours_T], stream.rows_TC[is_ours_T, :5]

    return made


@pytest.fixture(scope="module")
def in_one_pass(recordings: Path) -> Maker:
    """Return the bars of the whole history of trades."""
    tape = Tape(recordings, INSTRUMENTS)

    async def read(instrument: Instrument) -> Trades:
        events = [e async for e in tape.events() if isinstance(e, Trade)]
        return Trades.of([e for e in events if e.symbol == instrument.symbol])

    bars = {i.venue_symbol: bars_of_trades(asyncio.run(read(i))) for i in INSTRUMENTS}

    def made(name: str, timeframe: Timeframe) -> Made:
        rows = bars[name][timeframe][1:-1]  # cut by the ends of the recording
        prices_T4 = [rows[column] for column in OHLCV[:4]]
        return rows["open_ns"], np.column_stack([*prices_T4, rows["lots"] / LOTS])

    return made


@pytest.fixture(params=["through_the_cache", "in_one_pass"])
def make(request: pytest.FixtureRequest) -> Maker:
    maker: Maker = request.getfixturevalue(request.param)
    return maker


def published(folder: Path, name: str, timeframe: Timeframe, wanted_ns: npt.ArrayLike) -> Floats:
    table = pq.read_table(folder / f"candles-{timeframe}-{name}.parquet", columns=["ts", *OHLCV])
    opens_T = table["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    rows_TC = np.column_stack([table[column].to_numpy() for column in OHLCV])
    return rows_TC[np.isin(opens_T, wanted_ns)]


@pytest.mark.parametrize("name", NAMES)
def test_every_whole_minute_equals_the_published_candle(
    recordings: Path, make: Maker, name: str
) -> None:
    minutes_ns = FIRST_MINUTE_NS + np.arange(NUM_MINUTES) * Timeframe.M1.ns
    wanted_TC = published(recordings, name, Timeframe.M1, minutes_ns)

    opens_T, rows_TC = make(name, Timeframe.M1)

    assert opens_T.tolist() == minutes_ns.tolist()
    assert rows_TC[:, :4].tolist() == wanted_TC[:, :4].tolist()
    np.testing.assert_allclose(rows_TC[:, 4], wanted_TC[:, 4], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_second_equals_the_recorded_candle(recordings: Path, make: Maker, name: str) -> None:
    seconds_ns = np.arange(FIRST_NS, END_NS, SECOND_NS)
    wanted_TC = published(recordings, name, Timeframe.S1, seconds_ns)

    opens_T, rows_TC = make(name, Timeframe.S1)

    assert opens_T.tolist() == seconds_ns.tolist()
    assert rows_TC[:, :4].tolist() == wanted_TC[:, :4].tolist()
    np.testing.assert_allclose(rows_TC[:, 4], wanted_TC[:, 4], rtol=1e-9, atol=0)
