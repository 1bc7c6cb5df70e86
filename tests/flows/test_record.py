"""What is recorded replays as it was heard: every event, both stamps, and the same bytes again."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse import client, collecting
from alphapulse.config import Feed, Market
from alphapulse.data.live import Live
from alphapulse.data.merge import Merger
from alphapulse.data.pieces import finish
from alphapulse.data.record import Recorded, new_refusals, record
from alphapulse.data.recordings import list_recordings
from alphapulse.data.tape import VARIABLE, Tape
from alphapulse.domain.errors import InvalidRequest
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
from tests.exchange.columns import SECOND
from tests.exchange.faults import Drop, WrongType
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

ROOT = Path(__file__).parents[2]
MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
FROM_NS = MIDNIGHT - 345 * SECOND  # 23:54:15, with the recorded snapshots
UNTIL_NS = MIDNIGHT - 290 * SECOND  # 23:55:10, over the end of a minute
PLAYED_FROM_NS = MIDNIGHT - 310 * SECOND  # 23:54:50
INSTRUMENTS = Market().instruments
SYMBOLS = [instrument.symbol for instrument in INSTRUMENTS]
BARS = {Timeframe.M1: 1_500, Timeframe.H1: 100, Timeframe.D1: 50}

# Records a tape that hands on fifty events at a time, and says how many are safe.
RECORDER = """
import asyncio, sys
from pathlib import Path
from alphapulse.data.record import record
from alphapulse.data.tape import Tape
from tests.flows.test_record import BARS, FROM_NS, INSTRUMENTS, UNTIL_NS, Paced
tape = Tape(Path(sys.argv[1]), INSTRUMENTS, from_ns=FROM_NS, until_ns=UNTIL_NS)
source, taken = Paced(tape), [0]
def refusals():
    taken.append(source.num_given)
    return []
def tell(done_s, for_s):
    print("kept", taken[-1], flush=True)
options = {"refusals": refusals, "bars": BARS, "piece_s": 0.02, "tell": tell}
asyncio.run(record(source, INSTRUMENTS, Path(sys.argv[2]), **options))
"""
# Says that it begins to merge what was left.
FINISHER = """
import sys
from pathlib import Path
from alphapulse.data.pieces import finish
print("begun", flush=True)
finish(Path(sys.argv[1]))
"""


class Heard(DataProvider):
    """Another source, and all that it said."""

    def __init__(self, source: DataProvider) -> None:
        self.source = source
        self.events_heard: list[MarketEvent] = []
        self.history_heard: dict[tuple[str, Timeframe], BarSeries] = {}

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return what the source says."""
        series = await self.source.history(instrument, timeframe, count)
        self.history_heard[instrument.symbol, timeframe] = series
        return series

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield what the source says."""
        async for event in self.source.events():
            self.events_heard.append(event)
            yield event


class Paced(Heard):
    """A tape that waits a little after every fifty events, and for ever at its end."""

    num_given = 0

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield what the tape holds, and count it when it has been taken."""
        async for event in self.source.events():
            if self.num_given % 50 == 0:
                await asyncio.sleep(0.01)
            yield event
            self.num_given += 1
        await asyncio.Event().wait()  # it ends when it is killed, however slow the disk is


class ByStream(Heard):
    """A tape whose streams arrive one after the other, and each a little out of order."""

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield all trades of a symbol, every second one late, then its book, and so on."""
        events = [event async for event in self.source.events()]
        for kind in (Bar, Trade, BookDelta):
            for symbol in SYMBOLS:
                stream = [e for e in events if isinstance(e, kind) and e.symbol == symbol]
                for i in range(0, len(stream), 2):
                    for event in stream[i : i + 2][::-1]:
                        yield event


def told(event: MarketEvent) -> tuple[Any, ...]:
    """Return all that an event says, as values that can be compared."""
    if not isinstance(event, BookDelta):
        return (event,)
    names = [name for name in BookDelta.__slots__ if not name.endswith("_L2")]
    sides = [np.asarray(side, np.float64).tobytes() for side in (event.bids_L2, event.asks_L2)]
    return (*(getattr(event, name) for name in names), *sides)


def merged(events: Sequence[MarketEvent]) -> list[tuple[Any, ...]]:
    """Return what the events say in the order of the Merger."""
    merger = Merger(SYMBOLS, watermark_ms=1_000_000)
    ordered = [one for event in events for one in merger.push(event)]
    return [told(event) for event in (*ordered, *merger.flush())]


def replayed(tape: Tape) -> list[tuple[Any, ...]]:
    """Return what the tape's events say."""

    async def read() -> list[MarketEvent]:
        return [event async for event in tape.events()]

    return [told(event) for event in asyncio.run(read())]


