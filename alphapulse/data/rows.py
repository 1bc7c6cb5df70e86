"""Keep the newest rows of a stream in arrays whose views, once handed out, never change."""

from __future__ import annotations

from typing import Any

import numpy as np

from alphapulse.domain.market import Flags, Floats, Ints, Trades

# axes: T row, oldest first · C column of the rows · N trade
FIRST_SIZE = 1_024  # trades there is room for at first; a busy second of BTC has some hundred


class Rows:
    """Rows of one stream, written once: a view that was handed out never changes."""

    def __init__(self, *, keep: int, num_columns: int) -> None:
        self._keep = keep
        self._num = 0
        self._allocate(4 * keep, num_columns)

    def __len__(self) -> int:
        return min(self._num, self._keep)

    def append(self, ts_ns: int, row_C: Floats, flags: int) -> None:
        """Write the next row; the oldest leaves once `keep` are there."""
        if self._num == len(self._ts_ns_T):  # move on to new memory: views keep the old
            ts_ns_T, rows_TC, flags_T = self.newest(self._keep)
            self._allocate(len(self._ts_ns_T), self._rows_TC.shape[1])
            self._num = len(ts_ns_T)
            self._ts_ns_T[: self._num] = ts_ns_T
            self._rows_TC[: self._num] = rows_TC
            self._flags_T[: self._num] = flags_T
        self._ts_ns_T[self._num] = ts_ns
        self._rows_TC[self._num] = row_C
        self._flags_T[self._num] = flags
        self._num += 1

    def newest(self, count: int, *, from_ns: int = 0) -> tuple[Ints, Floats, Flags]:
        """Return read-only views of the newest `count` rows at or after `from_ns`."""
        first = max(self._num - min(count, self._keep), 0)
        first += int(np.searchsorted(self._ts_ns_T[first : self._num], from_ns))
        shown = slice(first, self._num)
        ts_ns_T, rows_TC = self._ts_ns_T[shown], self._rows_TC[shown]
        flags_T = self._flags_T[shown]
        ts_ns_T.flags.writeable = rows_TC.flags.writeable = flags_T.flags.writeable = False
        return ts_ns_T, rows_TC, flags_T

    def _allocate(self, size: int, num_columns: int) -> None:
        self._ts_ns_T = np.empty(size, np.int64)
        self._rows_TC = np.empty((size, num_columns))
        self._flags_T = np.empty(size, np.uint8)


class TradeRows:
    """Trades of one symbol as columns: written once at the end, left behind at the start.

    Columns that are full move on to new memory, with as much room again as is still needed; the
    views that were handed out keep the old. So no reader sees a trade appear or leave.
    """

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._first = self._num = 0
        self._columns = _room(FIRST_SIZE)

    def __len__(self) -> int:
        return self._num - self._first

    def extend(self, trades: Trades) -> None:
        """Write the next trades, oldest first."""
        if self._num + len(trades) > len(self._columns[0]):
            kept = self.all()
            self._columns = _room(max(2 * (len(kept) + len(trades)), FIRST_SIZE))
            self._first = self._num = 0
            self._write(kept)
        self._write(trades)

    def forget(self, before_ns: int) -> None:
        """Leave the trades before the whole second `before_ns` [ns UTC] behind."""
        self._first += int(np.searchsorted(self._columns[0][self._first : self._num], before_ns))

    def all(self) -> Trades:
        """Return read-only views of all trades kept, oldest first."""
        columns = [column[self._first : self._num] for column in self._columns]
        for column in columns:
            column.flags.writeable = False
        return Trades(self._symbol, *columns)

    def _write(self, trades: Trades) -> None:
        end = self._num + len(trades)
        for column, new in zip(self._columns, trades.columns, strict=True):
            column[self._num : end] = new
        self._num = end


def _room(size: int) -> list[Any]:
    kinds = (np.int64, np.int64, np.int64, np.float64, np.int64, np.bool_)  # as Trades.columns
    return [np.empty(size, kind) for kind in kinds]
