"""Find a recording of a market and replay it as the stream of events it was."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.data.history import (
    CANDLE_COLUMNS,
    COUNT,
    NUMBER,
    TIME,
    Columns,
    Kind,
    read_candles,
    read_columns,
    require_columns,
)
from alphapulse.data.merge import BAR_RANK, BOOK_RANK, GAP_RANK, TRADE_RANK
from alphapulse.data.recorded import CAME, gap_files, read_came, read_gaps, with_numbers
from alphapulse.domain.errors import InvalidBar, InvalidEvent, InvalidRecording, NoData
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    Flags,
    Instrument,
    Ints,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider

VARIABLE = "ALPHAPULSE_RECORDINGS"
CANDLES = (Timeframe.M1, Timeframe.H1, Timeframe.D1)
TURN_EVENTS = 256  # events between two turns for everybody else on the event loop
FOREVER_NS = int(np.iinfo(np.int64).max)

TRADE_COLUMNS: Mapping[str, Kind] = {
    "ts": TIME, "ts_local": TIME, "trade_id": COUNT, "price": NUMBER, "size": NUMBER,
    "side": ("sell", "buy"),
}  # fmt: skip
DEPTH_COLUMNS: Mapping[str, Kind] = {
    "ts": TIME, "ts_local": TIME, "event": ("diff", "snap"), "first_id": COUNT, "last_id": COUNT,
    "side": ("bid", "ask", "none"), "price": NUMBER, "size": NUMBER,
}  # fmt: skip
MESSAGE_COLUMNS = ("ts", "event", "first_id", "last_id")  # what the rows of a message share

# One stream of one symbol: events (None: could not be built), their times, their sequence.
Built = tuple[list[MarketEvent | None], Ints, Ints]
NONE: Ints = np.empty(0, np.int64)


def tick_files(instruments: Sequence[Instrument]) -> dict[str, Mapping[str, Kind]]:
    """Return the names of the trade and depth files of `instruments`, with the columns of each."""
    names: dict[str, Mapping[str, Kind]] = {}
    for instrument in instruments:
        names[f"trades-{instrument.venue_symbol}.parquet"] = TRADE_COLUMNS
        names[f"depth-updates-{instrument.venue_symbol}.parquet"] = DEPTH_COLUMNS
    return names


def candle_files(instruments: Sequence[Instrument]) -> dict[str, Mapping[str, Kind]]:
    """Return the names of the candle files of `instruments`, with the columns of each."""
    return {
        f"candles-{timeframe}-{instrument.venue_symbol}.parquet": CANDLE_COLUMNS
        for instrument in instruments
        for timeframe in CANDLES
    }


def find_recording(
    path: Path | None,
    instruments: Sequence[Instrument],
    environ: Mapping[str, str],
    *,
    roots: Sequence[Path] = (),
) -> Path:
    """Return the folder of the recording to replay.

    Looks at `path` (--recording), else at ALPHAPULSE_RECORDINGS, else through `roots`. A folder may
    itself be a recording, with or without ticks, or hold recordings as sub-folders: then the one
    with the newest trade is taken among those that hold trades, depth and 1m, 1h, 1d candles.

    Args:
        path: folder given by hand, None if none is.
        instruments: what the recording must hold.
        environ: environment variables.
        roots: folders searched where nothing is given; they need not exist.

    Raises NoData if nothing is given and nothing found, InvalidRecording if the given folder is
    not there, is no recording, or a file in it cannot be read.
    """
    named = path or (Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    if named is not None:
        return _given(named, instruments, by="--recording" if path else VARIABLE)
    found = [folder for root in roots for folder in _recordings(root, instruments)]
    if not found:
        looked = ", ".join(str(root) for root in roots) or "no folder"
        raise NoData(
            f"no market data: expected a reachable exchange or a recording, found no recording in "
            f"{looked}; connect this machine to an exchange (--source live), or name a folder of "
            f"recordings with --recording DIR or {VARIABLE}"
        )
    return _newest(found, instruments)


def _given(folder: Path, instruments: Sequence[Instrument], *, by: str) -> Path:
    if not folder.is_dir():
        raise InvalidRecording(
            f"{by} {folder}: expected a folder, found none; correct the path, or leave it out"
        )
    candles, ticks = candle_files(instruments), tick_files(instruments)
    missing = _missing(folder, candles | ticks)
    if not missing or missing == sorted(ticks):
        _require_readable(folder, instruments)
        return folder
    found = _recordings(folder, instruments)
    if found:
        return _newest(found, instruments)
    raise InvalidRecording(
        f"{by} {folder}: expected a recording or a folder of recordings, but these files are "
        f"missing: {', '.join(missing)}; add them or name another folder"
    )


def _missing(folder: Path, names: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in names if not (folder / name).is_file())


def _recordings(root: Path, instruments: Sequence[Instrument]) -> list[Path]:
    wanted = candle_files(instruments) | tick_files(instruments)
    folders = [root, *sorted(root.iterdir())] if root.is_dir() else []
    return [folder for folder in folders if folder.is_dir() and not _missing(folder, wanted)]


def _newest(folders: Sequence[Path], instruments: Sequence[Instrument]) -> Path:
    for folder in folders:
        _require_readable(folder, instruments)
    return max(folders, key=lambda folder: (_last_trade_ns(folder, instruments), folder.name))


def _last_trade_ns(folder: Path, instruments: Sequence[Instrument]) -> int:
    files = [folder / f"trades-{instrument.venue_symbol}.parquet" for instrument in instruments]
    return max(int(read_columns(file, {"ts": TIME})["ts"].max()) for file in files)


def _require_readable(folder: Path, instruments: Sequence[Instrument]) -> None:
    for name, columns in _used(folder, instruments).items():
        require_columns(folder / name, columns)


def _used(folder: Path, instruments: Sequence[Instrument]) -> dict[str, Mapping[str, Kind]]:
    names = candle_files(instruments) | tick_files(instruments) | gap_files(instruments)
    return {name: names[name] for name in sorted(names) if (folder / name).is_file()}


def content_hash(path: Path, instruments: Sequence[Instrument]) -> str:
    """Return sha256 over name and bytes of every file a Tape of `path` uses, hex."""
    digest = hashlib.sha256()
    for name in _used(path, instruments):
        with (path / name).open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


class Tape(DataProvider):
    """A recording as a source of events: every event at its exchange time, the same each time.

    The venue's own candles come as events at their close, those that had closed before the first
    event as history. Without ticks, in the recording or by choice, candles are all there is.

    Attributes:
        name: name of the recording's folder.
        has_ticks: whether trades and book are replayed.
        first_ns: first event, or `from_ns` where only candles are replayed [ns UTC].
        last_ns: last tick, or last candle where only candles are replayed [ns UTC].
        quarantine: (code, message) of every event of the newest replay that could not be built.
    """

    def __init__(
        self,
        path: Path,
        instruments: Sequence[Instrument],
        *,
        with_ticks: bool = True,
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> None:
        """Read the recording in `path`.

        Args:
            path: folder of the recording.
            instruments: what is replayed; at one instant in this order.
            with_ticks: whether to replay trades and book, where the recording has them.
            from_ns: oldest event time [ns UTC], inclusive; None is the recording's first tick,
                or its first candle where only candles are replayed.
            until_ns: newest event time [ns UTC], exclusive; None is the recording's end.

        Raises InvalidRecording, naming file and row, if a file is missing, damaged or wrong, or
        if there is no event between `from_ns` and `until_ns`.
        """
        self.name = path.name
        self.quarantine: list[tuple[str, str]] = []
        self._path = path
        self._instruments = tuple(instruments)
        self._candles = {
            (i.symbol, timeframe): read_candles(
                path / f"candles-{timeframe}-{i.venue_symbol}.parquet", i, timeframe
            )
            for i in self._instruments
            for timeframe in CANDLES
        }
        names = tick_files(self._instruments)
        self.has_ticks = with_ticks and any((path / name).is_file() for name in names)
        low = 0 if from_ns is None else from_ns
        high = FOREVER_NS if until_ns is None else until_ns
        self._span_ns = low, high
        self._came: dict[tuple[str, Timeframe], Flags | None] = {}
        self._ticks: dict[str, Columns] = {}
        if self.has_ticks:
            self._came = {
                (i.symbol, t): read_came(path / f"candles-{t}-{i.venue_symbol}.parquet")
                for i in self._instruments
                for t in CANDLES
            }
            read = {n: _ticks(path / n, names[n]) for n in names}
            self._ticks = {n: _between(columns, low, high) for n, columns in read.items()}
            times = [columns["ts"] for columns in self._ticks.values()]
        else:
            times = [_ts_ns(series) for series in self._candles.values()]
        ts_T = np.concatenate(times)
        ts_T = ts_T[(ts_T >= low) & (ts_T < high)]
        if not len(ts_T):
            raise InvalidRecording(
                f"{path}: expected events from {from_ns} until {until_ns} [ns UTC], found none; "
                "choose a time the recording holds"
            )
        self.last_ns = int(ts_T.max())
        self.first_ns = int(ts_T.min()) if self.has_ticks or from_ns is None else from_ns

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the newest `count` bars (all, if None) closed at or before `first_ns`.

        Where the recording says which candles came before its first event, it is those.
        """
        series = self._candles.get((instrument.symbol, timeframe))
        if series is None:  # seconds are made of trades only
            return BarSeries(
                instrument.symbol, timeframe, np.empty(0, np.int64), np.empty((0, 5), np.float64)
            )
        came_T = self._came.get((instrument.symbol, timeframe))
        if came_T is None:
            closed = series.until(self.first_ns)
        else:
            is_past_T = (came_T == CAME.index("history")) | (_ts_ns(series) < self._span_ns[0])
            opens_T, ohlcv_TC = series.open_ns_T[is_past_T], series.ohlcv_TC[is_past_T]
            closed = BarSeries(instrument.symbol, timeframe, opens_T, ohlcv_TC)
        return closed if count is None else closed.last(count)

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield the events in order of (exchange time, stream, symbol, sequence)."""
        self.quarantine = []
        for number, event in enumerate(self._ordered()):
            if number % TURN_EVENTS == 0:
                await asyncio.sleep(0)
            yield event

    def health(self) -> Mapping[str, Any]:
        """Return how many events of the newest replay could not be built, by code."""
        return {"quarantined": Counter(code for code, _ in self.quarantine)}

    def _ordered(self) -> list[MarketEvent]:
        """Return every event that can be built, in order; the others go to the quarantine."""
        events: list[MarketEvent | None] = []
        keys: list[Ints] = []  # (4, N): exchange time, stream, symbol, sequence
        streams = (
            (GAP_RANK, self._gaps),
            (BOOK_RANK, self._book),
            (TRADE_RANK, self._trades),
            (BAR_RANK, self._bars),
        )
        for order, instrument in enumerate(self._instruments):
            for rank, build in streams:
                built, ts_N, sequence_N = build(instrument)
                places = np.full((2, len(built)), [[rank], [order]], np.int64)
                keys.append(np.vstack((ts_N, places, sequence_N)))
                events += built
        order_N = np.lexsort(np.hstack(keys)[::-1])
        return [event for i in order_N.tolist() if (event := events[i]) is not None]

    def _book(self, instrument: Instrument) -> Built:
        columns = self._ticks.get(f"depth-updates-{instrument.venue_symbol}.parquet")
        if columns is None:
            return [], NONE, NONE
        deltas = book_messages(columns, instrument.symbol)
        ids = [(delta.ts_ns, delta.last_id) for delta in deltas]
        ts_N, last_N = np.array(ids, np.int64).reshape(-1, 2).T
        return [*deltas], ts_N, last_N

    def _trades(self, instrument: Instrument) -> Built:
        columns = self._ticks.get(f"trades-{instrument.venue_symbol}.parquet")
        if columns is None:
            return [], NONE, NONE
        names = ("ts", "ts_local", "trade_id", "price", "size")
        values = [columns[name].tolist() for name in names]
        rows = zip(*values, (columns["side"] == 1).tolist(), strict=True)
        built = [self._build(Trade, instrument.symbol, *row) for row in rows]
        return built, columns["ts"], columns["trade_id"]

    def _gaps(self, instrument: Instrument) -> Built:
        none: Built = [], NONE, NONE
        return read_gaps(self._path, instrument, *self._span_ns) if self.has_ticks else none

    def _bars(self, instrument: Instrument) -> Built:
        built: list[MarketEvent | None] = []
        ts: list[Ints] = []
        sequence: list[Ints] = []
        for timeframe in CANDLES:
            series = self._candles[instrument.symbol, timeframe]
            ts_T = _ts_ns(series)
            came_T = self._came.get((instrument.symbol, timeframe))
            if came_T is None:
                shown_T = (ts_T >= self.first_ns) & (ts_T <= self.last_ns)
            else:
                low, high = self._span_ns
                shown_T = (came_T == CAME.index("event")) & (ts_T >= low) & (ts_T < high)
            opens = series.open_ns_T[shown_T].tolist()
            prices = series.ohlcv_TC[shown_T].tolist()
            built += [
                self._build(Bar, instrument.symbol, timeframe, open_ns, *row, True)
                for open_ns, row in zip(opens, prices, strict=True)
            ]
            ts.append(ts_T[shown_T])
            sequence.append(np.full(len(opens), timeframe.ns, np.int64))
        return built, np.concatenate(ts), np.concatenate(sequence)

    def _build(self, kind: type[Trade] | type[Bar], *values: Any) -> MarketEvent | None:
        try:
            return kind(*values)
        except (InvalidEvent, InvalidBar) as error:
            self.quarantine.append((error.code, str(error)))
            return None


def _ticks(file: Path, wanted: Mapping[str, Kind]) -> Columns:
    return read_depth(file) if wanted is DEPTH_COLUMNS else read_columns(file, wanted)


def read_depth(file: Path) -> Columns:
    """Return the columns of a depth file, with `prev_id` where the file has it.

    Raises InvalidRecording as `read_columns` does.
    """
    require_columns(file, DEPTH_COLUMNS)
    return read_columns(file, with_numbers(file, DEPTH_COLUMNS))


def book_messages(columns: Columns, symbol: str) -> list[BookDelta]:
    """Return the messages whose levels are the rows of a depth file, in the order of the file.

    Args:
        columns: of the file, as `read_depth` returns them; rows of a message adjoin.
        symbol: ccxt's name.
    """
    told = [name for name in (*MESSAGE_COLUMNS, "message") if name in columns]
    ids = np.vstack([columns[name] for name in told])
    begins = np.any(np.diff(ids, axis=1, prepend=-1) != 0, axis=0)
    start_N = np.flatnonzero(begins)
    bids_first = np.lexsort((columns["side"], np.cumsum(begins)))
    levels_L2 = np.column_stack((columns["price"], columns["size"]))[bids_first]
    levels_L2.setflags(write=False)
    middle_N = start_N + np.add.reduceat(columns["side"] == 0, start_N, dtype=np.int64)
    stop_N = start_N + np.add.reduceat(columns["side"] < 2, start_N, dtype=np.int64)
    names = ("ts", "ts_local", "first_id", "last_id")
    facts = np.column_stack([columns[name][start_N] for name in names]).tolist()
    snapshots = (columns["event"][start_N] == 1).tolist()
    bounds = np.column_stack((start_N, middle_N, stop_N)).tolist()
    prev_N = columns.get("prev_id", np.full(len(begins), -1))[start_N].tolist()
    prev_ids = [None if prev_id < 0 else prev_id for prev_id in prev_N]  # -1: none was sent
    return [
        BookDelta(symbol, ts, local, first, last, whole, levels_L2[a:b], levels_L2[b:c], prev_id)
        for (ts, local, first, last), whole, (a, b, c), prev_id in zip(
            facts, snapshots, bounds, prev_ids, strict=True
        )
    ]


def _ts_ns(series: BarSeries) -> Ints:
    """Return Bar.ts_ns of every bar: the last nanosecond of its period."""
    return series.open_ns_T + (series.timeframe.ns - 1)


def _between(columns: Columns, from_ns: int, until_ns: int) -> Columns:
    inside_N = (columns["ts"] >= from_ns) & (columns["ts"] < until_ns)
    return {name: values[inside_N] for name, values in columns.items()}
