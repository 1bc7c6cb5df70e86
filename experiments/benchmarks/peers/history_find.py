"""Find one row by its id straight on the files of a Delta table.

.venv-bench/bin/python -m experiments.benchmarks.peers.history_find ENGINE TABLE ID
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

ENGINE, TABLE, ID = sys.argv[1:4]
DELTA = deltalake.DeltaTable(TABLE)
FILES = DELTA.file_uris()


def by_duckdb() -> Callable[[], list[object]]:
    """Return the search of an open DuckDB connection over the files."""
    files = ", ".join(f"'{file}'" for file in FILES)
    sql = f"SELECT * FROM read_parquet([{files}], hive_partitioning = true) WHERE id = '{ID}'"
    connection = duckdb.connect()
    return lambda: connection.execute(sql).fetchall()


def by_polars() -> Callable[[], list[object]]:
    """Return the search of a lazy scan of the files."""
    found = pl.scan_parquet(FILES, hive_partitioning=True).filter(pl.col("id") == ID)
    return lambda: found.collect().rows()


def by_pyarrow() -> Callable[[], list[object]]:
    """Return the search of a dataset that stays open."""
    dataset = DELTA.to_pyarrow_dataset()
    return lambda: dataset.to_table(filter=ds.field("id") == ID).to_pylist()


ENGINES = {
    "duckdb": (f"DuckDB {duckdb.__version__}", by_duckdb),
    "polars": (f"polars {pl.__version__}", by_polars),
    "pyarrow": (f"pyarrow {pa.__version__} dataset kept open", by_pyarrow),
}


if __name__ == "__main__":
    version, prepared = ENGINES[ENGINE]
    run = prepared()
    assert len(run()) == 1, "expected the one row of that id"
    serve(f"{version}, 1 row of {len(FILES)} files", run)
