"""Delta tables that take the journal's batches, each exactly once through any crash.

A commit carries the journal's name and the batch's number (a Delta transaction), so the table
itself knows which batches it holds: a killed writer leaves a whole batch behind or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import SECOND_NS, Bools
from alphapulse.storage.journal.reader import Batch, JournalReader
from alphapulse.storage.lake.columns import arrow_schema, arrow_table, writer_properties
from alphapulse.storage.lake.durable import bring_commits_to_disk, sync
from alphapulse.storage.lake.forming import Forming
from alphapulse.storage.lake.object_store import explain, is_object_store, storage_options
from alphapulse.storage.tables import COLUMNS

PARTITIONS = ["symbol", "day"]
KEEP_LOG = "interval 1 days"  # of commits a checkpoint covers; nothing here reads old versions
CHUNK = 1_000  # decisions, rows or answers that a batch is read by from the journal
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class Lake:
    """The Delta tables of the history, by the names in `tables.COLUMNS`, at one address.

    Attributes:
        uri: a local folder or an object store's address; `day` is the UTC day of `event_ns`.
    """

    def __init__(self, uri: str, *, sync: Callable[[Path], None] = sync) -> None:
        """Open the tables at `uri` when they are asked for; `sync` brings a file to the disk."""
        self.uri = uri.rstrip("/")
        self._sync = sync
        self._tables: dict[str, DeltaTable] = {}

    def read(
        self, table: str, *, writers: Sequence[str]
    ) -> tuple[pyarrow.dataset.Dataset | None, list[int]]:
        """Return a table as it is, None without a batch, and the newest batch inside by writer."""
        with self.opened(table) as delta:
            if delta is None:
                return None, [0] * len(writers)
            return self._dataset(delta, table), [
                delta.transaction_version(writer) or 0 for writer in writers
            ]

    def take(self, journal: JournalReader, *, writer: str) -> int:
        """Write every named batch of `journal` a table lacks and return the number of commits.

        A batch that holds nothing for a table makes no commit there.
        """
        commits = 0
        for table in sorted(COLUMNS, key=lambda table: table != "rows"):  # before what shows them
            with self.opened(table) as delta:
                reached = delta.transaction_version(writer) or 0 if delta else 0
            for batch in journal.batches(after=reached):
                if not holds(batch, table):
                    continue
                content = _in_chunks(journal, table, batch)
                self._write(table, content, Transaction(writer, batch.number))
                commits += 1
        return commits

    def add(self, table: str, content: pa.Table, *, name: str) -> None:
        """Append rows in one commit, which carries the next number of the transaction `name`."""
        delta = self._newest(table)
        number = (delta.transaction_version(name) or 0) + 1 if delta else 1
        self._write(table, _with_days(content).to_reader(), Transaction(name, number))

    def remove(
        self, table: str, *, symbol: str, day: str, leaves: Callable[[pa.RecordBatch], Bools]
    ) -> int:
        """Remove rows of one partition in one commit and return how many they were.

        The partition is written anew with the rows that stay, a batch at a time; its old files stay
        as after `compact`. `leaves` says of each row of a batch whether it leaves, twice.
        """
        # Delta's own DELETE would leave columns of a type, string view, which a query with a
        # condition on them cannot read (deltalake 1.6, pyarrow 25).
        delta = self._newest(table)
        if delta is None:
            return 0
        with self._failing(table):
            field = pyarrow.dataset.field
            at = (field("symbol") == symbol) & (field("day") == day)
            stored = self._dataset(delta, table)
            num = sum(int(leaves(batch).sum()) for batch in stored.to_batches(filter=at))
            if num:
                kept = (b.filter(pa.array(~leaves(b))) for b in stored.to_batches(filter=at))
                write_deltalake(
                    delta,
                    pa.RecordBatchReader.from_batches(_with_day(table), kept),
                    mode="overwrite",
                    schema_mode="merge",
                    predicate=f"symbol = {sql_text(symbol)} AND day = {sql_text(day)}",
                    writer_properties=writer_properties(table),
                    post_commithook_properties=NO_HOOKS,
                )
            return num

    def live_bytes(self, table: str) -> int:
        """Return the size of the files a table consists of now, without those it has replaced."""
        delta = self._newest(table)
        if delta is None:
            return 0
        with self._failing(table):
            return sum(delta.get_add_actions(flatten=True)["size_bytes"].to_pylist())

    def drop_replaced(self, table: str) -> None:
        """Remove the files a table has replaced at once: a query that reads them fails once."""
        delta = self._newest(table)
        if delta:
            with self._failing(table):
                delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    @contextmanager
    def opened(self, table: str) -> Iterator[DeltaTable | None]:
        """Lend a table at its newest version, None without a batch; what fails is a StoreError."""
        with self._failing(table):
            yield self._newest(table)

    def _dataset(self, delta: DeltaTable, table: str) -> pyarrow.dataset.Dataset:
        """Return a table's files to be read; what an older lake lacks of the columns is null."""
        filesystem = None
        if not is_object_store(self.uri):
            # deltalake's own calls back into Python from other threads, and may wait for ever
            folder = str(Path(self.uri, table).absolute())
            filesystem = SubTreeFileSystem(folder, LocalFileSystem())
        return delta.to_pyarrow_dataset(schema=_with_day(table), filesystem=filesystem)

    def _write(self, table: str, content: pa.RecordBatchReader, transaction: Transaction) -> None:
        with self._failing(table):
            delta = self._created(table)
            before = delta.version()
            write_deltalake(
                delta,
                content,
                mode="append",
                schema_mode="merge",  # an older lake lacks the newer columns
                writer_properties=writer_properties(table),
                commit_properties=CommitProperties(app_transactions=[transaction]),
                post_commithook_properties=NO_HOOKS,  # upkeep does that, and no batch waits for it
            )
            if not is_object_store(self.uri):
                made = range(before + 1, delta.version() + 1)
                bring_commits_to_disk(Path(self.uri, table).absolute(), made, sync=self._sync)

    def _created(self, table: str) -> DeltaTable:
        if table not in self._tables:
            self._tables[table] = DeltaTable.create(
                f"{self.uri}/{table}",
                _with_day(table),
                mode="ignore",
                partition_by=PARTITIONS,
                configuration={"delta.logRetentionDuration": KEEP_LOG},
                storage_options=storage_options(self.uri),
            )
        return self._tables[table]

    def _newest(self, table: str) -> DeltaTable | None:
        """Return a table as it is now, None before its first batch; raises StoreError."""
        with self._failing(table):
            try:
                if table in self._tables:
                    self._tables[table].update_incremental()
                else:
                    options = storage_options(self.uri)
                    self._tables[table] = DeltaTable(f"{self.uri}/{table}", storage_options=options)
            except TableNotFoundError:
                self._tables.pop(table, None)
        return self._tables.get(table)

    @contextmanager
    def _failing(self, table: str) -> Iterator[None]:
        """Raise StoreError where what is done with a table fails, and open the tables anew."""
        try:
            yield
        except StoreError:
            raise
        except (DeltaError, pa.ArrowException, OSError) as error:
            self._tables.clear()  # the next call opens them anew, whatever became of them
            # what a store answered may quote a key
            cause = None if is_object_store(self.uri) else error
            raise StoreError(
                f"lake {self.uri}/{table}: {explain(self.uri, error)}; "
                "the journal keeps every batch until then"
            ) from cause


