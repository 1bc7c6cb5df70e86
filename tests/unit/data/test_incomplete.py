"""Trades that came late or never: kept if they came, and told in every row that lacks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Feed, Market
from alphapulse.data.cache import MarketCache
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.data.validation import Validator
from alphapulse.domain.inference import DecisionPoint, DecisionRecord, InputPackage
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import (
    SECOND_NS,
    BarFlag,
    BarSeries,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
    Trades,
)
from alphapulse.domain.quality import Reason
from alphapulse.domain.windows import CacheView
from alphapulse.features.inputs import rebuild
from alphapulse.features.rows import BOOK_COLUMN, BUCKET_COLUMN
from alphapulse.interfaces import DataProvider
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.tables import COLUMNS
from tests.unit.storage.asking.test_rebuild import records_of

INSTRUMENTS = Market().instruments
ETH, BTC = (instrument.symbol for instrument in INSTRUMENTS)
FIRST_NS = 1_723_161_257 * SECOND_NS  # 2024-08-08 23:54:17, the first decision instant
MISSED_NS = FIRST_NS + 100 * SECOND_NS  # 23:55:57, the minute ends three seconds later
NUM_POINTS = 115

Way = Callable[[Iterable[MarketEvent]], Iterable[MarketEvent]]


class Rerouted(DataProvider):
    """Another source, whose events go another way."""

    def __init__(self, source: DataProvider, way: Way) -> None:
        self._source, self._way = source, way

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        return await self._source.history(instrument, timeframe, count)

    async def events(self) -> AsyncIterator[MarketEvent]:
        kept = []
        async for event in self._source.events():
            if event.ts_ns > FIRST_NS + NUM_POINTS * SECOND_NS:
                break
            kept.append(event)
        for event in self._way(kept):
            yield event


def is_missed(event: MarketEvent) -> bool:
    """Return whether it is a trade of ETH in the two seconds that something happens to."""
    if not isinstance(event, Trade) or event.symbol != ETH:
        return False
    return MISSED_NS <= event.ts_ns < MISSED_NS + 2 * SECOND_NS


def late(events: Iterable[MarketEvent]) -> list[MarketEvent]:
    """Hold two seconds of trades back until the minute they belong to has closed."""
    events = list(events)
    held = [event for event in events if is_missed(event)]
    now_ns = held[0].ts_ns + 8 * SECOND_NS

    def key(event: MarketEvent) -> int:
        is_behind = isinstance(event, Trade) and event.symbol == ETH and event.ts_ns < now_ns
        return max(event.ts_ns, now_ns) if is_behind and event.ts_ns >= MISSED_NS else event.ts_ns

    return sorted(events, key=key)  # trades keep the order of their numbers


def lost(events: Iterable[MarketEvent]) -> Iterable[MarketEvent]:
    """Leave the trades of two seconds out and tell it in time."""
    gap = FeedGap(ETH, MISSED_NS + SECOND_NS - 1, MISSED_NS, "as a test asks", is_book_lost=False)
    is_told = False
    for event in events:
        if event.ts_ns >= gap.ts_ns and not is_told:
            is_told = True
            yield gap
        if not is_missed(event):
            yield event


@dataclass
class Led:
    """What came of a source.

    Attributes:
        points: by instant.
        views: all that was cached, by instant.
        trades: all of them, oldest first.
        counters: of the feed, at the end.
    """

    points: dict[int, DecisionPoint] = field(default_factory=dict)
    views: dict[int, CacheView] = field(default_factory=dict)
    trades: Trades | None = None
    counters: dict[str, object] = field(default_factory=dict)


def led(recordings: Path, way: Way) -> Led:
    source = Rerouted(Tape(recordings, INSTRUMENTS), way)
    feed, found = MarketFeed(source, INSTRUMENTS, Feed()), Led()

    async def lead() -> None:
        await feed.open()
        while (point := await feed.advance()) is not None:
            found.points[point.event_ns] = point
            found.views[point.event_ns] = feed.cache.view([ETH, BTC])

    asyncio.run(lead())
    found.trades, found.counters = feed.cache.trades(ETH), feed.counters()
    return found


@pytest.fixture(scope="module")
def as_recorded(recordings: Path) -> Led:
    return led(recordings, lambda events: events)


@pytest.fixture(scope="module")
def came_late(recordings: Path) -> Led:
    return led(recordings, late)


@pytest.fixture(scope="module")
def never_came(recordings: Path) -> Led:
    return led(recordings, lost)


def trade(number: int, second: float, symbol: str = ETH) -> Trade:
    ts_ns = FIRST_NS + int(second * SECOND_NS)
    return Trade(symbol, ts_ns, ts_ns, number, 2_500.0, 1.0, is_buy=True)


def flags(view: CacheView, timeframe: Timeframe) -> dict[int, BarFlag]:
    stream = view.streams[ETH, timeframe]
    kept = zip(stream.open_ns_T.tolist(), stream.flags_T.tolist(), strict=True)
    return {open_ns: BarFlag(bits) for open_ns, bits in kept}


def input_of(led: Led, event_ns: int) -> ModelInput:
    input = led.points[event_ns].inputs[ETH]
    assert isinstance(input, ModelInput), input
    return input


def test_trades_that_come_late_are_kept_once_and_in_order(came_late: Led, as_recorded: Led) -> None:
    assert came_late.trades is not None
    assert as_recorded.trades is not None
    for ours, theirs in zip(came_late.trades.columns, as_recorded.trades.columns, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    late_count = came_late.counters["late"]
    assert isinstance(late_count, dict)
    assert late_count[Reason.LATE_TRADE] > 0
    assert came_late.counters["quarantined"] == {}


def test_every_row_that_closed_without_them_is_flagged_once_they_come(came_late: Led) -> None:
    minute_ns = Timeframe.M1.floor(MISSED_NS)
    last_ns = max(came_late.views)
    before = came_late.views[MISSED_NS + 4 * SECOND_NS]
    after = came_late.views[last_ns]

    assert not any(BarFlag.INCOMPLETE in bits for bits in flags(before, Timeframe.S1).values())
    assert not before.books[ETH].flags_T.any()
    unsuspected = before.bucket_seconds[ETH].at(MISSED_NS + SECOND_NS)
    assert unsuspected is not None
    assert unsuspected.known_KC[:, BUCKET_COLUMN["bought"]].all()
    seconds = {
        open_ns
        for open_ns, bits in flags(after, Timeframe.S1).items()
        if BarFlag.INCOMPLETE in bits
    }
    assert {MISSED_NS, MISSED_NS + SECOND_NS} <= seconds
    assert all(MISSED_NS <= open_ns < MISSED_NS + 8 * SECOND_NS for open_ns in seconds)
    minutes = flags(after, Timeframe.M1)
    assert [ns for ns, bits in minutes.items() if BarFlag.INCOMPLETE in bits] == [minute_ns]
    book = after.books[ETH]
    boundaries = book.second_ns_T[book.flags_T > 0].tolist()
    assert boundaries == [open_ns + SECOND_NS for open_ns in sorted(seconds)]
    for boundary_ns in boundaries:
        snapshot = after.bucket_seconds[ETH].at(boundary_ns)
        assert snapshot is not None
        assert not snapshot.known_KC[:, BUCKET_COLUMN["bought"]].any()
        assert snapshot.known_KC[:, BUCKET_COLUMN["bids"]].any()
    assert not came_late.views[last_ns].books[BTC].flags_T.any()


def test_an_input_masks_the_seconds_and_says_so(came_late: Led, as_recorded: Led) -> None:
    last_ns = max(came_late.points)
    input, whole = input_of(came_late, last_ns), input_of(as_recorded, last_ns)

    masked_T = (whole.flags_SFT[0, 0] > 0) & (input.flags_SFT[0, 0] == 0)
    slots = (MISSED_NS - (last_ns - 300 * SECOND_NS)) // SECOND_NS + np.arange(2)
    assert masked_T[slots].all()
    assert not input.bars_SFTC[0, 0, masked_T].any()
    assert not input.known_STB[0, slots + 1].any()
    assert whole.known_STB[0, slots + 1, BOOK_COLUMN["bought"]].all()
    assert any(f"{ETH} 1s" in sentence for sentence in input.substitutions)
    assert any("bars lack trades" in sentence for sentence in input.substitutions)
    np.testing.assert_array_equal(input.flags_SFT[1], whole.flags_SFT[1])


def test_inputs_before_and_after_come_back_from_rows_stored_once(
    came_late: Led, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.sqlite", run="as a test asks")
    stored: dict[tuple[str, str], dict[int, tuple[int, np.ndarray]]] = {}
    num_told = 0
    for point in came_late.points.values():
        for row in point.rows:
            stream = stored.setdefault((row.symbol, row.stream), {})
            assert row.ts_ns not in stream
            stream[row.ts_ns] = (row.flags, row.values_C)
        rows = {}
        for key, stream in stored.items():
            times = sorted(stream)
            bits = np.array([stream[ns][0] for ns in times], np.uint8)
            rows[key] = (np.array(times), bits, np.stack([stream[ns][1] for ns in times]))
        for record in records_of(point, run="as a test asks"):
            package = kept(journal, record)
            num_told += sum(len(ref.incomplete_ns) for ref in package.streams)
            rebuilt = rebuild(package, rows)
            assert rebuilt.content_hash == package.input_hash
    assert num_told > 0


def kept(journal: Journal, record: DecisionRecord) -> InputPackage:
    """Return a record's package as a journal gives it back."""
    journal.append([record])
    place = (record.package.symbol, record.package.event_ns)
    (row,) = journal.select("packages", "symbol = ? AND event_ns = ?", place)
    return package_of(dict(zip(COLUMNS["packages"], row, strict=True)))


