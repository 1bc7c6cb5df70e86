"""Keep the newest rows of a stream in arrays whose views, once handed out, never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alphapulse.domain.market import Bools, Flags, Floats, Ints
from alphapulse.domain.windows import Shown
from alphapulse.features.rows import BUCKET_COLUMNS

# axes: T row, oldest first · C column of the rows
FIRST_SIZE = 1_024  # rows there is room for at first; a busy second of BTC has some hundred trades

Show = Callable[..., object]  # of the rows and the arrays of a Shown
Kind = tuple[type[np.generic], int]  # of a value, and how many a row; 0 is a plain column
WHOLE, REAL = (np.int64, 0), (np.float64, 0)
TRADES: tuple[Kind, ...] = (WHOLE, WHOLE, WHOLE, REAL, WHOLE, (np.bool_, 0))
BUCKETS: tuple[Kind, ...] = (
    WHOLE, REAL, (np.float64, len(BUCKET_COLUMNS)), (np.uint8, len(BUCKET_COLUMNS)),
)  # fmt: skip


class Rows:
    """Rows of one stream, written once: a view that was handed out never changes.

    Beside each row lies what models see of it, so that an input is made by copying.
    """

    def __init__(
        self, *, keep: int, num_columns: int, room: Callable[[int], Shown], show: Show
    ) -> None:
        """Make room.

        Args:
            keep: number of rows.
            num_columns: of a row.
            room: makes arrays for what models see of so many rows.
            show: writes what models see of rows into them.
        """
        self._keep, self._room, self._show = keep, room, show
        self._num = 0
        self._flags_T: Flags
        self._allocate(4 * keep, num_columns)

    def __len__(self) -> int:
        return min(self._num, self._keep)

    def append(self, ts_ns: int, row_C: Floats, flags: int) -> None:
        """Write the next row; the oldest leaves once `keep` are there."""
        if self._num == len(self._ts_ns_T):  # move on to new memory: views keep the old
            ts_ns_T, rows_TC, flags_T, seen = self.newest(self._keep)
            self._allocate(self._num, self._rows_TC.shape[1])
            self._num = len(ts_ns_T)
            for array, rows in zip(self._arrays, (ts_ns_T, rows_TC, flags_T, *seen), strict=True):
                array[: self._num] = rows
        at = slice(self._num, self._num + 1)
        self._ts_ns_T[at] = ts_ns
        self._rows_TC[at] = row_C
        self._flags_T[at] = flags
        self._show(self._rows_TC[at], *(array[at] for array in self._shown))
        self._num += 1

    def flag(self, bit: int, *, from_ns: int, until_ns: int, but: int = 0) -> None:
        """Set a bit of the rows from one time to another [ns UTC], both included.

        Args:
            bit: to set; views that were handed out do not show it.
            from_ns: time of the first row [ns UTC].
            until_ns: time of the last row [ns UTC].
            but: rows with one of these bits stay as they are.
        """
        first, last = np.searchsorted(self._ts_ns_T[: self._num], (from_ns, until_ns + 1))
        wanted_T: Bools = (self._flags_T[first:last] & (bit | but)) == 0
        if wanted_T.any():
            self._flags_T = self._flags_T.copy()
            self._flags_T[first:last][wanted_T] |= bit

    def newest(self, count: int, *, from_ns: int = 0) -> tuple[Ints, Floats, Flags, Shown]:
        """Return read-only views of the newest `count` rows at or after `from_ns`."""
        first = max(self._num - min(count, self._keep), 0)
        first += int(np.searchsorted(self._ts_ns_T[first : self._num], from_ns))
        shown = slice(first, self._num)
        ts_ns_T, rows_TC, flags_T, *seen = read_only(*(array[shown] for array in self._arrays))
        return ts_ns_T, rows_TC, flags_T, Shown(*seen)

    @property
    def _arrays(self) -> tuple[Any, ...]:
        return self._ts_ns_T, self._rows_TC, self._flags_T, *self._shown

    def _allocate(self, size: int, num_columns: int) -> None:
        self._ts_ns_T = np.empty(size, np.int64)
        self._rows_TC = np.empty((size, num_columns))
        self._flags_T = np.empty(size, np.uint8)
        self._shown = self._room(size)


class Columns:
    """Columns of equal length, written once at the end and left behind at the start.

    Columns that are full move on to new memory, with as much room again as is still needed; the
    views that were handed out keep the old. So no reader sees a row appear or leave.
    """

    def __init__(self, *kinds: Kind) -> None:
        """Make room; the first of `kinds`, a column each, is that of a time [ns UTC]."""
        self._kinds = kinds
        self._first = self._num = 0
        self._columns = self._room(FIRST_SIZE)

    def __len__(self) -> int:
        return self._num - self._first

    def extend(self, columns: Sequence[Any]) -> None:
        """Write the next rows, oldest first: an array or one value for all of them a column."""
        count = len(columns[-1])
        if self._num + count > len(self._columns[0]):
            self._move(max(2 * (len(self) + count), FIRST_SIZE))
        self._write(columns, count)

    def renewed(self, *, from_ns: int, until_ns: int) -> tuple[Any, ...]:
        """Return the rows `between` two times to be written anew.

        They lie in new memory: the views that were handed out keep the old.
        """
        self._move(len(self._columns[0]))
        return self._between(from_ns, until_ns)

    def between(self, *, from_ns: int, until_ns: int) -> tuple[Any, ...]:
        """Return read-only views of the rows from one time to another [ns UTC], both included."""
        return read_only(*self._between(from_ns, until_ns))

    def forget(self, before_ns: int) -> None:
        """Leave the rows before the whole second `before_ns` [ns UTC] behind."""
        self._first += int(np.searchsorted(self._columns[0][self._first : self._num], before_ns))

    def all(self) -> tuple[Any, ...]:
        """Return read-only views of all rows kept, oldest first."""
        return read_only(*(column[self._first : self._num] for column in self._columns))

    def _between(self, from_ns: int, until_ns: int) -> tuple[Any, ...]:
        times_ns = self._columns[0][self._first : self._num]
        first, last = np.searchsorted(times_ns, (from_ns, until_ns + 1)) + self._first
        return tuple(column[first:last] for column in self._columns)

    def _move(self, size: int) -> None:
        kept = self.all()
        self._columns = self._room(size)
        self._first = self._num = 0
        self._write(kept, len(kept[0]))

    def _write(self, columns: Sequence[Any], count: int) -> None:
        end = self._num + count
        for column, new in zip(self._columns, columns, strict=True):
            column[self._num : end] = new
        self._num = end

    def _room(self, size: int) -> list[Any]:
        # of few different sizes, so that what is left behind is used again, whoever looks on
        size = 1 << (size - 1).bit_length()
        return [np.empty((size, width) if width else size, kind) for kind, width in self._kinds]


def read_only(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays after locking them against writing."""
    for array in arrays:
        array.flags.writeable = False
    return arrays
