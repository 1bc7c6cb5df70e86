"""Which files of a lake's table may hold what is asked for, and how DuckDB reads just those."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from alphapulse.domain.market import SECOND_NS
from alphapulse.storage.asking.conditions import Asked
from alphapulse.storage.lake.columns import arrow_schema
from alphapulse.storage.lake.delta import PARTITIONS, Lake
from alphapulse.storage.tables import COLUMNS

_SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bytes: "BLOB"}


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A Parquet file of a table, as the table's log describes it.

    Attributes:
        path: below the table.
        first_ns: oldest event time inside [ns UTC]; of its day, where the log does not say.
        last_ns: newest.
        runs: smallest and largest id of a run inside, None where the log does not say.
    """

    path: str
    symbol: str
    first_ns: int
    last_ns: int
    runs: tuple[str, str] | None
    num_rows: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table as it was at one moment, and the newest batch inside by writer.

    Attributes:
        address: folder or URI of the table.
    """

    table: str
    files: tuple[LakeFile, ...]
    reached: tuple[int, ...]
    address: str

    def holding(self, asked: Asked) -> list[LakeFile]:
        """Return the files that can have a row that is asked for inside."""
        symbol, run, span = asked.where.get("symbol"), asked.where.get("run"), asked.span
        return [
            file
            for file in self.files
            if symbol in (None, file.symbol)
            and span.meets(file.first_ns, file.last_ns)
            and (run is None or not file.runs or file.runs[0] <= run <= file.runs[1])
        ]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a table, for as long as its newest commit stays the newest.

    Attributes:
        state: which table it is, and which version of it.
        commit: file of that version in a local table's log; None where others cannot be looked for.
        reached: the newest batch inside by writer, of those that were asked for.
    """

    state: str
    files: tuple[LakeFile, ...]
    commit: Path | None
    reached: dict[str, int]

    def is_newest(self) -> bool:
        """Return whether nobody has committed to the table since: two looks at its folder."""
        path = self.commit
        return (
            path is not None
            and path.exists()  # else the log was cleaned, and the next one may be gone too
            and not _commit(path.parent, int(path.stem) + 1).exists()
        )


class LakeFiles:
    """The files of a lake's tables, remembered until a table changes."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: dict[str, _Known] = {}
        self._datasets: dict[str, tuple[str, Any]] = {}
        self._columns: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()
        self._is_folder = "://" not in lake.uri

    def at(self, table: str, *, writers: Sequence[str]) -> Snapshot | None:
        """Return a table as it is now, None before its first batch; raises StoreError."""
        address = f"{self._lake.uri}/{table}"
        with self._lock:
            known = self._known.pop(table, None)  # forgotten where the table cannot be read
            if known is None and self._is_folder and not Path(address).exists():
                return None  # the lake would take its time to find that out
            if known is None or not known.is_newest() or not known.reached.keys() >= {*writers}:
                with self._lake.opened(table) as delta:
                    if delta is None:
                        return None
                    known = self._known_of(delta, address, known, writers)
            self._known[table] = known
            reached = tuple(known.reached[writer] for writer in writers)
            return Snapshot(table, known.files, reached, address)

    def _known_of(
        self, delta: DeltaTable, address: str, before: _Known | None, writers: Sequence[str]
    ) -> _Known:
        state = _state(delta)
        is_same = before is not None and before.state == state
        files = before.files if before is not None and is_same else _files_of(delta)
        asked = {*writers, *(before.reached if before is not None and is_same else ())}
        reached = {writer: delta.transaction_version(writer) or 0 for writer in asked}
        log = Path(address, "_delta_log")
        commit = _commit(log, delta.version()) if self._is_folder else None
        return _Known(state, files, commit, reached)

    def source(
        self, snapshot: Snapshot, files: Sequence[LakeFile], database: duckdb.DuckDBPyConnection
    ) -> str:
        """Return what to SELECT the table's columns from, in `database`; an older row's are null.

        Files of a local lake are read by DuckDB itself, others by way of the lake.
        """
        if not self._is_folder:
            name = f"lake_{snapshot.table}"
            database.register(name, self._dataset(snapshot))
            return name
        paths = self.paths(snapshot, files)
        there = {path: self._columns_of(path) for path in paths}
        every = frozenset.union(*there.values()) | set(PARTITIONS)
        shown = ", ".join(
            name if name in every else f"NULL::{_SQL[kind]} AS {name}"
            for name, kind in COLUMNS[snapshot.table].items()
        )
        by_name = len(set(there.values())) > 1
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        return (
            f"(SELECT {shown} FROM read_parquet([{quoted}], hive_partitioning = true, "
            f"hive_types_autocast = false, union_by_name = {str(by_name).lower()}))"
        )

    def paths(self, snapshot: Snapshot, files: Sequence[LakeFile]) -> list[str]:
        """Return where the files are that DuckDB reads itself."""
        return [f"{snapshot.address}/{file.path}" for file in files] if self._is_folder else []

    def _columns_of(self, path: str) -> frozenset[str]:
        if path not in self._columns:  # a file never changes
            self._columns[path] = frozenset(pq.read_schema(path).names)
        return self._columns[path]

    def _dataset(self, snapshot: Snapshot) -> Any:
        with self._lock, self._lake.opened(snapshot.table) as delta:
            assert delta is not None
            state = _state(delta)
            if self._datasets.get(snapshot.table, ("",))[0] != state:
                schema = arrow_schema(snapshot.table).append(pa.field("day", pa.string()))
                self._datasets[snapshot.table] = state, delta.to_pyarrow_dataset(schema=schema)
            return self._datasets[snapshot.table][1]


def _commit(log: Path, version: int) -> Path:
    return log / f"{version:020}.json"


def _state(delta: DeltaTable) -> str:
    return f"{delta.metadata().id} {delta.version()}"


def _files_of(delta: DeltaTable) -> tuple[LakeFile, ...]:
    return tuple(map(_file_of, pa.table(delta.get_add_actions(flatten=True)).to_pylist()))


def _file_of(added: dict[str, Any]) -> LakeFile:
    first_ns, last_ns = added.get("min.event_ns"), added.get("max.event_ns")
    if first_ns is None or last_ns is None:
        midnight = datetime.fromisoformat(added["partition.day"]).replace(tzinfo=UTC)
        first_ns = int(midnight.timestamp()) * SECOND_NS
        last_ns = first_ns + 86_400 * SECOND_NS - 1
    runs = added.get("min.run"), added.get("max.run")
    return LakeFile(
        path=unquote(added["path"]),
        symbol=added["partition.symbol"],
        first_ns=first_ns,
        last_ns=last_ns,
        runs=(runs[0], runs[1]) if runs[0] is not None and runs[1] is not None else None,
        num_rows=added["num_records"] or 0,
        num_bytes=added["size_bytes"],
    )
