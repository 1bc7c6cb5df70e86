"""Time NautilusTrader's OrderBook on a recording's messages: one run for every line it is sent.

Run by the Python of .venv-bench, which knows nothing of AlphaPulse; prints its version once it is
ready, then the seconds of a run for each line on its standard input.

    python nautilus_book.py TICK_SIZE DEPTH_FILE ...
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import nautilus_trader
import pandas as pd
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BookOrder, OrderBookDelta, OrderBookDeltas
from nautilus_trader.model.enums import BookAction, BookType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity

SIZE_DECIMALS = 8


def messages(file: Path, name: InstrumentId, decimals: int) -> list[OrderBookDeltas]:
    """Return the recorded snapshot and the changes after it, built before the clock starts."""
    rows = pd.read_parquet(file)
    snapshot_id = int(rows.last_id[rows.event == "snap"].iloc[0])
    rows = rows[(rows.event == "snap") | (rows.last_id > snapshot_id)]
    rows = rows.sort_values("last_id", kind="stable")  # the snapshot comes first
    grouped: dict[int, list[OrderBookDelta]] = {}
    columns = (rows.side, rows.price, rows["size"], rows.last_id, rows.ts.astype("int64"))
    for side, price, size, last_id, ts in zip(*(c.tolist() for c in columns), strict=True):
        order = BookOrder(
            OrderSide.BUY if side == "bid" else OrderSide.SELL,
            Price(price, decimals),
            Quantity(size, SIZE_DECIMALS),
            0,
        )
        action = BookAction.UPDATE if size else BookAction.DELETE
        delta = OrderBookDelta(name, action, order, 0, last_id, ts, ts)
        grouped.setdefault(last_id, []).append(delta)
    return [OrderBookDeltas(name, deltas) for deltas in grouped.values()]


def main() -> None:
    """Build the messages of every file, then time a run for each line read."""
    decimals = len(sys.argv[1].partition(".")[2])
    names = [InstrumentId.from_str(f"{Path(file).stem}.BINANCE") for file in sys.argv[2:]]
    streams = [
        messages(Path(file), name, decimals) for file, name in zip(sys.argv[2:], names, strict=True)
    ]
    books = [OrderBook(name, BookType.L2_MBP) for name in names]
    gc.collect()
    gc.freeze()
    print(nautilus_trader.__version__, flush=True)
    for _ in sys.stdin:
        for book in books:
            book.reset()
        begin = time.process_time()
        for book, stream in zip(books, streams, strict=True):
            apply = book.apply_deltas
            for message in stream:
                apply(message)
        print(time.process_time() - begin, flush=True)


if __name__ == "__main__":
    main()