def holds(batch: Batch, table: str) -> bool:
    """Return whether a batch has something for a table."""
    spans = [batch.span(table), *([batch.span("packages")] if table == "rows" else [])]
    return any(after < to for after, to in spans)


def _in_chunks(journal: JournalReader, table: str, batch: Batch) -> pa.RecordBatchReader:
    """Return a batch's rows with their `day`, read as they are written: a batch may be large."""

    def chunks() -> Iterator[pa.RecordBatch]:
        for first, last in _pieces(batch.span(table)):
            rows = journal.select(table, after=first, to=last)
            if table == "packages":
                rows = Forming(journal, after=first, to=last).without(rows)
            yield from _with_days(arrow_table(table, rows)).to_batches()
        if table == "rows":
            for first, last in _pieces(batch.span("packages")):
                rows = Forming(journal, after=first, to=last).rows
                yield from _with_days(arrow_table(table, rows)).to_batches()

    return pa.RecordBatchReader.from_batches(_with_day(table), chunks())


def _pieces(span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    after, to = span
    for first in range(after, to, CHUNK):
        yield first, min(first + CHUNK, to)


def _with_days(content: pa.Table) -> pa.Table:
    days = [day_of(event_ns) for event_ns in content["event_ns"].to_pylist()]
    return content.append_column("day", pa.array(days, pa.string()))


def _with_day(table: str) -> pa.Schema:
    """Return the columns of one of the tables in the lake: those of the journal and `day`."""
    return arrow_schema(table).append(pa.field("day", pa.string()))


def day_of(event_ns: int) -> str:
    """Return the UTC day of an instant, as the partitions are named."""
    return datetime.fromtimestamp(event_ns // SECOND_NS, UTC).strftime("%Y-%m-%d")


def sql_text(value: str) -> str:
    """Return a text as SQL has it."""
    return "'" + value.replace("'", "''") + "'"
