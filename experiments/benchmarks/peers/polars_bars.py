"""Make 1s, 1m, 1h and 1d bars of whole histories with polars, as fast as it can.

.venv-bench/bin/python -m experiments.benchmarks.peers.polars_bars trades.parquet ...
"""

from __future__ import annotations

import sys

import polars as pl  # only in .venv-bench

from experiments.benchmarks.peers.peer import serve

TIMEFRAMES = ("1s", "1m", "1h", "1d")


def main() -> None:
    """Read the trades of the files named, then make all their bars at each line of stdin."""
    columns = ["ts", "price", "size"]
    tables = [pl.read_parquet(file, columns=columns).sort("ts") for file in sys.argv[1:]]
    price = pl.col("price")
    bar = [
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        pl.col("size").sum().alias("volume"),
        pl.len().alias("count"),
    ]

    def run() -> None:
        for table in tables:
            for timeframe in TIMEFRAMES:
                table.group_by_dynamic("ts", every=timeframe).agg(bar)

    serve(f"polars {pl.__version__} group_by_dynamic", run)


if __name__ == "__main__":
    main()
