"""Say which recordings there are: what is in each file, what is missing, what can be replayed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.data.history import (
    CANDLE_COLUMNS,
    COUNT,
    read_columns,
    require_columns,
    require_sound,
)
from alphapulse.data.recorded import GAP_COLUMNS
from alphapulse.data.tape import (
    DEPTH_COLUMNS,
    TRADE_COLUMNS,
    VARIABLE,
    candle_files,
    content_hash,
    tick_files,
)
from alphapulse.domain.errors import InvalidRecording
from alphapulse.domain.market import SECOND_NS, BarSeries, Instrument, Ints, Timeframe

FILE = re.compile(
    r"(?P<kind>trades|depth-updates|gaps|candles-(?P<number>[1-9]\d*)(?P<unit>[smhdw]))-(?P<symbol>.+)"
    r"\.parquet"
)
UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
KNOWN_TIMEFRAMES = {timeframe.value for timeframe in Timeframe}


@dataclass(frozen=True, slots=True)
class Gaps:
    """The holes of one file, oldest first.

    Attributes:
        from_ns_N: last row before each hole, or a candle file's first missing open [ns UTC].
        until_ns_N: first row after each hole [ns UTC].
        missing_N: bars or trades missing in each; None where numbers do not tell (depth).
    """

    from_ns_N: Ints
    until_ns_N: Ints
    missing_N: Ints | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """What one file holds; every number is None where the file cannot be read.

    Attributes:
        recording: name of the folder.
        file: name of the file.
        kind: `trades`, `depth`, `gaps` or `candles`.
        timeframe: of candles, such as `1m`.
        symbol: the venue's name, such as `ETHUSDT`.
        rows: number of rows; a tick file may have none, and then says nothing else.
        first_ns: oldest exchange time, for candles an open [ns UTC].
        last_ns: newest one [ns UTC].
        gaps: number of holes; in a file of gaps, those the recorder was told of.
        missing: trade ids or bars that are not there; None for depth, whose numbers are shared by
            everything a venue sends.
        longest_gap_s: length of the longest hole [s], 0 without one.
        longest_gap_ns: where it begins [ns UTC], None without one.
        complete_pct: trades or bars that are there [% of those between first and last]; for depth
            the time outside holes [%]; for gaps None.
        error: why the file cannot be read, None where it can.
    """

    recording: str
    file: str
    kind: str
    timeframe: str | None
    symbol: str
    rows: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    gaps: int | None = None
    missing: int | None = None
    longest_gap_s: float | None = None
    longest_gap_ns: int | None = None
    complete_pct: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One folder of recorded market data.

    Attributes:
        path: the folder.
        replay: `ticks`, `candles` (no ticks there) or `no`.
        reason: why it cannot be replayed, empty where it can.
        content_hash: `alphapulse.data.tape.content_hash`, None where it cannot be replayed.
        files: its files, by name.
        num_others: files in the folder that are none of these; no replay reads them.
    """

    path: Path
    replay: str
    reason: str
    content_hash: str | None
    files: tuple[RecordedFile, ...]
    num_others: int

    def as_row(self) -> dict[str, Any]:
        """Return the recording without its files, as plain values."""
        row = {"recording": self.path.name, **asdict(self), "path": str(self.path)}
        return row | {"files": len(self.files)}