def test_what_was_traded_is_unknown_in_a_second_told_in_time(
    never_came: Led, as_recorded: Led
) -> None:
    boundary_ns = MISSED_NS + SECOND_NS
    at_ns = boundary_ns + SECOND_NS
    traded = [BOOK_COLUMN[name] for name in ("bought", "sold", "num_trades")]
    for of, is_known in ((as_recorded, True), (never_came, False)):
        book = of.views[at_ns].books[ETH]
        (row,) = np.flatnonzero(book.second_ns_T == boundary_ns)
        assert not np.isnan(book.rows_TC[row, BOOK_COLUMN["mid"]])
        assert (not np.isnan(book.rows_TC[row, traded]).any()) == is_known
        snapshot = of.views[at_ns].bucket_seconds[ETH].at(boundary_ns)
        assert snapshot is not None
        assert bool(snapshot.known_KC[:, BUCKET_COLUMN["sold"]].any()) == is_known
    assert MISSED_NS not in flags(never_came.views[at_ns], Timeframe.S1)


def test_a_silence_flags_the_seconds_it_began_in() -> None:
    """Seconds of a feed that is found to be down had closed as if nobody had traded."""
    cache = MarketCache(INSTRUMENTS, replace(Feed(), gap_s=3.0))
    for number, second in ((1, -0.5), (2, 0.5), (3, 1.5)):
        cache.apply(trade(number, second))
    cache.close_until(FIRST_NS + 4 * SECOND_NS)
    believed = flags(cache.view([ETH]), Timeframe.S1)
    cache.close_until(FIRST_NS + 5 * SECOND_NS)
    told = flags(cache.view([ETH]), Timeframe.S1)

    assert [BarFlag.EMPTY in bits for bits in believed.values()] == [False, False, True, True]
    assert [BarFlag.INCOMPLETE in bits for bits in told.values()] == [False, True, True, True]


