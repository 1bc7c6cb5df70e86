"""A recording is found, checked early, and replayed as it was."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Market
from alphapulse.data.history import read_candles
from alphapulse.data.tape import (
    Tape,
    book_messages,
    candle_files,
    content_hash,
    find_recording,
    read_depth,
    tick_files,
)
from alphapulse.domain.errors import InvalidRecording, NoData
from alphapulse.domain.market import Bar, BookDelta, MarketEvent, Timeframe, Trade

INSTRUMENTS = Market().instruments
ETH, BTC = INSTRUMENTS
MINUTE = Timeframe.M1.ns


def replay(tape: Tape) -> list[MarketEvent]:
    async def read() -> list[MarketEvent]:
        return [event async for event in tape.events()]

    return asyncio.run(read())


def copied(recordings: Path, target: Path, *, ticks: bool = True) -> Path:
    """Return a folder with the files a tape uses; its files may be changed."""
    target.mkdir(parents=True)
    for name in candle_files(INSTRUMENTS) | (tick_files(INSTRUMENTS) if ticks else {}):
        shutil.copyfile(recordings / name, target / name)
    return target


def rewrite(file: Path, change: Any) -> None:
    schema = pq.read_schema(file)
    columns = pq.read_table(file).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=schema), file)


@pytest.fixture(scope="module")
def tape(recordings: Path) -> Tape:
    return Tape(recordings, INSTRUMENTS)


@pytest.fixture(scope="module")
def events(tape: Tape) -> list[MarketEvent]:
    return replay(tape)


def test_every_recorded_trade_and_book_message_is_replayed_once(
    tape: Tape, events: list[MarketEvent]
) -> None:
    kinds = Counter((type(event).__name__, event.symbol) for event in events)

    assert kinds["Trade", "ETH/USDT"] == 14_515  # rows of the files, PROVENANCE.md
    assert kinds["Trade", "BTC/USDT"] == 19_904
    assert kinds["BookDelta", "ETH/USDT"] == 6_471  # distinct messages of the file
    assert kinds["BookDelta", "BTC/USDT"] == 6_496
    assert tape.quarantine == []
    assert (tape.has_ticks, tape.name) == (True, "binance-spot-2024-08")


def test_events_are_ordered_by_time_then_book_trade_bar_then_symbol_then_sequence(
    events: list[MarketEvent],
) -> None:
    def place(event: MarketEvent) -> tuple[int, int, int, int]:
        symbol = (ETH.symbol, BTC.symbol).index(event.symbol)
        if isinstance(event, BookDelta):
            return (event.ts_ns, 0, symbol, event.last_id)
        if isinstance(event, Trade):
            return (event.ts_ns, 1, symbol, event.trade_id)
        assert isinstance(event, Bar)
        return (event.ts_ns, 2, symbol, event.timeframe.ns)

    places = [place(event) for event in events]

    assert places == sorted(places)


def test_book_messages_hold_the_recorded_levels(
    recordings: Path, events: list[MarketEvent]
) -> None:
    rows = pq.read_table(recordings / "depth-updates-ETHUSDT.parquet").to_pandas()
    deltas = [e for e in events if isinstance(e, BookDelta) and e.symbol == ETH.symbol]
    snapshots = [delta for delta in deltas if delta.is_snapshot]

    assert [len(s.bids_L2) + len(s.asks_L2) for s in snapshots] == [2_000]
    assert sum(len(d.bids_L2) + len(d.asks_L2) for d in deltas) == len(rows)
    for delta in (snapshots[0], deltas[0], deltas[777]):
        kind = "snap" if delta.is_snapshot else "diff"
        same = rows[(rows.first_id == delta.first_id) & (rows.event == kind)]
        for side, levels_L2 in (("bid", delta.bids_L2), ("ask", delta.asks_L2)):
            expected = same[same.side == side][["price", "size"]].to_numpy()
            assert np.array_equal(levels_L2, expected)
        assert set(same.last_id) == {delta.last_id}
        assert (same.ts_local.astype("int64") == delta.received_ns).all()


def test_a_change_knows_the_one_before_it_where_the_venue_says_so(
    recordings: Path, events: list[MarketEvent]
) -> None:
    file = recordings.parent / "binance-usdm-2024-08" / "depth-updates-ETHUSDT.parquet"
    futures = book_messages(read_depth(file), "ETH/USDT:USDT")
    changes = [delta for delta in futures if not delta.is_snapshot]

    assert [delta.prev_id for delta in futures if delta.is_snapshot] == [None]
    assert [delta.prev_id for delta in changes[1:]] == [delta.last_id for delta in changes[:-1]]
    assert {e.prev_id for e in events if isinstance(e, BookDelta)} == {None}  # spot


def test_a_recording_from_before_the_column_of_the_message_before_is_read(
    recordings: Path, tmp_path: Path
) -> None:
    name = "depth-updates-ETHUSDT.parquet"
    table = pq.read_table(recordings / name)
    pq.write_table(table.drop_columns(["prev_id"]), tmp_path / name)

    older = book_messages(read_depth(tmp_path / name), ETH.symbol)

    newer = book_messages(read_depth(recordings / name), ETH.symbol)
    assert [(d.ts_ns, d.last_id, d.prev_id) for d in older] == [
        (d.ts_ns, d.last_id, d.prev_id) for d in newer
    ]


def test_history_and_venue_candles_meet_at_the_first_tick(
    recordings: Path, tape: Tape, events: list[MarketEvent]
) -> None:
    file = read_candles(recordings / "candles-1m-ETHUSDT.parquet", ETH, Timeframe.M1)
    history = asyncio.run(tape.history(ETH, Timeframe.M1, None))
    bars = [
        event
        for event in events
        if isinstance(event, Bar) and (event.symbol, event.timeframe) == (ETH.symbol, "1m")
    ]
    opens = [*history.open_ns_T.tolist(), *(bar.open_ns for bar in bars)]

    assert history.open_ns_T[-1] + MINUTE <= tape.first_ns < bars[0].close_ns
    assert bars[-1].ts_ns <= tape.last_ns < bars[-1].ts_ns + MINUTE
    assert opens == file.open_ns_T[: len(opens)].tolist()
    assert len(bars) == 11
    assert all(bar.is_venue for bar in bars)


def test_venue_minutes_equal_the_trades_they_hold(events: list[MarketEvent]) -> None:
    trades = [event for event in events if isinstance(event, Trade)]
    bars = [event for event in events if isinstance(event, Bar) and event.timeframe == "1m"]
    whole = [bar for bar in bars if bar.open_ns >= trades[0].ts_ns]

    assert len(whole) == 20  # ten whole minutes a symbol, PROVENANCE.md
    for bar in whole:
        inside = [
            t for t in trades if t.symbol == bar.symbol and bar.open_ns <= t.ts_ns <= bar.ts_ns
        ]
        prices = [t.price for t in inside]
        assert (bar.open, bar.close) == (prices[0], prices[-1])
        assert (bar.high, bar.low) == (max(prices), min(prices))
        assert bar.volume == pytest.approx(sum(t.size for t in inside), rel=1e-12)


def test_history_gives_the_newest_bars_and_no_seconds(tape: Tape) -> None:
    days = asyncio.run(tape.history(BTC, Timeframe.D1, None))
    newest = asyncio.run(tape.history(BTC, Timeframe.D1, 300))

    assert len(days) == 2_548  # PROVENANCE.md
    assert newest.open_ns_T.tolist() == days.open_ns_T[-300:].tolist()
    assert len(asyncio.run(tape.history(BTC, Timeframe.S1, None))) == 0


def test_a_replay_repeats_itself(tape: Tape, events: list[MarketEvent]) -> None:
    again = replay(tape)

    assert len(again) == len(events)
    assert all(a == b for a, b in zip(events, again, strict=True) if not isinstance(a, BookDelta))


def test_without_ticks_only_candles_between_the_two_times_are_replayed(
    recordings: Path, tape: Tape
) -> None:
    until_ns = tape.first_ns - tape.first_ns % Timeframe.H1.ns
    from_ns = until_ns - 2 * Timeframe.H1.ns
    candles = Tape(recordings, INSTRUMENTS, with_ticks=False, from_ns=from_ns, until_ns=until_ns)
    history = asyncio.run(candles.history(ETH, Timeframe.M1, None))

    kinds = Counter((e.timeframe, e.symbol) for e in replay(candles) if isinstance(e, Bar))

    assert kinds == {
        (timeframe, i.symbol): n for timeframe, n in (("1m", 120), ("1h", 2)) for i in INSTRUMENTS
    }
    assert not candles.has_ticks
    assert (candles.first_ns, candles.last_ns) == (from_ns, until_ns - 1)
    assert history.open_ns_T[-1] == from_ns - MINUTE


def test_ticks_between_two_times_only_are_replayed(recordings: Path, tape: Tape) -> None:
    from_ns, until_ns = tape.first_ns + MINUTE, tape.first_ns + 2 * MINUTE
    part = Tape(recordings, INSTRUMENTS, from_ns=from_ns, until_ns=until_ns)

    times = [event.ts_ns for event in replay(part)]

    assert from_ns <= part.first_ns == times[0]
    assert times[-1] == part.last_ns < until_ns


def test_a_time_the_recording_does_not_hold_is_refused(recordings: Path, tape: Tape) -> None:
    with pytest.raises(InvalidRecording, match="found none"):
        Tape(recordings, INSTRUMENTS, from_ns=tape.last_ns + 1)


def test_a_trade_that_cannot_be_goes_to_the_quarantine(recordings: Path, tmp_path: Path) -> None:
    folder = copied(recordings, tmp_path / "broken")

    def zero(columns: dict[str, list[Any]]) -> None:
        columns["price"][7] = 0.0

    rewrite(folder / "trades-ETHUSDT.parquet", zero)
    tape = Tape(folder, INSTRUMENTS)
    events = replay(tape)

    ((code, message),) = tape.quarantine
    assert code == "InvalidEvent"
    assert "was price 0.0" in message
    assert sum(isinstance(e, Trade) and e.symbol == ETH.symbol for e in events) == 14_514


def test_a_recording_is_found_in_the_order_flag_environment_roots(
    recordings: Path, tmp_path: Path
) -> None:
    mine = copied(recordings, tmp_path / "market" / "mine")
    environ = {"ALPHAPULSE_RECORDINGS": str(recordings.parent)}
    roots = [tmp_path / "nothing", tmp_path / "market"]

    assert find_recording(mine, INSTRUMENTS, environ, roots=roots) == mine
    assert find_recording(None, INSTRUMENTS, environ, roots=roots) == recordings
    assert find_recording(None, INSTRUMENTS, {}, roots=roots) == mine


def test_among_recordings_the_newest_is_taken(recordings: Path, tmp_path: Path) -> None:
    older = copied(recordings, tmp_path / "z-older")
    newer = copied(recordings, tmp_path / "a-newer")
    for instrument in INSTRUMENTS:
        file = older / f"trades-{instrument.venue_symbol}.parquet"
        pq.write_table(pq.read_table(file).slice(0, 1000), file)

    assert find_recording(tmp_path, INSTRUMENTS, {}) == newer


def test_a_recording_without_ticks_is_taken_only_by_its_own_name(
    recordings: Path, tmp_path: Path
) -> None:
    folder = copied(recordings, tmp_path / "candles", ticks=False)

    assert find_recording(folder, INSTRUMENTS, {}) == folder
    assert not Tape(folder, INSTRUMENTS).has_ticks
    with pytest.raises(NoData):
        find_recording(None, INSTRUMENTS, {}, roots=[tmp_path])


def test_no_data_names_both_ways_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(NoData) as caught:
        find_recording(None, INSTRUMENTS, {}, roots=[tmp_path / "market"])

    for word in ("exchange", "--recording DIR", "ALPHAPULSE_RECORDINGS", str(tmp_path)):
        assert word in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecording, match=r"--recording .*nowhere: expected a folder"):
        find_recording(tmp_path / "nowhere", INSTRUMENTS, {})
    with pytest.raises(InvalidRecording, match=r"ALPHAPULSE_RECORDINGS .*nowhere"):
        find_recording(None, INSTRUMENTS, {"ALPHAPULSE_RECORDINGS": str(tmp_path / "nowhere")})


def test_the_files_missing_from_a_recording_are_named(recordings: Path, tmp_path: Path) -> None:
    folder = copied(recordings, tmp_path / "part")
    (folder / "depth-updates-BTCUSDT.parquet").unlink()
    (folder / "candles-1h-ETHUSDT.parquet").unlink()

    with pytest.raises(
        InvalidRecording, match=r"missing: candles-1h-ETHUSDT.parquet, depth-updates-BTCUSDT.par"
    ):
        find_recording(folder, INSTRUMENTS, {})


@pytest.mark.parametrize("name", ["trades-ETHUSDT.parquet", "candles-1d-BTCUSDT.parquet"])
def test_a_damaged_file_is_named_before_the_replay(
    recordings: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(recordings, tmp_path / "damaged")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(InvalidRecording, match=f"{name}: expected readable Parquet"):
        find_recording(folder, INSTRUMENTS, {})
    with pytest.raises(InvalidRecording, match=f"{name}: expected readable Parquet"):
        Tape(folder, INSTRUMENTS)


def test_a_file_without_its_columns_is_named(recordings: Path, tmp_path: Path) -> None:
    folder = copied(recordings, tmp_path / "columns")
    file = folder / "trades-BTCUSDT.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["side"]), file)

    with pytest.raises(InvalidRecording, match=r"trades-BTCUSDT.parquet: .* was without side"):
        find_recording(folder, INSTRUMENTS, {})


def test_the_content_hash_follows_the_content_and_not_the_place(
    recordings: Path, tmp_path: Path
) -> None:
    folder = copied(recordings, tmp_path / "copy")
    before = content_hash(folder, INSTRUMENTS)
    assert before == content_hash(recordings, INSTRUMENTS)

    with (folder / "candles-1m-ETHUSDT.parquet").open("ab") as file:
        file.write(b"\0")

    assert content_hash(folder, INSTRUMENTS) != before
