"""Find what one lake lacks of another, or holds otherwise: bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset

from alphapulse.domain.errors import StoreError
from alphapulse.storage.lake.columns import arrow_schema
from alphapulse.storage.lake.delta import Lake, day_of
from alphapulse.storage.retention.database import cursor
from alphapulse.storage.retention.policy import DAY_NS
from alphapulse.storage.tables import COLUMNS, KEYS


def pieces_of(lake: Lake, table: str, where: pa.dataset.Expression) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in the lake that a condition names, a piece at a time."""
    stored = lake.read(table, writers=[])[0]
    if stored is None:
        return
    try:
        yield from stored.to_batches(columns=list(COLUMNS[table]), filter=where)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"lake {lake.uri}/{table}: {error}; check that it can be read, then prune again"
        ) from error


def whole(table: str, pieces: list[pa.RecordBatch]) -> pa.Table:
    """Return pieces of a table as one, empty without any."""
    return pa.Table.from_batches(pieces, schema=arrow_schema(table))


def missing(table: str, source: pa.Table, there: pa.Table) -> pa.Table:
    """Return the rows of `source` whose key is not `there`."""
    sql = f"SELECT * FROM source ANTI JOIN there USING ({', '.join(KEYS[table])})"
    return _sql(sql, source=source, there=there).cast(source.schema)


def alike(lake: Lake, table: str, source: pa.Table) -> pa.Table:
    """Return the rows of a table in a lake that may be those of `source`."""
    field, event_ns = pa.dataset.field, source["event_ns"].to_numpy()
    days = [day_of(int(day) * DAY_NS) for day in np.unique(event_ns // DAY_NS)]
    where = field("day").isin(days) & field("symbol").isin(source["symbol"].unique().to_pylist())
    where &= field("run").isin(source["run"].unique().to_pylist())
    where &= field("event_ns").isin(pa.array(np.unique(event_ns)))
    return whole(table, list(pieces_of(lake, table, where)))


def differing(source: pa.Table, there: pa.Table) -> list[int]:
    """Return the instant of each row of `source` that is not `there` bit for bit [ns UTC]."""
    name = "ts_ns" if "ts_ns" in source.schema.names else "event_ns"
    found = _sql(
        "SELECT * FROM source EXCEPT ALL SELECT * FROM there",
        source=_as_bits(source),
        there=_as_bits(there),
    )
    times: list[int] = found[name].to_pylist()
    return times


def _as_bits(table: pa.Table) -> pa.Table:
    """Return a table with its floats as the integers of their bits: -0.0 differs from 0.0."""
    columns = {
        name: pa.chunked_array([c.view(pa.int64()) for c in column.chunks], pa.int64())
        if pa.types.is_float64(column.type)
        else column
        for name, column in zip(table.schema.names, table.columns, strict=True)
    }
    return pa.table(columns)


def _sql(sql: str, **tables: pa.Table) -> pa.Table:
    with cursor() as database:
        for name, table in tables.items():
            database.register(name, table)
        try:
            return database.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise StoreError(f"comparing rows: {error}; free memory, then prune again") from error