def list_recordings(
    path: Path | None,
    instruments: Sequence[Instrument],
    environ: Mapping[str, str],
    *,
    roots: Sequence[Path] = (),
) -> list[Recording]:
    """Return every recording where `find_recording` looks, read from end to end.

    Looks at `path` (--recording), else at ALPHAPULSE_RECORDINGS, else through `roots`: each folder
    itself and its sub-folders. A file that cannot be read is one of the files, with its error.

    Args:
        path: folder given by hand, None if none is.
        instruments: what a replay needs.
        environ: environment variables.
        roots: folders searched where nothing is given; they need not exist.

    Raises InvalidRecording if the given folder is not there.
    """
    named = path or (Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    if named is not None and not named.is_dir():
        raise InvalidRecording(
            f"{'--recording' if path else VARIABLE} {named}: expected a folder, found none; "
            "correct the path, or leave it out"
        )
    looked = [root for root in ([named] if named else roots) if root.is_dir()]
    folders = [folder for root in looked for folder in (root, *sorted(root.iterdir()))]
    return [
        _recording(folder, instruments)
        for folder in folders
        # a download that is under way hides behind a dot
        if folder.is_dir() and not folder.name.startswith(".") and _names(folder)
    ]


def read_series(file: Path, symbol: str, timeframe: Timeframe) -> BarSeries:
    """Return the closed bars of a candle file of any symbol, oldest first.

    Raises InvalidRecording, naming the file and the row, as `read_candles` does.
    """
    columns = read_columns(file, CANDLE_COLUMNS)
    ohlcv_TC = np.column_stack([columns[name] for name in list(CANDLE_COLUMNS)[1:]])
    series = BarSeries(symbol, timeframe, columns["ts"], ohlcv_TC)
    require_sound(series, where=str(file))
    return series


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if FILE.fullmatch(entry.name))


def _recording(folder: Path, instruments: Sequence[Instrument]) -> Recording:
    names = _names(folder)
    files = tuple(_file(folder / name) for name in names)
    replay, reason = _replay(files, instruments)
    return Recording(
        path=folder,
        replay=replay,
        reason=reason,
        content_hash=None if replay == "no" else content_hash(folder, instruments),
        files=files,
        num_others=sum(entry.is_file() for entry in folder.iterdir()) - len(names),
    )


def _replay(files: Sequence[RecordedFile], instruments: Sequence[Instrument]) -> tuple[str, str]:
    """Return whether `up` can replay these files, and why not."""
    ticks, candles = tick_files(instruments), candle_files(instruments)
    there = {file.file for file in files}
    missing = {name for name in (*ticks, *candles) if name not in there}
    if missing and missing != set(ticks):
        return "no", f"missing: {', '.join(sorted(missing))}"
    used = {*ticks, *candles} - missing
    damaged = [file.file for file in files if file.error and file.file in used]
    if damaged:
        return "no", f"not readable: {', '.join(damaged)}"
    return ("candles" if missing else "ticks"), ""


def _file(file: Path) -> RecordedFile:
    match = FILE.fullmatch(file.name)
    assert match is not None  # _names gives no other
    is_candle = match["number"] is not None
    kind = "candles" if is_candle else match["kind"].removesuffix("-updates")
    timeframe = f"{match['number']}{match['unit']}" if is_candle else None
    told: dict[str, Any] = {
        "recording": file.parent.name,
        "file": file.name,
        "kind": kind,
        "timeframe": timeframe,
        "symbol": match["symbol"],
    }
    try:
        if kind == "trades":
            told |= _read_trades(file)
        elif kind == "depth":
            told |= _read_depth(file)
        elif kind == "gaps":
            told |= _read_told_gaps(file)
        else:
            length_ns = int(match["number"]) * UNIT_S[match["unit"]] * SECOND_NS
            told |= _read_bars(file, match["symbol"], str(timeframe), length_ns)
    except InvalidRecording as error:
        told["error"] = str(error)
    return RecordedFile(**told)


def _read_trades(file: Path) -> dict[str, Any]:
    columns = read_columns(file, TRADE_COLUMNS)
    ids_N, first_N = np.unique(columns["trade_id"], return_index=True)
    ts_N = columns["ts"][first_N]
    before_N = np.flatnonzero(np.diff(ids_N) > 1)
    missing_N = np.diff(ids_N)[before_N] - 1
    gaps = Gaps(ts_N[before_N], ts_N[before_N + 1], missing_N)
    there_pct = 100 * len(ids_N) / max(1, len(ids_N) + int(missing_N.sum()))
    return _facts(file, columns["ts"], gaps, complete_pct=there_pct)