def histories(tape: Tape) -> dict[tuple[str, Timeframe], BarSeries]:
    """Return the tape's history."""

    async def ask() -> dict[tuple[str, Timeframe], BarSeries]:
        return {
            (i.symbol, t): await tape.history(i, t, n) for i in INSTRUMENTS for t, n in BARS.items()
        }

    return asyncio.run(ask())


def assert_same_history(
    seen: dict[tuple[str, Timeframe], BarSeries], kept: dict[tuple[str, Timeframe], BarSeries]
) -> None:
    for key, series in kept.items():
        assert len(series)
        assert np.array_equal(seen[key].open_ns_T, series.open_ns_T)
        assert np.array_equal(seen[key].ohlcv_TC, series.ohlcv_TC)


def recorded(source: DataProvider, folder: Path) -> Recorded:
    """Record a source that ends by itself."""
    return asyncio.run(record(source, INSTRUMENTS, folder, bars=BARS, piece_s=0.2))


def files(folder: Path) -> dict[str, bytes]:
    """Return name and bytes of every file in a folder, whatever it is called."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def live_recording(exchange: Exchange, folder: Path) -> tuple[Heard, Recorded]:
    """Record the exchange through the real client while it plays; return what Live said."""
    kept: list[Heard] = []

    async def run() -> Recorded:
        ended = asyncio.Event()
        async with opened(exchange):
            live = Live(
                "binance",
                INSTRUMENTS,
                Feed(live_history_bars=10, reconnect_s=0.05),
                url=exchange.url,
            )
            kept.append(Heard(live))
            recording = asyncio.create_task(
                record(
                    kept[0],
                    INSTRUMENTS,
                    folder,
                    ended=ended,
                    refusals=new_refusals(live),
                    bars=BARS,
                    piece_s=0.3,
                )
            )
            async with asyncio.timeout(30):
                kinds = ("trade", "depth@100ms", "kline_1m", "kline_1h", "kline_1d")
                names = [f"{i.venue_symbol.lower()}@{kind}" for i in INSTRUMENTS for kind in kinds]
                await exchange.wait_for(*names)
                while exchange.requests["/api/v3/depth"] < len(INSTRUMENTS):
                    await asyncio.sleep(0.01)
                for second in range(1, 21):
                    await exchange.play(PLAYED_FROM_NS + second * SECOND)
                    await asyncio.sleep(0.05)
                while sum(isinstance(event, Bar) for event in kept[0].events_heard) < 2:
                    await asyncio.sleep(0.01)
            ended.set()
            return await recording

    done = asyncio.run(run())
    return kept[0], done


@pytest.fixture(scope="module")
def source(recordings: Path) -> Tape:
    """Return fifty-five seconds of the recorded market, its snapshots included."""
    return Tape(recordings, INSTRUMENTS, from_ns=FROM_NS, until_ns=UNTIL_NS)


@pytest.fixture(scope="module")
def first(source: Tape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of it."""
    folder = tmp_path_factory.mktemp("market") / "first"
    assert recorded(source, folder).folder == folder
    return folder


def test_a_recorded_tape_is_the_tape(source: Tape, first: Path) -> None:
    tape = Tape(first, INSTRUMENTS)

    assert replayed(tape) == replayed(source)
    assert len(replayed(tape)) > 3_000
    assert sum(isinstance(one[0], Bar) for one in replayed(tape)) == len(SYMBOLS)
    assert_same_history(histories(tape), histories(source))
    assert tape.quarantine == []


