"""Write market events as the Parquet files of a recording, piece by piece, and merge the pieces."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alphapulse.data.history import CANDLE_COLUMNS
from alphapulse.data.recorded import CAME, LOST
from alphapulse.data.tape import DEPTH_COLUMNS, TRADE_COLUMNS
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    FeedGap,
    Floats,
    Ints,
    MarketEvent,
    Trade,
)

REFUSED = "quarantine.jsonl"
ROW_GROUP = 1 << 20  # rows; a fixed number, so that the same rows are the same bytes
UTC_NS = pa.timestamp("ns", tz="UTC")
NO_LEVEL: Floats = np.zeros((1, 2))
BID, ASK, NONE = range(3)  # places in the words of the depth file's `side`

Refusal = tuple[str, str]
Names = Mapping[str, str]
Columns = dict[str, pa.Array]

# What makes two files of the same rows the same file: a sort that settles every tie by arrival.
SORTED_BY: Mapping[str, tuple[str, ...]] = {
    "trades": ("trade_id", "ts"),
    "depth": ("ts", "last_id", "message"),
    "candles": ("ts",),
    "gaps": ("ts", "from_ts"),
}


def write_piece(
    folder: Path,
    venue_names: Names,
    *,
    events: Sequence[MarketEvent] = (),
    history: Sequence[BarSeries] = (),
    refused: Sequence[Refusal] = (),
) -> None:
    """Write one piece of a recording into `folder`, which must be new; all of it is on the disk.

    Args:
        folder: where.
        venue_names: how a file is named, by symbol; each has a file of trades and one of the book,
            even an empty one.
        events: what the source said, in order of arrival.
        history: closed candles from before the first event.
        refused: code and message of what the source could not make an event of.
    """
    folder.mkdir(parents=True)
    by_file: dict[str, list[Any]] = defaultdict(list)
    for name in venue_names.values():
        by_file[f"trades-{name}"], by_file[f"depth-updates-{name}"] = [], []
    for one in (*history, *events):
        by_file[_file_of(one, venue_names[one.symbol])].append(one)
    for name, found in by_file.items():
        write_synced(folder / f"{name}.parquet", pa.table(_COLUMNS_OF[kind_of(name)](found)))
    if refused:
        lines = [json.dumps({"code": code, "message": message}) + "\n" for code, message in refused]
        with (folder / REFUSED).open("w", encoding="utf-8") as file:
            file.writelines(lines)
            _sync(file.fileno())
    sync_folder(folder)


def merge_pieces(pieces: Sequence[Path], folder: Path) -> None:
    """Write the recording that the pieces, in their order, make up into `folder`.

    Merging the same pieces again writes the same bytes. Files of trades and books are left out
    where no piece has a row of any of them: candles are all there is then.

    Raises InvalidRecording, naming the file, if a piece cannot be read.
    """
    names = sorted({file.name for piece in pieces for file in piece.glob("*.parquet")})
    tables = {
        name: _merged(name, [p / name for p in pieces if (p / name).exists()]) for name in names
    }
    ticks = [name for name in names if kind_of(name) in ("trades", "depth")]
    if not any(tables[name].num_rows for name in ticks):
        tables = {name: table for name, table in tables.items() if name not in ticks}
    for name, table in tables.items():
        write_synced(folder / name, table)
    refused = [piece / REFUSED for piece in pieces if (piece / REFUSED).exists()]
    if refused:
        unborn = folder / f".{REFUSED}"
        with unborn.open("wb") as whole:
            for file in refused:
                whole.write(file.read_bytes())
            whole.flush()
            _sync(whole.fileno())
        unborn.replace(folder / REFUSED)
    sync_folder(folder)


def kind_of(name: str) -> str:
    """Return `trades`, `depth`, `candles` or `gaps` of a file name."""
    return name.split("-", maxsplit=1)[0]


def write_synced(file: Path, table: pa.Table) -> None:
    """Write a Parquet file that is whole, and on the disk, before it has its name."""
    unborn = file.with_name(f".{file.name}")
    pq.write_table(table, unborn, compression="zstd", row_group_size=ROW_GROUP)
    with unborn.open("rb") as written:
        _sync(written.fileno())
    unborn.replace(file)


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    os.fsync(handle)


def _file_of(one: MarketEvent | BarSeries, name: str) -> str:
    if isinstance(one, Trade):
        return f"trades-{name}"
    if isinstance(one, BookDelta):
        return f"depth-updates-{name}"
    if isinstance(one, FeedGap):
        return f"gaps-{name}"
    return f"candles-{one.timeframe}-{name}"


def _merged(name: str, files: Sequence[Path]) -> pa.Table:
    tables, num_messages = [], 0
    for file in files:
        try:
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise InvalidRecording(
                f"{file}: expected a piece of a recording, was damaged ({error}); remove the "
                "folder it is in, and what it held is missing in the recording"
            ) from None
        if "message" in table.column_names and table.num_rows:
            numbers = table["message"].to_numpy() + num_messages
            num_messages = int(numbers[-1]) + 1
            table = _with(table, "message", numbers)
        tables.append(table)
    whole = pa.concat_tables(tables)
    keys = [_sortable(whole[column]) for column in SORTED_BY[kind_of(name)]]
    whole = whole.take(np.lexsort(keys[::-1])).combine_chunks()
    if "message" in whole.column_names:
        changes_N = np.diff(whole["message"].to_numpy(), prepend=-1) != 0
        whole = _with(whole, "message", np.cumsum(changes_N) - 1)
    return whole


def _with(table: pa.Table, name: str, values: Ints) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))


def _sortable(column: pa.ChunkedArray) -> Ints:
    is_time = pa.types.is_timestamp(column.type)
    values: Ints = (column.cast(pa.int64()) if is_time else column).to_numpy()
    return values


def _trades(trades: Sequence[Trade]) -> Columns:
    sides = [int(t.is_buy) for t in trades]
    return {
        "ts": _times([t.ts_ns for t in trades]),
        "ts_local": _times([t.received_ns for t in trades]),
        "trade_id": pa.array([t.trade_id for t in trades], pa.int64()),
        "price": pa.array([t.price for t in trades], pa.float64()),
        "size": pa.array([t.size for t in trades], pa.float64()),
        "side": _words(TRADE_COLUMNS["side"], sides),
    }


def _depth(deltas: Sequence[BookDelta]) -> Columns:
    sides, parts = [], []
    for delta in deltas:
        num_bids, num_asks = len(delta.bids_L2), len(delta.asks_L2)
        if num_bids + num_asks:
            parts += [delta.bids_L2, delta.asks_L2]
            sides.append(np.repeat((BID, ASK), (num_bids, num_asks)))
        else:  # its numbers keep the sequence whole
            parts.append(NO_LEVEL)
            sides.append(np.array([NONE]))
    levels_L2 = np.concatenate(parts) if parts else np.empty((0, 2))
    rows = [len(side) for side in sides]
    each: dict[str, Ints] = {
        name: np.repeat(np.array([getattr(delta, name) for delta in deltas], np.int64), rows)
        for name in ("ts_ns", "received_ns", "is_snapshot", "first_id", "last_id")
    }
    prev_ids = [-1 if delta.prev_id is None else delta.prev_id for delta in deltas]
    return {
        "ts": _times(each["ts_ns"]),
        "ts_local": _times(each["received_ns"]),
        "event": _words(DEPTH_COLUMNS["event"], each["is_snapshot"]),
        "first_id": pa.array(each["first_id"]),
        "last_id": pa.array(each["last_id"]),
        "prev_id": pa.array(np.repeat(np.array(prev_ids, np.int64), rows)),
        "message": pa.array(np.repeat(np.arange(len(deltas)), rows), pa.int64()),
        "side": _words(DEPTH_COLUMNS["side"], np.concatenate(sides) if sides else []),
        "price": pa.array(levels_L2[:, 0], pa.float64()),
        "size": pa.array(levels_L2[:, 1], pa.float64()),
    }


def _candles(found: Sequence[BarSeries | Bar]) -> Columns:
    opens: list[int] = []
    rows: list[Sequence[float]] = []
    came: list[int] = []
    for one in found:
        is_event = isinstance(one, Bar)
        if isinstance(one, Bar):
            opens.append(one.open_ns)
            rows.append((one.open, one.high, one.low, one.close, one.volume))
        else:
            opens += one.open_ns_T.tolist()
            rows += one.ohlcv_TC.tolist()
        came += [int(is_event)] * (len(opens) - len(came))
    ohlcv_TC = np.array(rows, np.float64).reshape(-1, 5)
    names = list(CANDLE_COLUMNS)[1:]
    prices = {name: pa.array(ohlcv_TC[:, i]) for i, name in enumerate(names)}
    return {"ts": _times(opens), **prices, "came": _words(CAME, came)}


def _gaps(gaps: Sequence[FeedGap]) -> Columns:
    return {
        "ts": _times([gap.ts_ns for gap in gaps]),
        "from_ts": _times([gap.from_ns for gap in gaps]),
        "reason": pa.array([gap.reason for gap in gaps], pa.string()),
        "lost": _words(LOST, [int(gap.is_book_lost) for gap in gaps]),
    }


def _times(values: Iterable[int]) -> pa.Array:
    return pa.array(np.array(values, np.int64)).cast(UTC_NS)


def _words(words: Any, places: Any) -> pa.Array:
    indices = pa.array(np.array(places, np.int8))
    return pa.DictionaryArray.from_arrays(indices, pa.array(words)).cast(pa.string())


_COLUMNS_OF: Mapping[str, Callable[[Sequence[Any]], Columns]] = {
    "trades": _trades,
    "depth": _depth,
    "candles": _candles,
    "gaps": _gaps,
}
