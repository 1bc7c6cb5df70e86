"""Read a symbol's recorded book changes and keep its book as of the played moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.exchange.columns import MS, ns_of
from tests.exchange.wire import Payload, written

Levels = list[tuple[float, float]]
Sides = tuple[dict[float, float], dict[float, float]]  # bids, asks: size by price


class Depth:
    """Every book change of one symbol and the recorded snapshot, oldest first.

    Attributes:
        known_ns: time of the last change the snapshot holds [ns UTC]; before it the book is not
            known. The snapshot itself was received later.
        ts_N: int64 (N,) time of each change [ns UTC].
    """

    def __init__(self, file: Path, symbol: str) -> None:
        """Read `file`."""
        table = pq.read_table(file)
        self._symbol = symbol
        ts, is_snap = ns_of(table, "ts"), np.array(table["event"].to_pylist()) == "snap"
        first, last = table["first_id"].to_numpy(), table["last_id"].to_numpy()
        keys = np.vstack((ts, is_snap, first, last))
        start_N = np.flatnonzero(np.any(np.diff(keys, axis=1, prepend=-1) != 0, axis=0))
        stop_N = np.append(start_N[1:], len(ts))
        is_change = ~is_snap[start_N]
        snapshot = int(np.flatnonzero(~is_change)[0])
        self._is_bid = (np.array(table["side"].to_pylist()) == "bid").tolist()
        self._prices, self._sizes = table["price"].to_pylist(), table["size"].to_pylist()
        self._snapshot_rows = range(int(start_N[snapshot]), int(stop_N[snapshot]))
        self._snapshot_id = int(last[start_N[snapshot]])
        starts = start_N[is_change]
        self.ts_N, self._first_N, self._last_N = ts[starts], first[starts], last[starts]
        self._bounds = np.column_stack((starts, stop_N[is_change])).tolist()
        held = int(np.searchsorted(self._last_N, self._snapshot_id, side="right"))
        self.known_ns = int(self.ts_N[max(held - 1, 0)])

    def levels(self, row: int) -> tuple[Levels, Levels]:
        """Return the bids and asks that a change sets; size 0 removes a level."""
        return self._sides(range(*self._bounds[row]))

    def _sides(self, rows: range) -> tuple[Levels, Levels]:
        sides: tuple[Levels, Levels] = ([], [])
        for i in rows:
            sides[0 if self._is_bid[i] else 1].append((self._prices[i], self._sizes[i]))
        return sides

    def ids(self, row: int) -> tuple[int, int]:
        """Return the first and last update number of a change."""
        return int(self._first_N[row]), int(self._last_N[row])

    def book_before(self, row: int) -> OpenBook:
        """Return the book as it was before a change, from the snapshot on."""
        bids, asks = self._sides(self._snapshot_rows)
        reach = min(price for price, _ in bids), max(price for price, _ in asks)
        book = OpenBook((dict(bids), dict(asks)), self._snapshot_id, reach)
        for earlier in range(row):
            if self._last_N[earlier] > self._snapshot_id:
                book.apply(self.levels(earlier), self.ids(earlier)[1])
        return book

    def stream_payload(self, row: int, *, shift_ns: int, shift_ids: int) -> Payload:
        """Return the message of `<symbol>@depth@100ms`, moved by a number of laps."""
        bids, asks = self.levels(row)
        first, last = self.ids(row)
        return {
            "e": "depthUpdate",
            "E": (int(self.ts_N[row]) + shift_ns) // MS,
            "s": self._symbol,
            "U": first + shift_ids,
            "u": last + shift_ids,
            "b": written(bids),
            "a": written(asks),
        }


@dataclass(slots=True)
class OpenBook:
    """The book of one symbol as of the played moment.

    Attributes:
        sides: bids and asks, size by price.
        last_id: number of the newest change inside.
        reach: lowest bid and highest ask of the recorded snapshot: what lies between the levels
            beyond is not known.
    """

    sides: Sides
    last_id: int
    reach: tuple[float, float]

    def apply(self, levels: tuple[Levels, Levels], last_id: int) -> None:
        """Take a change."""
        for side, changes in zip(self.sides, levels, strict=True):
            for price, size in changes:
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
        self.last_id = last_id

    def copy(self) -> OpenBook:
        """Return a book of its own."""
        return OpenBook((dict(self.sides[0]), dict(self.sides[1])), self.last_id, self.reach)

    def payload(self, limit: int) -> Payload:
        """Return the answer of `/api/v3/depth`: the best `limit` levels a side within the reach."""
        lowest, highest = self.reach
        bids = sorted(
            (level for level in self.sides[0].items() if level[0] >= lowest), reverse=True
        )
        asks = sorted(level for level in self.sides[1].items() if level[0] <= highest)
        return {
            "lastUpdateId": self.last_id,
            "bids": written(bids[:limit]),
            "asks": written(asks[:limit]),
        }