def test_recording_the_recording_gives_the_same_bytes(first: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"

    recorded(Tape(first, INSTRUMENTS), again)

    assert files(again) == files(first)
    assert len(files(first)) == 10


def test_the_order_in_which_events_arrive_does_not_matter(
    source: Tape, first: Path, tmp_path: Path
) -> None:
    recorded(ByStream(source), tmp_path / "by stream")

    assert files(tmp_path / "by stream") == files(first)


def test_a_slice_of_a_recording_has_what_came_before_it_as_history(first: Path) -> None:
    minute_ns = MIDNIGHT - 300 * SECOND
    tape = Tape(first, INSTRUMENTS, from_ns=minute_ns)

    events = replayed(tape)

    assert not any(isinstance(one[0], Bar) for one in events)
    for symbol in SYMBOLS:
        newest = int(histories(tape)[symbol, Timeframe.M1].open_ns_T[-1])
        assert newest == minute_ns - 60 * SECOND


def test_what_live_said_replays_event_for_event(recordings: Path, tmp_path: Path) -> None:
    stretch = Recording(recordings, from_ns=PLAYED_FROM_NS, until_ns=UNTIL_NS)
    faults = [
        Drop(target="ethusdt@trade", first=30),
        WrongType(target="btcusdt@trade", first=40, field="q", value="-1"),
    ]

    heard, done = live_recording(Exchange(stretch, faults=faults), tmp_path / "live")

    tape = Tape(tmp_path / "live", INSTRUMENTS)
    gaps = [event for event in heard.events_heard if isinstance(event, FeedGap)]
    assert replayed(tape) == merged(heard.events_heard)
    assert_same_history(histories(tape), heard.history_heard)
    assert (done.gaps, done.candles) == (len(gaps), 2)
    assert done.refused >= 1
    lines = (tmp_path / "live" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == done.refused
    assert any("negative" in line for line in lines)

    recorded(tape, tmp_path / "again")

    again = files(tmp_path / "again")
    assert again == {name: kept for name, kept in files(tmp_path / "live").items() if name in again}
    assert set(files(tmp_path / "live")) - set(again) == {"quarantine.jsonl"}


def record_until_killed(recordings: Path, folder: Path, *, num_said: int, after_s: float) -> int:
    """Return how many events the recorder called safe until it was killed."""
    command = [sys.executable, "-c", RECORDER, str(recordings), str(folder)]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout is not None
        while len(said) < num_said:
            said.append(recorder.stdout.readline())
            assert said[-1], "the recorder ended by itself"
        time.sleep(after_s)
        recorder.kill()
        said += recorder.stdout.readlines()
    return max((int(line.split()[1]) for line in said if line.startswith("kept")), default=0)


def test_a_killed_recording_is_a_prefix_of_what_was_said(
    recordings: Path, source: Tape, tmp_path: Path
) -> None:
    moments = random.Random(20240808)
    everything = replayed(source)
    lengths = []

    for number in range(6):
        folder = tmp_path / f"killed-{number}"
        num_said = moments.randint(1, 25)
        num_safe = record_until_killed(
            recordings, folder, num_said=num_said, after_s=moments.uniform(0, 0.03)
        )
        assert finish(folder) == folder
        seen = replayed(Tape(folder, INSTRUMENTS))
        lengths.append(len(seen))
        assert num_safe <= len(seen)
        assert seen == everything[: len(seen)]
        assert finish(folder) is None
        (listed,) = list_recordings(folder, INSTRUMENTS, {})
        assert (listed.replay, listed.num_others) == ("ticks", 0)

    assert len(set(lengths)) > 1


def test_a_kill_while_the_pieces_are_merged_changes_no_byte(
    recordings: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    record_until_killed(recordings, left, num_said=15, after_s=0)
    hidden = tmp_path / ".left.recording"
    for number in range(4):
        shutil.copytree(hidden, tmp_path / f".copy-{number}.recording")
    finish(left)

    for number, after_s in enumerate((0.0, 0.01, 0.03, 0.06)):
        copy = tmp_path / f"copy-{number}"
        command = [sys.executable, "-c", FINISHER, str(copy)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as finisher:
            assert finisher.stdout is not None
            finisher.stdout.readline()
            time.sleep(after_s)
            finisher.kill()
        assert not copy.exists() or files(copy) == files(left)
        finish(copy)
        assert files(copy) == files(left)


def test_the_command_records_until_it_is_interrupted(
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    stretch = Recording(recordings, from_ns=PLAYED_FROM_NS, until_ns=UNTIL_NS)
    exchange, is_up = Exchange(stretch), threading.Event()

    async def play() -> None:
        async with opened(exchange):
            is_up.set()
            await exchange.wait_for("ethusdt@trade", "btcusdt@trade")
            while exchange.requests["/api/v3/depth"] < len(INSTRUMENTS):
                await asyncio.sleep(0.01)
            await exchange.play(PLAYED_FROM_NS + 5 * SECOND)
            await asyncio.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.5)

    player = threading.Thread(target=lambda: asyncio.run(play()))
    player.start()
    is_up.wait()
    answer = collecting.record_venue(tmp_path, None, (), 60, None, url=exchange.url)
    player.join()

    (row,) = answer["recorded"]
    (folder,) = (tmp_path / "market").iterdir()
    assert row["folder"] == str(folder)
    assert row["trades"] > 10
    assert folder.name.startswith("binance-20")
    (listed,) = client.read_recordings(tmp_path, None)["recordings"]
    assert (listed["path"], listed["replay"]) == (str(folder), "ticks")
    assert "recording binance" in capsys.readouterr().err


def test_the_command_finishes_what_a_killed_one_left(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = tmp_path / "market" / "killed"
    record_until_killed(recordings, folder, num_said=3, after_s=0)
    assert not folder.exists()

    (listed,) = client.read_recordings(tmp_path, None)["recordings"]

    assert (listed["path"], listed["replay"]) == (str(folder), "ticks")


def test_a_symbol_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="expected one of ETH/USDT, BTC/USDT"):
        collecting.record_venue(tmp_path, None, ("XRP/USDT",), 60, None)