def _read_bars(file: Path, symbol: str, timeframe: str, length_ns: int) -> dict[str, Any]:
    if timeframe in KNOWN_TIMEFRAMES:
        opens_T = read_series(file, symbol, Timeframe(timeframe)).open_ns_T
    else:  # no replay reads it: the opens are enough
        opens_T = read_columns(file, CANDLE_COLUMNS)["ts"]
        if not np.all(np.diff(opens_T) > 0):
            row = int(np.argmax(np.diff(opens_T) <= 0)) + 1
            raise InvalidRecording(
                f"{file} row {row}: expected an open later than the one before, was {opens_T[row]} "
                "[ns UTC]; repair or re-download the bars"
            )
    before_N = np.flatnonzero(np.diff(opens_T) > length_ns)
    from_N, until_N = opens_T[before_N] + length_ns, opens_T[before_N + 1]
    missing_N = (until_N - from_N) // length_ns
    there_pct = 100 * len(opens_T) / max(1, len(opens_T) + int(missing_N.sum()))
    return _facts(file, opens_T, Gaps(from_N, until_N, missing_N), complete_pct=there_pct)


def _read_depth(file: Path) -> dict[str, Any]:
    """Return the facts of a depth file; a hole is a change that does not follow what was known.

    A venue's change either names the number of the one before (`prev_id`), or begins with the next
    number. A snapshot ends a hole it covers.
    """
    columns = read_columns(file, DEPTH_COLUMNS)
    ids = np.vstack([columns[name] for name in ("ts", "event", "first_id", "last_id")])
    begins_N = np.flatnonzero(np.any(np.diff(ids, axis=1, prepend=-1) != 0, axis=0))
    ts_N, is_snapshot_N, first_N, last_N = ids[:, begins_N]
    named_N = _prev_ids(file, len(columns["ts"]))[begins_N]
    follows_N = np.where(named_N >= 0, named_N, first_N - 1)
    known_N = np.maximum.accumulate(last_N)
    is_hole_N = (follows_N[1:] > known_N[:-1]) & (is_snapshot_N[1:] == 0)
    before_N = np.flatnonzero(is_hole_N)
    gaps = Gaps(ts_N[before_N], np.maximum(ts_N[before_N + 1], ts_N[before_N]), None)
    lost_ns = int((gaps.until_ns_N - gaps.from_ns_N).sum())
    length_ns = int(np.ptp(ts_N)) if len(ts_N) else 0
    return _facts(file, ts_N, gaps, complete_pct=100 * (1 - lost_ns / max(1, length_ns))) | {
        "rows": len(columns["ts"])
    }


def _read_told_gaps(file: Path) -> dict[str, Any]:
    columns = read_columns(file, GAP_COLUMNS)
    gaps = Gaps(columns["from_ts"], columns["ts"], None)
    return _facts(file, columns["ts"], gaps, complete_pct=None)


def _prev_ids(file: Path, rows: int) -> Ints:
    """Return the number each row's change follows, -1 where the venue does not say."""
    try:
        require_columns(file, {"prev_id": COUNT})
    except InvalidRecording:
        return np.full(rows, -1, np.int64)
    return read_columns(file, {"prev_id": COUNT})["prev_id"]


def _facts(file: Path, ts_N: Ints, gaps: Gaps, *, complete_pct: float | None) -> dict[str, Any]:
    if not len(ts_N) and file.name.startswith("candles-"):
        raise InvalidRecording(f"{file}: expected rows, was empty; re-record or remove the file")
    if not len(ts_N):  # nobody traded while it was recorded
        return {"rows": 0}
    length_N = gaps.until_ns_N - gaps.from_ns_N
    longest = int(np.argmax(length_N)) if len(length_N) else None
    return {
        "rows": len(ts_N),
        "first_ns": int(ts_N.min()),
        "last_ns": int(ts_N.max()),
        "gaps": len(length_N),
        "missing": None if gaps.missing_N is None else int(gaps.missing_N.sum()),
        "longest_gap_s": 0.0 if longest is None else int(length_N[longest]) / SECOND_NS,
        "longest_gap_ns": None if longest is None else int(gaps.from_ns_N[longest]),
        "complete_pct": complete_pct,
    }
