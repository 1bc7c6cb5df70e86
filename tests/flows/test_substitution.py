"""Where ticks are missing the next timeframe stands in: mask, records and an alert say so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alphapulse.config import Settings
from alphapulse.data.alerts import feed_alerts
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import DecisionPoint
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import TIMEFRAMES, BarFlag, Timeframe
from alphapulse.domain.quality import Reason
from alphapulse.features.masks import substitutes
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.unit.storage.asking.test_rebuild import records_of

SETTINGS = Settings()
INSTRUMENTS = SETTINGS.market.instruments
FROM_NS = int(pd.Timestamp("2024-08-08T12:00Z").value)
Reached = tuple[DecisionPoint, dict[str, Any]]


async def third_instant(tape: Tape) -> Reached:
    """Return the third decision point of `tape` and the feed's snapshot there."""
    feed = MarketFeed(tape, INSTRUMENTS, SETTINGS.feed)
    await feed.open()
    for _ in range(2):
        await feed.advance()
    point = await feed.advance()
    assert point is not None
    return point, await feed.view("snapshot")


@pytest.fixture(scope="module")
def candles_only(recordings: Path) -> Reached:
    until_ns = FROM_NS + 5 * Timeframe.M1.ns
    tape = Tape(recordings, INSTRUMENTS, with_ticks=False, from_ns=FROM_NS, until_ns=until_ns)
    return asyncio.run(third_instant(tape))


@pytest.fixture(scope="module")
def with_ticks(recordings: Path) -> Reached:
    return asyncio.run(third_instant(Tape(recordings, INSTRUMENTS)))


def test_without_ticks_seconds_and_book_are_masked_and_minutes_are_whole(
    candles_only: Reached,
) -> None:
    for input in candles_only[0].inputs.values():
        assert isinstance(input, ModelInput)
        assert not input.flags_SFT[:, TIMEFRAMES.index(Timeframe.S1)].any()
        assert not input.bars_SFTC[:, TIMEFRAMES.index(Timeframe.S1)].any()
        assert not input.known_STB.any()
        assert (input.flags_SFT[:, TIMEFRAMES.index(Timeframe.M1)] & BarFlag.VALID).all()
        assert substitutes(input) == (Reason.NO_SECONDS, Reason.BOOK_UNKNOWN)


def test_every_stored_inference_of_it_says_so(
    candles_only: Reached, recordings: Path, tmp_path: Path
) -> None:
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    home = Home(tmp_path)
    run = home.open_run(**start, settings=SETTINGS, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=SETTINGS.storage)

    async def stored() -> pd.DataFrame:
        await history.append(records_of(candles_only[0], run=run.id))
        return await history.query(Query())

    rows = asyncio.run(stored())
    history.close()

    assert len(rows) == 6
    for told in rows["substitutions"]:
        assert [s.split(":")[0] for s in json.loads(told)] == [
            f"{symbol} {stream}"
            for symbol in sorted({s.split(" ")[0] for s in json.loads(told)}, key=told.index)
            for stream in ("1s", "book")
        ]
        assert "1m is the lowest whole timeframe" in told


def test_it_is_an_alert_as_long_as_it_lasts(candles_only: Reached, with_ticks: Reached) -> None:
    def codes(reached: Reached) -> list[str]:
        point, snapshot = reached
        found = feed_alerts(snapshot, SETTINGS.feed, event_ns=point.event_ns)
        return [alert.code for alert in found]

    assert codes(candles_only) == ["NoSeconds", "BookUnknown"]
    assert codes(with_ticks) == []


def test_with_ticks_the_seconds_before_the_first_are_told_in_the_record_only(
    with_ticks: Reached,
) -> None:
    for package in with_ticks[0].packages.values():
        assert len(package.substitutions) == 4
    for input in with_ticks[0].inputs.values():
        assert isinstance(input, ModelInput)
        assert substitutes(input) == ()
