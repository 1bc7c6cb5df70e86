"""Check what a recording keeps of odd events, and what it refuses; each event is a recorded one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Market
from alphapulse.data.pieces import finish, finish_all, hold_new
from alphapulse.data.record import Recorded, record
from alphapulse.data.recordings import list_recordings
from alphapulse.data.tape import Tape, content_hash
from alphapulse.domain.errors import InvalidRecording, InvalidRequest, StoreError, Unavailable
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider

INSTRUMENTS = Market().instruments
START_NS = 1_723_161_255_000_000_000  # 2024-08-08T23:54:15Z
END_NS = START_NS + 3_000_000_000


class Said(DataProvider):
    """A source that says what it was given, then raises what it was given, if anything."""

    def __init__(
        self, tape: Tape, events: Sequence[MarketEvent], error: Exception | None = None
    ) -> None:
        self._tape, self._events, self._error = tape, events, error

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the tape's newest bars."""
        return await self._tape.history(instrument, timeframe, 5)

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield what was given."""
        for event in self._events:
            yield event
        if self._error is not None:
            raise self._error


@pytest.fixture(scope="module")
def tape(recordings: Path) -> Tape:
    """Return three seconds of the recorded market, its snapshots included."""
    return Tape(recordings, INSTRUMENTS, from_ns=START_NS, until_ns=END_NS)


@pytest.fixture(scope="module")
def events(tape: Tape) -> list[MarketEvent]:
    """Return what happened in them."""
    return played(tape)


def played(tape: Tape) -> list[MarketEvent]:
    async def read() -> list[MarketEvent]:
        return [event async for event in tape.events()]

    return asyncio.run(read())


def kept(
    source: DataProvider,
    folder: Path,
    *,
    refusals: Callable[[], list[tuple[str, str]]] = list,
    for_s: float | None = None,
) -> Recorded:
    return asyncio.run(record(source, INSTRUMENTS, folder, refusals=refusals, for_s=for_s))


def lines(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def deltas(events: Sequence[MarketEvent]) -> list[BookDelta]:
    return [event for event in events if isinstance(event, BookDelta)]


def a_candle(tape: Tape, *, minutes_on: int = 0) -> Bar:
    """Return the recorded candle of the minute after the history, or a later one."""

    async def newest() -> BarSeries:
        return await tape.history(INSTRUMENTS[0], Timeframe.M1, 1)

    series = asyncio.run(newest())
    open_ns = int(series.open_ns_T[-1]) + (1 + minutes_on) * Timeframe.M1.ns
    return Bar(series.symbol, Timeframe.M1, open_ns, *series.ohlcv_TC[-1].tolist(), is_venue=True)


def test_a_change_without_levels_keeps_its_numbers(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    number = next(i for i, e in enumerate(events) if isinstance(e, BookDelta) and not e.is_snapshot)
    changed = events[number]
    assert isinstance(changed, BookDelta)
    none = np.empty((0, 2))
    empty = [*events[:number], replace(changed, bids_L2=none, asks_L2=none), *events[number + 1 :]]

    kept(Said(tape, empty), tmp_path / "one")

    seen = deltas(played(Tape(tmp_path / "one", INSTRUMENTS)))
    assert [(d.symbol, d.last_id) for d in seen] == [(d.symbol, d.last_id) for d in deltas(events)]
    assert [len(d.bids_L2) + len(d.asks_L2) for d in seen] == [
        len(d.bids_L2) + len(d.asks_L2) for d in deltas(empty)
    ]


def test_a_message_that_came_twice_stays_two(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    twice = [copy for event in events for copy in ([event] * (1 + isinstance(event, BookDelta)))]

    kept(Said(tape, twice), tmp_path / "one")

    seen = deltas(played(Tape(tmp_path / "one", INSTRUMENTS)))
    assert [len(d.bids_L2) for d in seen] == [len(d.bids_L2) for d in deltas(twice)]


def test_the_number_a_futures_change_follows_is_kept(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    named = [replace(e, prev_id=7) if isinstance(e, BookDelta) else e for e in events]

    kept(Said(tape, named), tmp_path / "named")
    kept(Said(tape, events), tmp_path / "spot")

    seen = [deltas(played(Tape(tmp_path / name, INSTRUMENTS))) for name in ("named", "spot")]
    assert [{delta.prev_id for delta in some} for some in seen] == [{7}, {None}]


def test_a_gap_is_replayed_with_its_reason_and_belongs_to_the_content(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    gap = FeedGap("ETH/USDT", START_NS + 10, START_NS, "trades 1 to 2 did not arrive")

    kept(Said(tape, [*events, gap]), tmp_path / "with")
    kept(Said(tape, events), tmp_path / "without")

    replayed = played(Tape(tmp_path / "with", INSTRUMENTS))
    assert [event for event in replayed if isinstance(event, FeedGap)] == [gap]
    assert len(replayed) == len(events) + 1
    later = Tape(tmp_path / "with", INSTRUMENTS, from_ns=START_NS + 11)
    assert not any(isinstance(event, FeedGap) for event in played(later))
    files = list_recordings(tmp_path / "with", INSTRUMENTS, {})[0].files
    (told,) = [file for file in files if file.kind == "gaps"]
    assert (told.symbol, told.rows, told.gaps, told.longest_gap_ns) == ("ETHUSDT", 1, 1, START_NS)
    hashes = {content_hash(tmp_path / name, INSTRUMENTS) for name in ("with", "without")}
    assert len(hashes) == 2


def test_a_candle_that_closed_before_the_first_tick_is_an_event_if_it_came_as_one(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    early = a_candle(tape, minutes_on=-1)
    earlier = replace(early, open_ns=early.open_ns - Timeframe.M1.ns * 10)

    kept(Said(tape, [earlier, *events]), tmp_path / "one")

    replay = Tape(tmp_path / "one", INSTRUMENTS)
    assert [event for event in played(replay) if isinstance(event, Bar)] == [earlier]
    series = asyncio.run(replay.history(INSTRUMENTS[0], Timeframe.M1, None))
    assert earlier.open_ns not in series.open_ns_T.tolist()
    assert len(series) == 5


def test_what_cannot_be_kept_is_in_the_quarantine_with_its_reason(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    bar = a_candle(tape)
    stranger = replace(next(e for e in events if isinstance(e, Trade)), symbol="XRP/USDT")
    told = [("InvalidEvent", "a price of -1")]

    done = kept(
        Said(tape, [*events, bar, bar, stranger]),
        tmp_path / "one",
        refusals=lambda: [told.pop()] if told else [],
    )

    found = lines(tmp_path / "one")
    assert [line["code"] for line in found] == ["InvalidEvent", "duplicate", "unknown_symbol"]
    assert "a price of -1" in found[0]["message"]
    assert (done.refused, done.candles) == (3, 1)


def test_what_came_before_an_error_of_the_source_is_a_recording(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="banned"):
        kept(Said(tape, events, Unavailable("banned")), tmp_path / "one")

    assert len(played(Tape(tmp_path / "one", INSTRUMENTS))) == len(events)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_source_without_events_leaves_candles(tape: Tape, tmp_path: Path) -> None:
    kept(Said(tape, []), tmp_path / "one")

    replay = Tape(tmp_path / "one", INSTRUMENTS)
    assert not replay.has_ticks
    assert len(list((tmp_path / "one").iterdir())) == 6


def test_a_symbol_that_is_quiet_does_not_keep_the_other_from_being_replayed(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    quiet = [event for event in events if event.symbol == "ETH/USDT"]

    kept(Said(tape, quiet), tmp_path / "one")

    assert len(played(Tape(tmp_path / "one", INSTRUMENTS))) == len(quiet)


def test_a_recording_ends_after_its_time(tape: Tape, tmp_path: Path) -> None:
    class Endless(Said):
        async def events(self) -> AsyncIterator[MarketEvent]:
            async for event in super().events():
                yield event
            await asyncio.Event().wait()

    done = kept(Endless(tape, played(tape)), tmp_path / "one", for_s=0.1)

    assert done.trades > 0


def test_what_came_before_a_cancel_is_a_recording(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    has_said = asyncio.Event()

    class Endless(Said):
        async def events(self) -> AsyncIterator[MarketEvent]:
            async for event in super().events():
                yield event
            has_said.set()
            await asyncio.Event().wait()

    async def cancel() -> None:
        recording = asyncio.create_task(
            record(Endless(tape, events), INSTRUMENTS, tmp_path / "one", piece_s=60)
        )
        await has_said.wait()
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording

    asyncio.run(cancel())

    assert len(played(Tape(tmp_path / "one", INSTRUMENTS))) == len(events)


def test_a_folder_that_is_there_is_left_as_it_is(
    tape: Tape, events: list[MarketEvent], tmp_path: Path
) -> None:
    kept(Said(tape, events), tmp_path / "one")

    with pytest.raises(InvalidRequest, match="expected no such folder"):
        kept(Said(tape, events[:10]), tmp_path / "one")

    assert len(played(Tape(tmp_path / "one", INSTRUMENTS))) == len(events)


def test_a_recording_under_way_is_not_finished_by_others(tmp_path: Path) -> None:
    folder = tmp_path / "one"

    with hold_new(folder) as hidden:
        assert (finish(folder), finish_all(tmp_path)) == (None, [])
        with pytest.raises(InvalidRequest, match="being recorded"), hold_new(folder):
            pass
        assert hidden.is_dir()

    assert finish_all(tmp_path) == []
    assert not hidden.exists()


def test_a_damaged_piece_is_named(tape: Tape, events: list[MarketEvent], tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with hold_new(folder) as hidden:
        piece = hidden / "pieces" / "00000000"
        piece.mkdir()
        (piece / "trades-ETHUSDT.parquet").write_bytes(b"no Parquet")

    with pytest.raises(InvalidRecording, match="00000000/trades-ETHUSDT"):
        finish(folder)


def test_a_folder_that_cannot_be_made_is_one_sentence(tape: Tape, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="make room or correct the folder"):
        kept(Said(tape, []), tmp_path / "file" / "one")
