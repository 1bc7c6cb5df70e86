"""Read what only a recording made by `alphapulse record` says: told gaps, and how candles came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alphapulse.data.history import COUNT, TEXT, TIME, Kind, read_columns, require_columns
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import FeedGap, Flags, Instrument, Ints, MarketEvent

LOST = ("trades", "all")
GAP_COLUMNS: Mapping[str, Kind] = {"ts": TIME, "from_ts": TIME, "reason": TEXT, "lost": LOST}
CAME = ("history", "event")
NO_ROWS: Ints = np.empty(0, np.int64)


def gap_files(instruments: Sequence[Instrument]) -> dict[str, Mapping[str, Kind]]:
    """Return the names of the files of told gaps with their columns; a recording may lack them."""
    return {f"gaps-{instrument.venue_symbol}.parquet": GAP_COLUMNS for instrument in instruments}


def with_numbers(file: Path, wanted: Mapping[str, Kind]) -> Mapping[str, Kind]:
    """Return `wanted`, and the further numbers of a message where the depth file has them.

    `message` is its place in the recording, `prev_id` the last_id of the one before (-1: none).
    """
    return {**wanted, **{name: COUNT for name in ("message", "prev_id") if _has(file, name)}}


def read_gaps(
    path: Path, instrument: Instrument, from_ns: int, until_ns: int
) -> tuple[list[MarketEvent | None], Ints, Ints]:
    """Return the gaps told from `from_ns` until before `until_ns`, their times and beginnings."""
    file = path / f"gaps-{instrument.venue_symbol}.parquet"
    if not file.is_file():
        return [], NO_ROWS, NO_ROWS
    columns = read_columns(file, GAP_COLUMNS)
    inside_N = (columns["ts"] >= from_ns) & (columns["ts"] < until_ns)
    ts_N, from_N, reason_N, lost_N = (columns[name][inside_N] for name in GAP_COLUMNS)
    is_book_lost = (lost_N == LOST.index("all")).tolist()
    rows = zip(ts_N.tolist(), from_N.tolist(), reason_N.tolist(), is_book_lost, strict=True)
    return [FeedGap(instrument.symbol, *row) for row in rows], ts_N, from_N


def read_came(file: Path) -> Flags | None:
    """Return how each candle of a file came, as its place in CAME; None where it does not say."""
    return read_columns(file, {"came": CAME})["came"] if _has(file, "came") else None


def _has(file: Path, column: str) -> bool:
    """Return whether the Parquet file has that column."""
    try:
        require_columns(file, {column: COUNT})
    except InvalidRecording:
        return False
    return True
