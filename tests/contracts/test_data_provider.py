"""Hold every DataProvider to its promise: ordered, stamped twice, begun after its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    BarSeries,
    BookDelta,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider
from tests.contracts.factories import ProviderSubject, factory_of
from tests.contracts.finding import assert_documented, implementations

EXPECTED = {"Live", "Tape"}


def read(subject: ProviderSubject, provider: DataProvider, count: int | None) -> list[MarketEvent]:
    """Return the next `count` events of a fresh reading (all, if None), and leave."""

    async def reading() -> list[MarketEvent]:
        found: list[MarketEvent] = []
        stream: Any = provider.events()
        async with asyncio.timeout(subject.limit_s):
            async for event in stream:
                found.append(event)
                if len(found) == count:
                    break
        await stream.aclose()
        return found

    return asyncio.run(reading())


def history(subject: ProviderSubject, timeframe: Timeframe, count: int | None) -> BarSeries:
    provider = subject.make()
    return asyncio.run(provider.history(subject.instruments[0], timeframe, count))


def first_events(subject: ProviderSubject) -> list[MarketEvent]:
    return read(subject, subject.make(), subject.num_events)


def sequence(event: MarketEvent) -> int:
    """Return the number that rises within a stream, the exchange time where it has none."""
    if isinstance(event, Trade):
        return event.trade_id
    return event.last_id if isinstance(event, BookDelta) else event.ts_ns


def identity(event: MarketEvent) -> tuple[str, str, int, int]:
    return type(event).__name__, event.symbol, event.ts_ns, sequence(event)


def check_docstrings(subject: ProviderSubject) -> None:
    assert_documented(subject.kind)


def check_events_are_in_order(subject: ProviderSubject) -> None:
    events = first_events(subject)
    times = [event.ts_ns for event in events]
    streams: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if not (isinstance(event, BookDelta) and event.is_snapshot):  # it starts its stream anew
            streams.setdefault((type(event).__name__, event.symbol), []).append(sequence(event))

    assert len(events) == subject.num_events
    assert times == sorted(times), "exchange time goes back"
    assert all(numbers == sorted(numbers) for numbers in streams.values()), "a stream goes back"


def check_events_have_two_stamps(subject: ProviderSubject) -> None:
    stamped = [e for e in first_events(subject) if isinstance(e, Trade | BookDelta)]
    recent_ns = 1_500_000_000 * SECOND_NS  # 2017: a stamp in another unit falls short of it

    assert stamped
    assert all(isinstance(e.ts_ns, int) and e.ts_ns > recent_ns for e in stamped)
    assert all(isinstance(e.received_ns, int) and e.received_ns > recent_ns for e in stamped)


def check_events_are_of_the_instruments_asked_for(subject: ProviderSubject) -> None:
    symbols = {instrument.symbol for instrument in subject.instruments}

    assert {event.symbol for event in first_events(subject)} <= symbols


def check_history_had_closed_before_the_first_event(subject: ProviderSubject) -> None:
    first_ns = first_events(subject)[0].ts_ns
    for timeframe in TIMEFRAMES:
        bars = history(subject, timeframe, None)

        assert bars.timeframe == timeframe
        assert np.all(np.diff(bars.open_ns_T) > 0), f"{timeframe}: bars go back"
        assert np.all(bars.open_ns_T + timeframe.ns <= first_ns), f"{timeframe}: a bar is not over"
        assert np.isfinite(bars.ohlcv_TC).all()


def check_history_is_the_newest_bars(subject: ProviderSubject) -> None:
    every, newest = (history(subject, Timeframe.M1, count) for count in (None, 3))

    assert len(every) > 3
    assert newest.open_ns_T.tolist() == every.open_ns_T[-3:].tolist()
    assert np.array_equal(newest.ohlcv_TC, every.ohlcv_TC[-3:])


def check_source_ends(subject: ProviderSubject) -> None:
    if not subject.is_endless:
        assert len(read(subject, subject.make(), None)) >= subject.num_events


def check_reader_may_begin_again(subject: ProviderSubject) -> None:
    provider = subject.make()
    first, again = (read(subject, provider, subject.num_events) for _ in range(2))

    assert [identity(event) for event in first] == [identity(event) for event in again]


ETH = Instrument(symbol="ETH/USDT", tick_size=0.01, bucket_size=1.0)
START_NS = 1_723_161_300 * SECOND_NS


class ExampleProvider(DataProvider):
    """The smallest source that keeps the promise: ten minutes of history, then a trade a second."""

    def trade(self, number: int) -> Trade:
        """Return the trade of a second."""
        ts_ns = START_NS + number * SECOND_NS
        return Trade(ETH.symbol, ts_ns, ts_ns + 5, number + 1, 2_600.0, 0.5, is_buy=True)

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield fifty trades."""
        for number in range(50):
            yield self.trade(number)

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return ten closed bars, or the newest `count`."""
        last_ns = timeframe.floor(START_NS) - timeframe.ns
        open_ns_T = last_ns - np.arange(9, -1, -1, dtype=np.int64) * timeframe.ns
        bars = BarSeries(instrument.symbol, timeframe, open_ns_T, np.ones((10, 5)))
        return bars if count is None else bars.last(count)


class Backward(ExampleProvider):
    """Breaks the promise: the newest comes first."""

    def trade(self, number: int) -> Trade:
        """Return the trade of a second, counted from the end."""
        return super().trade(49 - number)


class Milliseconds(ExampleProvider):
    """Breaks the promise: the collector's time is in another unit."""

    def trade(self, number: int) -> Trade:
        """Return a trade with a stamp in milliseconds."""
        trade = super().trade(number)
        return replace(trade, received_ns=trade.received_ns // 1_000_000)


class Elsewhere(ExampleProvider):
    """Breaks the promise: trades of an instrument nobody asked for."""

    def trade(self, number: int) -> Trade:
        """Return another instrument's trade."""
        return replace(super().trade(number), symbol="DOGE/USDT")


class Prophet(ExampleProvider):
    """Breaks the promise: its history holds the bar still forming, and ignores the count."""

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return bars up to the present one."""
        bars = await super().history(instrument, timeframe, None)
        return replace(bars, open_ns_T=bars.open_ns_T + timeframe.ns)


class Once(ExampleProvider):
    """Breaks the promise: the second reader finds nothing, and the first never gets to the end."""

    read = False

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield the trades once, then wait for ever."""
        if not self.read:
            self.read = True
            for number in range(45):
                yield self.trade(number)
            await asyncio.Event().wait()


class Undocumented(ExampleProvider):
    __doc__ = None


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
BROKEN = [
    (check_docstrings, Undocumented),
    (check_events_are_in_order, Backward),
    (check_events_have_two_stamps, Milliseconds),
    (check_events_are_of_the_instruments_asked_for, Elsewhere),
    (check_history_had_closed_before_the_first_event, Prophet),
    (check_history_is_the_newest_bars, Prophet),
    (check_source_ends, Once),
    (check_reader_may_begin_again, Once),
]


@pytest.fixture(
    params=[*implementations(DataProvider).values(), ExampleProvider], ids=lambda k: k.__name__
)
def subject(request: pytest.FixtureRequest) -> Any:
    if request.param is ExampleProvider:
        return ProviderSubject(ExampleProvider, ExampleProvider, [ETH])
    return factory_of(request.param)(request)


def test_suite_holds_every_source_there_is() -> None:
    assert set(implementations(DataProvider)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_source_keeps_its_promise(
    check: Callable[[ProviderSubject], None], subject: ProviderSubject
) -> None:
    check(subject)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(
    check: Callable[[ProviderSubject], None], kind: type[ExampleProvider]
) -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        check(ProviderSubject(kind, kind, [ETH], limit_s=0.2))


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
