"""Whatever goes wrong at the exchange, the cache is the tape's again, and what is not is told.

ALPHAPULSE_FAULT_SEEDS=200 pytest tests/flows/test_fault_schedules.py      # seeds 0 to 199
ALPHAPULSE_FAULT_SEEDS=seed:17 pytest tests/flows/test_fault_schedules.py  # one of them
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.domain.market import LOTS, BarFlag, Trade
from alphapulse.features.rows import BOOK_COLUMN, BUCKET_COLUMN
from tests.exchange.columns import SECOND
from tests.exchange.schedules import VARIABLE, Schedule, blocks_trades, schedule, seeds, written
from tests.flows.faulted import INSTRUMENTS, SYMBOLS, Seen, Truth, lived, shown, truth

MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
# of the slices: a minute ends in the first, an hour and a day in the second; later on the price has
# left what the recorded snapshot shows
BEGINS = (MIDNIGHT - 310 * SECOND, MIDNIGHT - 10 * SECOND)
FLAGGED = BarFlag.VENUE | BarFlag.INCOMPLETE  # a bar that is not of all trades of its period
BEST_LEVELS = 200  # a side, that every snapshot of the slices shows


def is_told_of(seen: Seen, symbol: str, from_ns: int, until_ns: int) -> bool:
    """Return whether a gap that touches the stretch was told."""
    gaps = seen.told.gaps[symbol]
    return any(gap.from_ns < until_ns and gap.ts_ns >= from_ns for gap in gaps)


def facts(trade: Trade) -> tuple[Any, ...]:
    """Return all of a trade that does not depend on who received it when, as the cache has it."""
    return (trade.ts_ns, trade.trade_id, trade.price, round(trade.size * LOTS), trade.is_buy)


def cached(seen: Seen, symbol: str) -> list[tuple[Any, ...]]:
    """Return the trades in the cache before the newest instant, as `facts`."""
    trades = seen.feed.cache.trades(symbol)
    columns = (trades.ts_ns_N, trades.trade_id_N, trades.price_N, trades.lots_N, trades.is_buy_N)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [row for row in rows if row[0] < seen.reached_ns]


def wrong_trades(seen: Seen, known: Truth, faults: Schedule) -> list[str]:
    """Return what is wrong with the trades in the cache."""
    found, reached_ns = [], seen.reached_ns
    for symbol, kept in known.trades.items():
        trades = cached(seen, symbol)
        ids = [row[1] for row in trades]
        if ids != sorted(set(ids)):
            found.append(f"{symbol}: trades doubled or out of order")
        strange = [row for row in trades if row[1] not in kept or facts(kept[row[1]]) != row]
        if strange:
            found.append(f"{symbol}: {len(strange)} trades nobody made, the first is {strange[0]}")
        lost = [t for id, t in kept.items() if id not in set(ids) and t.ts_ns < reached_ns]
        untold = [t for t in lost if not is_told_of(seen, symbol, t.ts_ns, t.ts_ns + 1)]
        if untold:
            found.append(f"{symbol}: {len(untold)} trades lost untold, the first is {untold[0]}")
        said = seen.told.trade_ids[symbol]
        if said != sorted(set(said)):
            found.append(f"{symbol}: Live yielded trades twice or out of order")
        unkept = [t for t in lost if t.trade_id in set(said)]
        if unkept:
            found.append(f"{symbol}: {len(unkept)} trades came, but are not kept: {unkept[0]}")
        if lost and not blocks_trades(faults):
            found.append(f"{symbol}: {len(lost)} trades not fetched: {lost[0]}")
    return found


def wrong_bars(seen: Seen, known: Truth) -> list[str]:
    """Return what is wrong with the seconds and minutes in the cache."""
    found, reached_ns = [], seen.reached_ns
    windows = shown(seen.feed, reached_ns)
    for key, stream in known.windows[reached_ns].items():
        symbol, timeframe = key
        ours = windows[key]
        ours_T = zip(ours.rows_TC, ours.flags_T, strict=True)
        rows = dict(zip(ours.open_ns_T.tolist(), ours_T, strict=True))
        for open_ns, row_C in zip(stream.open_ns_T.tolist(), stream.rows_TC, strict=True):
            row = rows.pop(open_ns, None)
            if row is not None and np.array_equal(row[0][:5], row_C[:5]):
                continue
            is_told = is_told_of(seen, symbol, open_ns, open_ns + timeframe.ns)
            if not is_told or not (row is None or row[1] & FLAGGED):
                what = "missing" if row is None else f"{row[0][:5]} with flags {row[1]}"
                found.append(
                    f"{symbol} {timeframe} at {open_ns}: expected {row_C[:5]}, was {what}; "
                    f"{'' if is_told else 'not '}told"
                )
        found += [f"{symbol} {timeframe} at {open_ns}: a bar of nobody" for open_ns in rows]
    return found


def wrong_flows(seen: Seen, known: Truth) -> list[str]:
    """Return which seconds of the book tell of other trades than there were, without a flag."""
    found = []
    view = seen.feed.cache.view(SYMBOLS)
    for instrument in INSTRUMENTS:
        symbol, width = instrument.symbol, instrument.bucket_size
        lots: Counter[tuple[int, bool]] = Counter()  # by boundary
        bucket_lots: Counter[tuple[int, int, bool]] = Counter()  # by boundary and bucket
        for trade in known.trades[symbol].values():
            boundary_ns = trade.ts_ns - trade.ts_ns % SECOND + SECOND
            size, bucket = round(trade.size * LOTS), round(trade.price * 100) // round(width * 100)
            lots[boundary_ns, trade.is_buy] += size
            bucket_lots[boundary_ns, bucket, trade.is_buy] += size
        book, buckets = view.books[symbol], view.bucket_seconds[symbol]
        rows = zip(book.second_ns_T.tolist(), book.rows_TC, book.flags_T.tolist(), strict=True)
        for boundary_ns, row_C, flags in rows:
            for name, is_buy in (("bought", True), ("sold", False)):
                size = row_C[BOOK_COLUMN[name]]
                is_flagged = bool(flags & BarFlag.INCOMPLETE) or np.isnan(size)
                if not is_flagged and round(size * LOTS) != lots[boundary_ns, is_buy]:
                    found.append(f"{symbol} book at {boundary_ns}: {name} {size}")
        flat = (buckets.second_ns_R, buckets.price_R, buckets.rows_RC, buckets.known_RC)
        for boundary_ns, price, row_C, known_C in zip(*flat, strict=True):
            bucket = round(price * 100) // round(width * 100)
            for name, is_buy in (("bought", True), ("sold", False)):
                c = BUCKET_COLUMN[name]
                expected = bucket_lots[int(boundary_ns), bucket, is_buy]
                if known_C[c] and round(row_C[c] * LOTS) != expected:
                    found.append(f"{symbol} bucket {price} at {boundary_ns}: {name} {row_C[c]}")
    return found


def wrong_books(seen: Seen, known: Truth) -> list[str]:
    """Return what is wrong with the books in the cache."""
    found = []
    for symbol in SYMBOLS:
        book = seen.feed.cache.book(symbol)
        if not book["is_known"]:
            found.append(f"{symbol}: the book is not known again")
            continue
        quote = seen.feed.cache.quote(symbol, seen.reached_ns)
        kept = known.books.get((symbol, book["last_id"]))
        if quote is None or kept is None:
            found.append(f"{symbol}: no recorded book has the number {book['last_id']}")
            continue
        for side, levels in zip((quote.bids_L2, quote.asks_L2), kept, strict=True):
            if not np.array_equal(side[:BEST_LEVELS], levels[:BEST_LEVELS]):
                found.append(f"{symbol}: the book {book['last_id']} is not the recorded one")
    return found


@pytest.mark.parametrize("seed", seeds(os.environ))
def test_the_cache_is_the_tapes_after_a_schedule_of_faults(recordings: Path, seed: int) -> None:
    from_ns = BEGINS[seed % len(BEGINS)]
    known = truth(recordings, from_ns)
    faults = schedule(seed, from_ns, known.recording.symbols)

    seen = asyncio.run(lived(known, from_ns, faults))

    wrong = [seen.error] if seen.error else []
    if seen.reached_ns < max(known.windows) - SECOND:
        wrong.append(f"the feed stands at {seen.reached_ns}")
    else:
        wrong += wrong_trades(seen, known, faults)
        wrong += wrong_bars(seen, known) + wrong_flows(seen, known) + wrong_books(seen, known)
    assert not wrong, "\n".join(
        [
            f"reproduce with {VARIABLE}=seed:{seed}",
            *wrong[:8],
            "faults:",
            written(faults, from_ns),
            "told:",
            *(f"  {gap}" for gaps in seen.told.gaps.values() for gap in gaps[:6]),
            f"health: {seen.live.health()}",
            f"counters: {seen.feed.counters()}",
        ]
    )
