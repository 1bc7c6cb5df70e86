"""Delta tables that take the journal's batches, each exactly once through any crash.

A commit carries the journal's name and the batch's number (a Delta transaction), so the table
itself knows which batches it holds: a killed writer leaves a whole batch behind or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import SECOND_NS
from alphapulse.storage.journal_reader import JournalReader
from alphapulse.storage.tables import COLUMNS

PARTITIONS = ["symbol", "day"]
COMPACT_EVERY = (
    20  # batches between two compactions: keeps a day of a symbol at about as many files
)
KEEP_REPLACED_H = (
    1  # how long a file a compaction replaced stays for queries that still read it [h]
)
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bytes: pa.binary()}
_WRITER = WriterProperties(compression="ZSTD", compression_level=6)


def arrow_schema(table: str) -> pa.Schema:
    """Return the columns of one of the five tables, without the lake's `day`."""
    return pa.schema([(name, _ARROW[kind]) for name, kind in COLUMNS[table].items()])


def arrow_table(table: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return `rows` of one of the five tables, as a journal hands them out, as columns."""
    schema = arrow_schema(table)
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


class Lake:
    """The Delta tables `inferences`, `predictions`, `packages`, `rows`, `outcomes` at one address.

    Attributes:
        uri: a local folder or an object store's address; `day` is the UTC day of `event_ns`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._tables: dict[str, DeltaTable] = {}

    def read(
        self, table: str, *, writers: Sequence[str]
    ) -> tuple[pyarrow.dataset.Dataset | None, list[int]]:
        """Return a table as it is, None without a batch, and the newest batch inside by writer."""
        delta = self._newest(table)
        if delta is None:
            return None, [0] * len(writers)
        with self._failing(table):
            # an older lake lacks the newer columns: they are null
            return delta.to_pyarrow_dataset(schema=_with_day(table)), [
                delta.transaction_version(writer) or 0 for writer in writers
            ]

    def take(self, journal: JournalReader, *, writer: str) -> int:
        """Write every named batch of `journal` a table lacks and return the number of commits.

        A batch that holds nothing for a table makes no commit there.
        """
        commits = 0
        for table in COLUMNS:
            for batch in journal.batches(after=self.read(table, writers=[writer])[1][0]):
                after, to = batch.span(table)
                if after == to:
                    continue
                content = arrow_table(table, journal.select(table, after=after, to=to))
                self._write(table, content, Transaction(writer, batch.number))
                commits += 1
                if batch.number % COMPACT_EVERY == 0:
                    self.compact(table)
        return commits

    def compact(self, table: str) -> None:
        """Join the small files of a table and remove those replaced long ago; no row changes."""
        delta = self._newest(table)
        if delta:
            with self._failing(table):
                delta.optimize.compact(writer_properties=_WRITER)
                delta.vacuum(
                    retention_hours=KEEP_REPLACED_H, dry_run=False, enforce_retention_duration=False
                )

    def _write(self, table: str, content: pa.Table, transaction: Transaction) -> None:
        with_day = content.append_column(
            "day", pa.array(_days(content["event_ns"].to_pylist()), pa.string())
        )
        with self._failing(table):
            write_deltalake(
                self._created(table),
                with_day,
                mode="append",
                schema_mode="merge",  # an older lake lacks the newer columns
                writer_properties=_WRITER,
                commit_properties=CommitProperties(app_transactions=[transaction]),
            )

    def _created(self, table: str) -> DeltaTable:
        if table not in self._tables:
            address = f"{self.uri}/{table}"
            self._tables[table] = DeltaTable.create(
                address, _with_day(table), mode="ignore", partition_by=PARTITIONS
            )
        return self._tables[table]

    @contextmanager
    def opened(self, table: str) -> Iterator[DeltaTable | None]:
        """Lend a table at its newest version, None without a batch; what fails is a StoreError."""
        with self._failing(table):
            yield self._newest(table)

    def _newest(self, table: str) -> DeltaTable | None:
        with self._failing(table):
            try:
                if table in self._tables:
                    self._tables[table].update_incremental()
                else:
                    self._tables[table] = DeltaTable(f"{self.uri}/{table}")
            except TableNotFoundError:
                self._tables.pop(table, None)
        return self._tables.get(table)

    @contextmanager
    def _failing(self, table: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (DeltaError, pa.ArrowException, OSError) as error:
            self._tables.clear()  # the next call opens them anew, whatever became of them
            raise StoreError(
                f"lake {self.uri}/{table}: {error}; check that the folder or object store can be "
                "reached and has room; the journal keeps every batch until then"
            ) from error


def _with_day(table: str) -> pa.Schema:
    return arrow_schema(table).append(pa.field("day", pa.string()))


def _days(event_ns: Sequence[int]) -> list[str]:
    return [datetime.fromtimestamp(ns // SECOND_NS, UTC).strftime("%Y-%m-%d") for ns in event_ns]
