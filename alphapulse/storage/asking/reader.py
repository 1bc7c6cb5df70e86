"""Find rows of every run in the journals and the lake of a home, from any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inputs import ModelInput
from alphapulse.interfaces import Query
from alphapulse.storage.asking.conditions import Asked, Where, asked_of
from alphapulse.storage.asking.identities import inputs_by_id
from alphapulse.storage.asking.judging import judged_sql, needed
from alphapulse.storage.asking.open_journals import (
    OpenJournal,
    OpenJournals,
    is_few,
    reached,
    recent,
)
from alphapulse.storage.asking.packages import NEEDED, with_forming
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.files import LakeFile, LakeFiles, Snapshot

if TYPE_CHECKING:
    import pandas as pd


ANY_TIME = 2**62  # no event is later [ns UTC]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Where the rows of a table that are asked for are: files of the lake, and the rest in full."""

    asked: Asked
    snapshot: Snapshot | None
    files: Sequence[LakeFile]
    recent: pa.Table


class HistoryReader:
    """Reads a home's history as it is at the moment of each call.

    The lake says which batches it holds; each journal gives what came after them, or all of it
    where that is little and nothing of it is in the lake alone.

    Attributes:
        runs: folder of the runs, each with a `journal.sqlite`.
        lake_uri: address of the Delta tables.
        archive: reads what retention moved out; None without an archive.
    """

    def __init__(self, *, runs: Path, lake_uri: str, archive_uri: str = "") -> None:
        """Read the journals below `runs`, the lake, and for single inferences the archive too."""
        self.archive = (
            HistoryReader(runs=runs / "none", lake_uri=archive_uri) if archive_uri else None
        )
        self.runs = runs
        self.lake_uri = lake_uri
        self.journals = OpenJournals(runs)
        self._lake = LakeFiles(Lake(lake_uri))
        self._lock = Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for, ordered by the key of their table, each once.

        Raises ConfigError on a query that cannot be, StoreError if journal or lake cannot be read.
        """
        return self.find(asked_of(query)).to_pandas(integer_object_nulls=True)

    def find(self, asked: Asked) -> pa.Table:
        """Return rows of a table in the order of its key, each once, the same from any place."""
        if asked.table != "packages" or "forming" not in asked.names:
            return self._found(asked, self._parts(asked))
        more = replace(asked, columns=tuple(dict.fromkeys((*asked.names, *NEEDED))))
        return with_forming(self._found(more, self._parts(more)), self.find).select(asked.names)

    def read(self, part: Gathered) -> pa.Table:
        """Return the rows gathered of a table in the order of its key, each once."""
        return self._found(part.asked, [part])

    def fetch(self, table: str, where: Where) -> list[dict[str, Any]]:
        """Return rows of a table as plain values."""
        found: list[dict[str, Any]] = self.find(Asked(table, where)).to_pylist()
        return found

    def extent(self, table: str) -> tuple[list[LakeFile], list[tuple[OpenJournal, int]]]:
        """Return a table's files in the lake, and up to which number it has each journal's rows."""
        journals = self.journals.of(None)
        snapshot = self._lake.at(table, writers=[journal.name for journal in journals])
        numbers = reached(journals, snapshot, table)
        files = list(snapshot.files) if snapshot else []
        return files, list(zip(journals, numbers, strict=True))

    def in_lake(self, table: str, where: Where) -> bool:
        """Return whether a file of the lake may hold such rows."""
        snapshot = self._lake.at(table, writers=())
        asked = Asked(table, where)
        return snapshot is not None and bool(snapshot.holding(asked))

    def newest_in_lake(self, run: str) -> int:
        """Return the newest event time of a run in the lake [ns UTC], -1 if it has none.

        Where the lake cannot be read, that is any time.
        """
        try:
            snapshot = self._lake.at("inferences", writers=())
        except StoreError:
            return ANY_TIME
        asked = Asked("inferences", {"run": run})
        files = snapshot.holding(asked) if snapshot else []
        return max((file.last_ns for file in files), default=-1)

    def rebuild(self, inference_id: str) -> ModelInput:
        """Return the input of a stored inference, bit for bit what the model was fed.

        Raises StoreError if there is no such inference, a row is missing, or the bits differ.
        """
        return self.inputs([inference_id])[inference_id]

    def inputs(self, ids: Sequence[str]) -> dict[str, ModelInput]:
        """Return the inputs of stored inferences by id, each bit for bit what the model was fed.

        Raises StoreError if one is not there, a row is missing, or the bits differ.
        """
        return inputs_by_id(self, ids)

    def close(self) -> None:
        """Let go of every file; the next call opens them again."""
        if self.archive:
            self.archive.close()
        self.journals.close()
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def gathered(self, asked: Asked) -> Gathered:
        """Return where the rows asked for are; those that are in no batch yet are read."""
        run = asked.where.get("run")
        journals = self.journals.of(run)
        everything = [0] * len(journals)
        soon = bool(journals) and not asked.lake_first and is_few(asked, journals)
        if run is not None and soon:
            return Gathered(asked, None, (), recent(asked, journals, everything))
        lacking = [journal.lake_only_ns for journal in journals]
        snapshot = self._lake.at(asked.table, writers=[journal.name for journal in journals])
        files = snapshot.holding(asked) if snapshot else []
        here = {(journal.run, journal.run) for journal in journals}
        if soon and all(file.runs in here for file in files):
            return Gathered(asked, snapshot, (), recent(asked, journals, everything))
        rows = recent(asked, journals, reached(journals, snapshot, asked.table))
        if lacking != [journal.lake_only_ns for journal in journals]:
            return self.gathered(asked)  # what the lake took meanwhile has left a journal
        return Gathered(asked, snapshot, files, rows)

    def relation(
        self, part: Gathered, database: duckdb.DuckDBPyConnection, *, cut: bool
    ) -> tuple[str, list[Any]]:
        """Return what to SELECT the gathered rows from in `database`, and the values it binds.

        `cut`: of the lake no more than the limit.
        """
        asked, names = part.asked, ", ".join(part.asked.stored)
        fresh = f"recent_{asked.table}"
        is_stored = part.snapshot is not None and bool(part.files)
        if part.recent.num_rows or not is_stored:
            database.register(fresh, part.recent)
        if not is_stored:
            return fresh, []
        where, values = asked.sql()
        assert part.snapshot is not None
        source = self._lake.source(part.snapshot, part.files, database)
        stored = f"SELECT {names} FROM {source} WHERE {where}"
        if cut and asked.limit is not None:
            stored = f"(SELECT {names} FROM ({stored} ORDER BY {asked.order} LIMIT {asked.limit}))"
        if not part.recent.num_rows:
            return f"({stored})", values
        return f"({stored} UNION ALL SELECT {names} FROM {fresh})", values

    def paths(self, part: Gathered) -> list[str]:
        """Return the files DuckDB reads itself for what was gathered."""
        return self._lake.paths(part.snapshot, part.files) if part.snapshot else []

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the one open database; whoever asks closes it."""
        with self._lock:
            if self._database is None:
                self._database = duckdb.connect()
            return self._database.cursor()

    def _parts(self, asked: Asked) -> list[Gathered]:
        """Return where the rows are, and where it is said which have the outcome asked for."""
        if asked.outcome is None:
            return [self.gathered(asked)]
        rows = replace(asked, limit=None, outcome=None)
        return [self.gathered(one) for one in (rows, *needed(asked))]

    def _found(self, asked: Asked, parts: Sequence[Gathered]) -> pa.Table:
        if len(parts) == 1 and not parts[0].files:
            return parts[0].recent.select(asked.names)
        found = self._run(asked, parts, once=False)
        if _has_twins(found, asked.key):  # two journals of one run wrote to the lake
            found = self._run(asked, parts, once=True)
        return found.select(asked.names)

    def _run(self, asked: Asked, parts: Sequence[Gathered], *, once: bool) -> pa.Table:
        """Return rows of the first part with their keys, sorted; `once`: of equal keys one alone.

        The other parts say which rows have the outcome asked for.
        """
        values: list[Any] = []
        relations: dict[str, str] = {}
        database = self.cursor()
        try:
            for part in parts:
                relations[part.asked.table], bound = self.relation(part, database, cut=not once)
                values += bound
            rows = relations.pop(asked.table)
            sql = judged_sql(asked, rows, relations) if relations else f"SELECT * FROM {rows}"
            if once:
                key = ", ".join(asked.key)
                sql = f"SELECT * FROM ({sql}) QUALIFY row_number() OVER (PARTITION BY {key}) = 1"
            if asked.limit is not None:
                sql = f"SELECT * FROM ({sql}) ORDER BY {asked.order} LIMIT {asked.limit}"
            ordered = f"SELECT * FROM ({sql}) ORDER BY {', '.join(asked.key)}"
            return database.sql(ordered, params=values).to_arrow_table()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"query of {asked.table}: {error}; check that the lake can be read, then ask again"
            ) from error
        finally:
            database.close()


def _has_twins(rows: pa.Table, key: Sequence[str]) -> bool:
    """Return whether two neighbours of sorted rows have the same key."""
    if rows.num_rows < 2:
        return False
    same = (pc.equal(rows[name].slice(1), rows[name].slice(0, rows.num_rows - 1)) for name in key)
    return bool(pc.any(reduce(pc.and_, same)).as_py())
