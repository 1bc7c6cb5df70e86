"""Make 1s, 1m, 1h and 1d bars tick by tick with NautilusTrader's TimeBarAggregator.

.venv-bench/bin/python -m experiments.benchmarks.peers.nautilus_bars ETHUSDT.parquet ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import nautilus_trader  # only in .venv-bench
import pandas as pd
from nautilus_trader.common.component import TestClock
from nautilus_trader.data.aggregation import TimeBarAggregator
from nautilus_trader.model.data import BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import TradeId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from experiments.benchmarks.peers.peer import serve

INSTRUMENTS = {
    "BTCUSDT": TestInstrumentProvider.btcusdt_binance(),
    "ETHUSDT": TestInstrumentProvider.ethusdt_binance(),
}
TIMEFRAMES = ("1-SECOND", "1-MINUTE", "1-HOUR", "1-DAY")
SIDES = {"buy": AggressorSide.BUYER, "sell": AggressorSide.SELLER}


def ticks(file: Path) -> Iterator[TradeTick]:
    """Yield the trades of a file as the peer's own objects."""
    instrument = INSTRUMENTS[file.stem.partition("-")[2]]
    table = pd.read_parquet(file).astype({"ts": "int64"})
    for row in table.itertuples():
        yield TradeTick(
            instrument.id,
            Price(row.price, instrument.price_precision),
            Quantity(row.size, instrument.size_precision),
            SIDES[row.side],
            TradeId(str(row.trade_id)),
            row.ts,
            row.ts,
        )


def main() -> None:
    """Read the trades of the files named, then make all their bars at each line of stdin."""
    files = map(Path, sys.argv[1:])
    merged = sorted((t for file in files for t in ticks(file)), key=lambda t: t.ts_init)

    def run() -> None:
        clock = TestClock()
        clock.set_time(merged[0].ts_init)
        bars: list[object] = []
        handlers = {
            i.id: [
                TimeBarAggregator(
                    i, BarType.from_str(f"{i.id}-{tf}-LAST-INTERNAL"), bars.append, clock
                ).handle_trade_tick
                for tf in TIMEFRAMES
            ]
            for i in INSTRUMENTS.values()
        }
        for tick in merged:
            for event in clock.advance_time(tick.ts_init):
                event.handle()
            for handle in handlers[tick.instrument_id]:
                handle(tick)

    serve(f"NautilusTrader {nautilus_trader.__version__} TimeBarAggregator x 8", run)


if __name__ == "__main__":
    main()
