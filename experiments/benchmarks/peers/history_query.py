"""Answer one query straight on the files of a Delta table, as a pandas frame in event order.

.venv-bench/bin/python -m experiments.benchmarks.peers.history_query ENGINE TABLE COLUMNS \
SYMBOL TIMEFRAME FROM_NS TO_NS
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import deltalake  # all of .venv-bench
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

from experiments.benchmarks.peers.peer import serve

ENGINE, TABLE, COLUMNS, SYMBOL, TIMEFRAME = sys.argv[1:6]
FROM_NS, TO_NS = map(int, sys.argv[6:8])
NAMES = COLUMNS.split(",")
DELTA = deltalake.DeltaTable(TABLE)
FILES = DELTA.file_uris()


def by_duckdb() -> Callable[[], object]:
    """Return the query of an open DuckDB connection over the files."""
    files = ", ".join(f"'{file}'" for file in FILES)
    sql = (
        f"SELECT {COLUMNS} FROM read_parquet([{files}], hive_partitioning = true) "
        f"WHERE symbol = '{SYMBOL}' AND timeframe = '{TIMEFRAME}' "
        f"AND event_ns >= {FROM_NS} AND event_ns < {TO_NS} ORDER BY event_ns"
    )
    connection = duckdb.connect()
    return lambda: connection.execute(sql).df()


def by_polars() -> Callable[[], object]:
    """Return the query of a lazy scan of the files."""
    scan = pl.scan_parquet(FILES, hive_partitioning=True)
    found = (
        scan.filter(
            (pl.col("symbol") == SYMBOL)
            & (pl.col("timeframe") == TIMEFRAME)
            & pl.col("event_ns").is_between(FROM_NS, TO_NS, closed="left")
        )
        .select(NAMES)
        .sort("event_ns")
    )
    return lambda: found.collect().to_pandas()


def by_pyarrow() -> Callable[[], object]:
    """Return the query of a dataset that stays open."""
    dataset = DELTA.to_pyarrow_dataset()
    asked = (
        (ds.field("symbol") == SYMBOL)
        & (ds.field("timeframe") == TIMEFRAME)
        & (ds.field("event_ns") >= FROM_NS)
        & (ds.field("event_ns") < TO_NS)
    )
    return lambda: dataset.to_table(columns=NAMES, filter=asked).sort_by("event_ns").to_pandas()


ENGINES = {
    "duckdb": (f"DuckDB {duckdb.__version__}", by_duckdb),
    "polars": (f"polars {pl.__version__}", by_polars),
    "pyarrow": (f"pyarrow {pa.__version__} dataset kept open", by_pyarrow),
}


if __name__ == "__main__":
    version, prepared = ENGINES[ENGINE]
    run = prepared()
    serve(f"{version}, {len(run())} rows of {len(FILES)} files", run)
