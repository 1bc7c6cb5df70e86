"""Every recorded second, all 50 columns of the book's row are what a plain dict of levels gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alphapulse.data.book import Book, BookChange
from alphapulse.data.tape import book_messages, read_depth
from alphapulse.domain.market import SECOND_NS, BookDelta, Floats, Instrument
from alphapulse.features.rows import BOOK_COLUMNS

LOTS, TICK = 10**8, Fraction(1, 100)
Levels = dict[int, int]  # lots by tick
Best = tuple[int, int, int, int]  # tick and lots of the best bid, then of the best ask
Trades = list[tuple[float, bool]]  # size, whether the aggressor bought

INSTRUMENTS = (Instrument("ETH/USDT", 0.01, 1.0), Instrument("BTC/USDT", 0.01, 10.0))


@dataclass
class DictBook:
    """Lots by tick in a dict a side; everything is looked up by going through all of them."""

    bids: Levels = field(default_factory=dict)
    asks: Levels = field(default_factory=dict)
    reach: tuple[int, int] = (0, 0)

    def set(self, delta: BookDelta) -> None:
        sides = (self.bids, delta.bids_L2.tolist()), (self.asks, delta.asks_L2.tolist())
        for side, levels in sides:
            if delta.is_snapshot:
                side.clear()
            side |= {round(price * 100): round(size * LOTS) for price, size in levels}
            for tick in [tick for tick, lots in side.items() if not lots]:
                del side[tick]
        if delta.is_snapshot:
            self.reach = min(self.bids), max(self.asks)

    def best(self) -> Best:
        bid, ask = max(self.bids), min(self.asks)
        return bid, self.bids[bid], ask, self.asks[ask]

    def near(self, low: Fraction, high: Fraction) -> int:
        """Return the lots of the bids less those of the asks from `low` to `high` [ticks]."""
        bids, asks = (
            sum(lots for tick, lots in side.items() if low <= tick <= high)
            for side in (self.bids, self.asks)
        )
        return bids - asks

    def bins(self) -> list[float]:
        bid, _, ask, _ = self.best()
        mid = Fraction(bid + ask, 2)
        width, found = mid * 5 / 10_000, []
        for side, reach, sign in ((self.bids, self.reach[0], -1), (self.asks, self.reach[1], 1)):
            lots_J = [0] * 20
            for tick, lots in side.items():
                j = math.floor(sign * (tick - mid) / width)
                if j < 20:
                    lots_J[j] += lots
            known = math.floor(sign * (reach - mid) / width)
            found += [lots / LOTS if j < known else math.nan for j, lots in enumerate(lots_J)]
        return found


def flow(now: Best, before: Best) -> int:
    """Return e_n of Cont, Kukanov, Stoikov (2014), section 2.1, in lots."""
    bid, bid_lots, ask, ask_lots = now
    bid0, bid0_lots, ask0, ask0_lots = before
    return (
        (bid_lots if bid >= bid0 else 0)
        - (bid0_lots if bid <= bid0 else 0)
        - (ask_lots if ask <= ask0 else 0)
        + (ask0_lots if ask >= ask0 else 0)
    )


def expected(
    now: DictBook, before: DictBook | None, ofi: int, trades: Trades, num_updates: int
) -> list[float]:
    """Return the row of a second, its flows and counts unknown if `before` is."""
    bid, bid_lots, ask, ask_lots = now.best()
    mid = Fraction(bid + ask, 2)
    spread = (ask - bid) / mid * 10_000
    microprice = Fraction(bid * ask_lots + ask * bid_lots, bid_lots + ask_lots)
    row = [
        *now.bins(),
        float(mid * TICK),
        float(spread),
        (bid_lots - ask_lots) / (bid_lots + ask_lots),
        float((microprice / mid - 1) * 10_000),
    ]
    if before is None:
        return [*row, *[math.nan] * 6]
    low, high = mid * 999 / 1_000, mid * 1_001 / 1_000
    is_known = low >= max(now.reach[0], before.reach[0]) and high <= min(
        now.reach[1], before.reach[1]
    )
    levels = now.near(low, high) - before.near(low, high)
    bought, sold = (
        sum(round(size * LOTS) for size, is_buy in trades if is_buy == wanted)
        for wanted in (True, False)
    )
    return [
        *row,
        ofi / LOTS,
        levels / LOTS if is_known else math.nan,
        bought / LOTS,
        sold / LOTS,
        len(trades),
        num_updates,
    ]


def messages(recordings: Path, instrument: Instrument) -> list[BookDelta]:
    columns = read_depth(recordings / f"depth-updates-{instrument.venue_symbol}.parquet")
    found = book_messages(columns, instrument.symbol)
    return sorted(found, key=lambda delta: (delta.ts_ns, delta.last_id))


def trades_by_second(recordings: Path, instrument: Instrument) -> dict[int, Trades]:
    rows = pd.read_parquet(recordings / f"trades-{instrument.venue_symbol}.parquet")
    columns = zip(rows.ts.astype("int64"), rows["size"], rows.side == "buy", strict=True)
    by_second = groupby(columns, key=lambda row: row[0] // SECOND_NS)
    return {second: [row[1:] for row in own] for second, own in by_second}


def seconds(recordings: Path, instrument: Instrument) -> Iterator[tuple[Floats, list[float]]]:
    """Yield every second's row as the book gives it and as the dicts do."""
    trades = trades_by_second(recordings, instrument)
    book, plain = Book(instrument), DictBook()
    before: DictBook | None = None
    waiting: list[BookDelta] = []
    by_second = groupby(messages(recordings, instrument), key=lambda d: d.ts_ns // SECOND_NS)
    for second, deltas in by_second:
        ofi = num_updates = 0
        for delta in deltas:
            num_updates += 1
            change = book.apply(delta)
            if change is BookChange.BUFFERED:
                waiting.append(delta)
            if change is not BookChange.APPLIED:
                assert change in (BookChange.BUFFERED, BookChange.STALE)
                continue
            best = plain.best() if plain.bids else None
            plain.set(delta)
            for early in waiting if delta.is_snapshot else ():
                if early.last_id > delta.last_id:
                    plain.set(early)
            ofi += flow(plain.best(), best) if best is not None else 0
        for size, is_buy in trades.get(second, []):
            book.note_trade(1.0, size, is_buy=is_buy)
        row_B = book.second_row((second + 1) * SECOND_NS)
        if plain.bids:
            yield row_B, expected(plain, before, ofi, trades.get(second, []), num_updates)
            before = DictBook(dict(plain.bids), dict(plain.asks), plain.reach)


@pytest.mark.parametrize(
    ("instrument", "num_flows"),
    # BTC comes within 10 bps of where its snapshot of 1000 levels ended, 33 bps away
    [(INSTRUMENTS[0], 650), (INSTRUMENTS[1], 294)],
    ids=["ETH", "BTC"],
)
def test_rows_of_a_book_equal_a_plain_look_at_all_levels_in_every_recorded_second(
    recordings: Path, instrument: Instrument, num_flows: int
) -> None:
    pairs = list(seconds(recordings, instrument))
    found_TB, expected_TB = (np.array(rows) for rows in zip(*pairs, strict=True))

    for name, found_T, expected_T in zip(BOOK_COLUMNS, found_TB.T, expected_TB.T, strict=True):
        np.testing.assert_allclose(found_T, expected_T, rtol=1e-15, atol=1e-15, err_msg=name)
    assert len(pairs) == 651
    assert np.count_nonzero(~np.isnan(found_TB[:, BOOK_COLUMNS.index("ofi_levels")])) == num_flows
