"""Check what is said of recordings: against the published table, and against planted holes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Market
from alphapulse.data.recordings import RecordedFile, Recording, list_recordings
from alphapulse.data.tape import VARIABLE, Tape, content_hash, find_recording
from alphapulse.domain.errors import InvalidRecording
from alphapulse.features.grid import iso

INSTRUMENTS = Market().instruments
START_NS = 1_723_161_240_000_000_000  # 2024-08-08T23:54:00Z
SECOND_NS = 1_000_000_000
UTC_NS = pa.timestamp("ns", tz="UTC")
LISTED = ("trades-", "depth-updates-", "candles-")


@pytest.fixture(scope="module")
def market(recordings: Path) -> dict[str, Recording]:
    """Return what is said of the recordings, by name of the folder."""
    return {one.path.name: one for one in list_recordings(recordings.parent, INSTRUMENTS, {})}


def published(folder: Path) -> dict[str, list[str]]:
    """Return the table of files in PROVENANCE.md: the cells of a row by `recording/file`."""
    lines = (folder / "PROVENANCE.md").read_text().splitlines()
    rows = [
        line.strip("| ").split(" | ") for line in lines if re.match(r"\| \S+/\S+\.parquet", line)
    ]
    return {cells[0]: cells[1:] for cells in rows}


def test_every_file_is_as_its_provenance_says(
    market: dict[str, Recording], recordings: Path
) -> None:
    table = published(recordings.parent)

    files = {f"{one.recording}/{one.file}": one for each in market.values() for one in each.files}

    assert set(files) == {name for name in table if name.split("/")[1].startswith(LISTED)}
    assert len(files) == 32
    for name, file in files.items():
        rows, _, first, last, _, holes, *_ = table[name]
        assert file.error is None
        assert file.rows == int(rows), name
        assert iso(file.first_ns or 0) == as_iso(first), name
        assert iso(file.last_ns or 0) == as_iso(last), name
        if file.kind == "depth":  # the book made of it says how many of its numbers were missing
            holes = table[name.replace("depth-updates", "book")][5]
            assert f"{file.gaps} sequence gaps" in holes, name
        else:
            what = "trade ids" if file.kind == "trades" else "bars"
            assert f"{file.missing} missing {what}" in holes, name


def as_iso(published_at: str) -> str:
    """Return `2024-08-08 23:54:15.342` as iso writes it."""
    return f"{published_at[:19].replace(' ', 'T')}Z"


def test_the_one_missing_hour_is_named(market: dict[str, Recording]) -> None:
    files = [one for one in market["binance-spot-2025-05"].files if one.timeframe == "1h"]

    assert [iso(one.longest_gap_ns or 0) for one in files] == ["2023-03-24T13:00:00Z"] * 2
    assert [one.longest_gap_s for one in files] == [3600.0] * 2
    assert [one.complete_pct for one in files] == [100 * 31_007 / 31_008] * 2


def test_replay_is_promised_where_up_finds_a_recording_and_nowhere_else(
    market: dict[str, Recording],
) -> None:
    assert {name: one.replay for name, one in market.items()} == {
        "binance-coinm-2024-08": "no",
        "binance-spot-2024-08": "ticks",
        "binance-spot-2025-05": "candles",
        "binance-usdm-2024-08": "no",
    }
    for one in market.values():
        if one.replay == "no":
            assert one.content_hash is None
            assert "missing: candles-1d-BTCUSDT.parquet" in one.reason
            with pytest.raises(InvalidRecording):
                find_recording(one.path, INSTRUMENTS, {})
        else:
            assert one.content_hash == content_hash(one.path, INSTRUMENTS)
            assert (find_recording(one.path, INSTRUMENTS, {}), one.reason) == (one.path, "")
            assert Tape(one.path, INSTRUMENTS).has_ticks == (one.replay == "ticks")


def a_copy(recordings: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "market" / "copied"
    shutil.copytree(recordings, folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def test_damaged_file_is_one_row_and_the_others_are_still_there(
    recordings: Path, tmp_path: Path
) -> None:
    folder = a_copy(recordings, tmp_path)
    damaged = folder / "trades-BTCUSDT.parquet"
    damaged.write_bytes(damaged.read_bytes()[:5000])

    (told,) = list_recordings(None, INSTRUMENTS, {}, roots=[tmp_path / "market"])

    wrong = [one for one in told.files if one.error]
    assert [one.file for one in wrong] == ["trades-BTCUSDT.parquet"]
    assert f"{damaged}: expected readable Parquet, was damaged" in (wrong[0].error or "")
    assert (wrong[0].rows, wrong[0].gaps, wrong[0].complete_pct) == (None, None, None)
    assert len([one for one in told.files if one.rows]) == 11
    assert (told.replay, told.reason) == ("no", "not readable: trades-BTCUSDT.parquet")
    assert told.content_hash is None


def test_recorded_trades_that_are_taken_out_are_found(recordings: Path, tmp_path: Path) -> None:
    folder = a_copy(recordings, tmp_path)
    file = folder / "trades-ETHUSDT.parquet"
    table = pq.read_table(file)
    kept = pa.concat_tables([table.slice(0, 100), table.slice(103, 897), table.slice(1001)])
    pq.write_table(kept, file)

    (told,) = list_recordings(folder, INSTRUMENTS, {})

    trades = {one.file: one for one in told.files}["trades-ETHUSDT.parquet"]
    assert (trades.gaps, trades.missing) == (2, 4)
    assert trades.complete_pct == pytest.approx(100 * (14_515 - 4) / 14_515)
    assert told.replay == "ticks"


def test_recorded_changes_that_are_taken_out_are_found(recordings: Path, tmp_path: Path) -> None:
    folder = a_copy(recordings, tmp_path)
    file = folder / "depth-updates-ETHUSDT.parquet"
    table = pq.read_table(file)
    ids = table["last_id"].to_numpy()
    lost = [ids[50_000], ids[90_000], ids[200_000]]  # three whole messages
    pq.write_table(table.filter(pa.array([id not in lost for id in ids])), file)

    (told,) = list_recordings(folder, INSTRUMENTS, {})

    depth = {one.file: one for one in told.files}["depth-updates-ETHUSDT.parquet"]
    assert (depth.gaps, depth.missing) == (3, None)
    assert depth.longest_gap_s == pytest.approx(0.2, abs=0.11)
    assert 99.8 < (depth.complete_pct or 0) < 100


def write(folder: Path, name: str, columns: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    times = {key: pa.array(values, UTC_NS) for key, values in columns.items() if key[:2] == "ts"}
    pq.write_table(pa.table({**columns, **times}), folder / name)


def only_file(folder: Path) -> RecordedFile:
    ((told,),) = [one.files for one in list_recordings(folder, INSTRUMENTS, {})]
    return told


def trades(ids: Sequence[int], seconds: Sequence[int]) -> dict[str, Any]:
    at = [START_NS + second * SECOND_NS for second in seconds]
    ones = [1.0] * len(ids)
    return {
        "ts": at, "ts_local": at, "trade_id": list(ids), "price": ones, "size": ones,
        "side": ["buy"] * len(ids),
    }  # fmt: skip


def test_missing_trade_ids_are_counted_and_the_longest_hole_named(tmp_path: Path) -> None:
    write(tmp_path, "trades-XYZ.parquet", trades([1, 2, 5, 6, 10], [0, 1, 3, 4, 12]))

    told = only_file(tmp_path)

    assert (told.kind, told.symbol, told.timeframe, told.rows) == ("trades", "XYZ", None, 5)
    assert (told.gaps, told.missing, told.complete_pct) == (2, 5, 50.0)
    assert (told.longest_gap_s, told.longest_gap_ns) == (8.0, START_NS + 4 * SECOND_NS)


def test_trades_out_of_order_or_twice_are_no_hole(tmp_path: Path) -> None:
    write(tmp_path, "trades-XYZ.parquet", trades([2, 1, 3, 3, 4], [1, 0, 2, 2, 3]))

    told = only_file(tmp_path)

    assert (told.rows, told.gaps, told.missing, told.complete_pct) == (5, 0, 0, 100.0)
    assert (told.first_ns, told.longest_gap_s, told.longest_gap_ns) == (START_NS, 0.0, None)


def candles(minutes: Sequence[int]) -> dict[str, Any]:
    names = ("open", "high", "low", "close", "volume")
    prices = {name: [1.0] * len(minutes) for name in names}
    return {"ts": [START_NS + minute * 60 * SECOND_NS for minute in minutes], **prices}


@pytest.mark.parametrize(
    ("timeframe", "step"), [("1m", 1), ("15m", 15), ("1h", 60), ("1w", 10_080)]
)
def test_missing_bars_are_counted_at_every_length(
    tmp_path: Path, timeframe: str, step: int
) -> None:
    start = 6 if timeframe == "1h" else 0  # an hour opens on an hour
    minutes = [start + n * step for n in (0, 1, 4, 5, 7)]
    write(tmp_path, f"candles-{timeframe}-XYZ.parquet", candles(minutes))

    told = only_file(tmp_path)

    assert (told.error, told.timeframe) == (None, timeframe)
    assert (told.gaps, told.missing, told.complete_pct) == (2, 3, 62.5)
    assert told.longest_gap_s == 2 * step * 60
    assert told.longest_gap_ns == START_NS + (start + 2 * step) * 60 * SECOND_NS


@pytest.mark.parametrize("name", ["candles-1m-XYZ.parquet", "candles-15m-XYZ.parquet"])
def test_bars_out_of_order_are_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, candles([0, 30, 15]))

    assert "row 2: expected an open later than the one before" in (only_file(tmp_path).error or "")


def depth(messages: Sequence[tuple[str, int, int, int]]) -> dict[str, Any]:
    """Return the columns of messages one second apart: event, first_id, last_id, prev_id."""
    rows = [(n, *message) for n, message in enumerate(messages) for _ in range(2)]  # two levels
    at = [START_NS + row[0] * SECOND_NS for row in rows]
    return {
        "ts": at, "ts_local": at, "event": [row[1] for row in rows],
        "first_id": [row[2] for row in rows], "last_id": [row[3] for row in rows],
        "prev_id": [row[4] for row in rows], "side": ["bid", "ask"] * len(messages),
        "price": [1.0] * len(rows), "size": [1.0] * len(rows),
    }  # fmt: skip


NEXT_NUMBER = [
    ("diff", 8, 9, -1), ("snap", 9, 9, -1), ("diff", 10, 12, -1), ("diff", 15, 15, -1),
    ("diff", 16, 20, -1),
]  # fmt: skip
NAMED_NUMBER = [
    ("diff", 105, 110, 100), ("snap", 104, 104, -1), ("diff", 115, 120, 110),
    ("diff", 140, 150, 130), ("diff", 155, 160, 150),
]  # fmt: skip


@pytest.mark.parametrize("messages", [NEXT_NUMBER, NAMED_NUMBER])
def test_change_that_does_not_follow_is_a_hole(
    tmp_path: Path, messages: list[tuple[str, int, int, int]]
) -> None:
    write(tmp_path, "depth-updates-XYZ.parquet", depth(messages))

    told = only_file(tmp_path)

    assert (told.kind, told.rows, told.gaps, told.missing) == ("depth", 10, 1, None)
    assert (told.longest_gap_s, told.longest_gap_ns) == (1.0, START_NS + 2 * SECOND_NS)
    assert told.complete_pct == 75.0


def test_numbers_alone_tell_where_a_venue_does_not_name_the_one_before(tmp_path: Path) -> None:
    columns = depth(NEXT_NUMBER)
    del columns["prev_id"]
    write(tmp_path, "depth-updates-XYZ.parquet", columns)

    assert only_file(tmp_path).gaps == 1


def test_snapshot_ends_a_hole_it_covers_and_no_other(tmp_path: Path) -> None:
    start = ("diff", 1, 5, -1)
    covered = [start, ("snap", 20, 20, -1), ("diff", 21, 22, -1)]
    not_covered = [start, ("snap", 20, 20, -1), ("diff", 25, 26, -1)]
    write(tmp_path / "a", "depth-updates-XYZ.parquet", depth(covered))
    write(tmp_path / "b", "depth-updates-XYZ.parquet", depth(not_covered))

    told = list_recordings(tmp_path, INSTRUMENTS, {})

    assert [(one.path.name, one.files[0].gaps) for one in told] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("trades-XYZ.parquet", trades([], [])),
        ("candles-1m-XYZ.parquet", candles([])),
        ("depth-updates-XYZ.parquet", depth([])),
    ],
)
def test_file_without_rows_is_an_error_of_candles_only(
    tmp_path: Path, name: str, columns: dict[str, Any]
) -> None:
    types = {"trade_id": pa.int64(), "first_id": pa.int64(), "last_id": pa.int64()}
    types |= {"prev_id": pa.int64(), "side": pa.string(), "event": pa.string()}
    typed = {
        key: pa.array(values, types.get(key, pa.float64()))
        for key, values in columns.items()
        if key[:2] != "ts"
    }
    times = {key: values for key, values in columns.items() if key[:2] == "ts"}
    write(tmp_path, name, times | typed)

    told = only_file(tmp_path)
    if told.kind == "candles":
        assert "expected rows, was empty" in (told.error or "")
    else:
        assert (told.error, told.rows, told.first_ns) == (None, 0, None)


def test_other_files_are_counted_and_other_folders_left_out(tmp_path: Path) -> None:
    write(tmp_path / "one", "candles-1m-XYZ.parquet", candles([0, 1]))
    write(tmp_path / "one", "quotes-XYZ.parquet", {"ts": [START_NS]})
    write(tmp_path / "none", "quotes-XYZ.parquet", {"ts": [START_NS]})
    write(tmp_path / ".being-written", "candles-1m-XYZ.parquet", candles([0, 1]))

    told = list_recordings(None, INSTRUMENTS, {}, roots=[tmp_path, tmp_path / "not-there"])

    assert [(one.path.name, one.num_others, len(one.files)) for one in told] == [("one", 1, 1)]


def test_it_looks_where_up_looks(tmp_path: Path) -> None:
    for name in ("given", "variable", "home"):
        write(tmp_path / name, "candles-1m-XYZ.parquet", candles([0]))
    given, environ = tmp_path / "given", {VARIABLE: str(tmp_path / "variable")}
    roots = [tmp_path / "home"]

    looks = ((given, environ), (None, environ), (None, {}))
    told = [list_recordings(path, INSTRUMENTS, env, roots=roots) for path, env in looks]

    assert [one.path.name for (one,) in told] == ["given", "variable", "home"]


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecording, match=r"--recording .*none: expected a folder"):
        list_recordings(tmp_path / "none", INSTRUMENTS, {})
    with pytest.raises(InvalidRecording, match=rf"{VARIABLE} .*none: expected a folder"):
        list_recordings(None, INSTRUMENTS, {VARIABLE: os.fspath(tmp_path / "none")})
