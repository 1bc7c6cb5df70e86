"""How the columns of the tables are laid out, in Arrow and in the files of a lake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import BloomFilterProperties, ColumnProperties, WriterProperties

from alphapulse.storage.tables import COLUMNS

ROW_GROUP = 8_192  # rows that a reader skips at once by their times: two hours of decisions
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bytes: pa.binary()}
_UNLIKE = frozenset({"id", "inference_id", "order_id", "trace_id", "input_hash"})
# How a column is laid out before zstd; texts that recur stay in a dictionary: of the bytes of
# recorded decisions this saves about a tenth. The least and greatest array says nothing. Those of
# an id neither, but deltalake hands a missing one to pyarrow as a bound that nothing is within.
_OTHER = ColumnProperties(statistics_enabled="CHUNK")
_FLOAT = ColumnProperties(
    dictionary_enabled=False, encoding="BYTE_STREAM_SPLIT", statistics_enabled="CHUNK"
)
_INT = ColumnProperties(
    dictionary_enabled=False, encoding="DELTA_BINARY_PACKED", statistics_enabled="CHUNK"
)
_BLOB = ColumnProperties(
    dictionary_enabled=False, encoding="DELTA_LENGTH_BYTE_ARRAY", statistics_enabled="NONE"
)
_ID = ColumnProperties(
    dictionary_enabled=False, encoding="DELTA_LENGTH_BYTE_ARRAY", statistics_enabled="CHUNK"
)
# An inference is asked for by its id: one row group in twenty is read in vain, for a byte a row.
_FOUND = ColumnProperties(
    dictionary_enabled=False,
    encoding="DELTA_LENGTH_BYTE_ARRAY",
    statistics_enabled="CHUNK",
    bloom_filter_properties=BloomFilterProperties(True, fpp=0.05, ndv=ROW_GROUP),
)
LEVEL, LAST_LEVEL = (
    6,
    19,
)  # of zstd: the last is slow, saves a tenth, and is for what stays as it is
_LAID_OUT = {float: _FLOAT, int: _INT, bytes: _BLOB}


def arrow_schema(table: str) -> pa.Schema:
    """Return the columns of a table, without the lake's `day`."""
    return pa.schema([(name, _ARROW[kind]) for name, kind in COLUMNS[table].items()])


def arrow_table(table: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return `rows` of a table, as a journal hands them out, as columns."""
    schema = arrow_schema(table)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def writer_properties(table: str, *, level: int = LEVEL) -> WriterProperties:
    """Return how the files of a table are laid out and compressed."""
    columns = COLUMNS[table].items()
    laid_out = {name: _LAID_OUT[kind] for name, kind in columns if kind in _LAID_OUT}
    laid_out |= {name: _ID for name, _ in columns if name in _UNLIKE}
    if table == "inferences":
        laid_out["id"] = _FOUND
    return WriterProperties(
        compression="ZSTD",
        compression_level=level,
        max_row_group_size=ROW_GROUP,
        default_column_properties=_OTHER,
        column_properties=laid_out,
    )