def test_a_minute_with_a_late_trade_is_not_made_from_trades() -> None:
    cache = MarketCache(INSTRUMENTS, Feed())
    minute_ns = Timeframe.M1.floor(FIRST_NS) + Timeframe.M1.ns
    begin_s = (minute_ns - FIRST_NS) / SECOND_NS
    for second in range(-1, 30):
        cache.apply(trade(second + 2, begin_s + second))
    late = trade(32, begin_s + 29.5)
    cache.apply(replace(trade(5, begin_s + 31), symbol=BTC))  # time goes on without ETH
    cache.apply(late)
    for second in range(31, 62):
        cache.apply(trade(second + 3, begin_s + second))
    view = cache.view([ETH])

    assert view.trades[ETH].trade_id_N.tolist() == [*range(1, 33), *range(34, 65)]
    assert minute_ns not in flags(view, Timeframe.M1)
    seconds = flags(view, Timeframe.S1)
    marked = [ns for ns, bits in seconds.items() if BarFlag.INCOMPLETE in bits]
    assert marked == [minute_ns + 29 * SECOND_NS]
    assert not cache.quarantined


def test_a_trade_that_was_fetched_after_a_long_silence_is_not_stale() -> None:
    validator = Validator((ETH, BTC), Feed(), touch=lambda symbol: None)
    before, fetched, strange = trade(7, 0), trade(8, 1), trade(17, 1)
    meanwhile = trade(3, 60, symbol=BTC)

    taken = [validator.take(event) for event in (before, meanwhile, fetched, strange)]

    assert taken == [[before], [meanwhile], [fetched], []]
    assert validator.refused == {Reason.STALE: 1}
