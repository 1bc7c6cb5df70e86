"""A run is followed in the order it happened, however it is cut into slices."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.learning import Cursor, Followed, PastDecision, ShownBar
from alphapulse.domain.market import Timeframe
from alphapulse.features.rows import COLUMN
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from tests.unit.storage.records import SYMBOLS, instant, record

NUM_SECONDS = 7


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Home(tmp_path).open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )


@pytest.fixture
def history(tmp_path: Path, run: Run) -> Iterator[InferenceHistory]:
    """Return a history of both symbols; every record was sent again with the next one."""
    history = InferenceHistory(Home(tmp_path), run=run, settings=Storage())
    sent = [record(second, symbol=s, run=run.id) for second in range(NUM_SECONDS) for s in SYMBOLS]
    for before, one in pairwise(sent):
        asyncio.run(history.append([before, one]))
    yield history
    history.close()


def follow(history: InferenceHistory, after: Cursor, limit: int) -> Followed:
    return asyncio.run(history.follow(after, limit))


def names(events: tuple[ShownBar | PastDecision, ...]) -> list[tuple[int, str, str]]:
    return [
        (e.shown_ns, e.symbol, "bar")
        if isinstance(e, ShownBar)
        else (e.event_ns, e.symbol, "decision")
        for e in events
    ]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_bars_come_before_the_decision_that_showed_them_once(
    history: InferenceHistory, limit: int
) -> None:
    cursor, events = Cursor(), ()
    sizes = []

    while (found := follow(history, cursor, limit)).events:
        cursor, events = found.cursor, events + found.events
        sizes.append(sum(isinstance(e, PastDecision) for e in found.events))

    assert names(events) == [
        (instant(second), symbol, what)
        for second in range(NUM_SECONDS)
        for what in ("bar", "decision")
        for symbol in SYMBOLS
    ]
    assert max(sizes) == min(limit, 2 * NUM_SECONDS)
    assert found == Followed(events=(), cursor=cursor)


def test_a_slice_goes_on_where_the_last_one_ended_when_more_was_appended(
    history: InferenceHistory, run: Run
) -> None:
    first = follow(history, Cursor(), 1000)

    asyncio.run(history.append([record(9, run=run.id)]))
    second = follow(history, first.cursor, 1000)

    assert names(second.events) == [
        (instant(9), SYMBOLS[0], "bar"),
        (instant(9), SYMBOLS[0], "decision"),
    ]


def test_decisions_come_as_they_were_appended_however_they_are_cut(
    history: InferenceHistory, run: Run
) -> None:
    cursor = follow(history, Cursor(), 1000).cursor
    for second in (12, 11, 13):
        asyncio.run(history.append([record(second, run=run.id)]))

    whole = follow(history, cursor, 1000).events
    cut = [follow(history, cursor, 1)]
    cut += [follow(history, cut[-1].cursor, 1)]
    cut += [follow(history, cut[-1].cursor, 1)]

    assert [e.event_ns for e in whole if isinstance(e, PastDecision)] == [
        instant(second) for second in (12, 11, 13)
    ]
    assert sum(isinstance(e, ShownBar) for e in whole) == 3
    assert names(whole) == [name for found in cut for name in names(found.events)]


def test_bars_and_decisions_say_what_was_stored(history: InferenceHistory, run: Run) -> None:
    given = record(0, run=run.id)
    stored = next(row for row in given.rows if row.stream != "book")

    bar, _, decision = follow(history, Cursor(), 1).events

    assert isinstance(bar, ShownBar)
    assert (bar.symbol, bar.timeframe, bar.open_ns) == (SYMBOLS[0], stored.stream, stored.ts_ns)
    assert (bar.open, bar.high, bar.low, bar.close) == tuple(stored.values_C[:4])
    assert (bar.flags, bar.shown_ns) == (stored.flags, instant(0))
    assert isinstance(decision, PastDecision)
    said = given.decision.predictions
    assert [(i.model, i.version, i.action) for i in decision.inferences] == [
        (p.model, p.version, p.action) for p in said
    ]
    assert [i.forecasts for i in decision.inferences] == [p.forecasts for p in said]
    assert decision.run == run.id


def test_price_and_units_are_those_of_the_newest_row_shown(
    history: InferenceHistory, run: Run
) -> None:
    given = record(0, run=run.id)
    forming_C = next(
        ref.forming_C
        for ref in given.package.streams
        if ref.symbol == SYMBOLS[0] and ref.stream == "1m" and ref.forming_C is not None
    )

    decision = follow(history, Cursor(), 1).events[-1]

    assert isinstance(decision, PastDecision)
    assert decision.price == forming_C[COLUMN["close"]]
    assert math.isnan(decision.unit[Timeframe.D1])
