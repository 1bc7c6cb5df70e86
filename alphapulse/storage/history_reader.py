"""Find inferences of every run in the journals and the lake of a home, from any process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from alphapulse.domain.errors import ConfigError, StoreError
from alphapulse.domain.inputs import ModelInput
from alphapulse.interfaces import Query
from alphapulse.storage.journal_reader import JournalReader
from alphapulse.storage.lake import Lake, arrow_table
from alphapulse.storage.rebuilding import Fetch, rebuilt
from alphapulse.storage.tables import COLUMNS, KEYS

if TYPE_CHECKING:
    import pandas as pd

_QUERYABLE = ("inferences", "predictions", "outcomes")


class HistoryReader:
    """Reads a home's history as it is at the moment of each call.

    The lake says which batches it holds; each journal gives what came after them.

    Attributes:
        runs: folder of the runs, each with a `journal.sqlite`.
        lake_uri: address of the Delta tables.
    """

    def __init__(self, *, runs: Path, lake_uri: str) -> None:
        self.runs = runs
        self.lake_uri = lake_uri
        self._lake = Lake(lake_uri)
        self._journals: dict[Path, JournalReader] = {}
        self._lock = Lock()

    def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for, ordered by (event_ns, symbol, model, ...), each once.

        Raises ConfigError on a query that cannot be, StoreError if journal or lake cannot be read.
        """
        where, values = _conditions(query)
        return self.find(query.table, where, values, limit=query.limit).to_pandas()

    def find(
        self, table: str, where: str, values: Sequence[Any], *, limit: int | None = None
    ) -> pa.Table:
        """Return rows of one of the five tables in the order of its key; `limit`: the newest."""
        with self._lock:
            journals = self._opened()
            names = [journal.name() for journal in journals]
            stored, reached = self._lake.read(table, writers=names)
            recent = [
                journal.select(table, where, values, after=journal.reached(batch, table))
                for journal, batch in zip(journals, reached, strict=True)
            ]
            rows = arrow_table(table, [row for part in recent for row in part])
            return _merged(table, stored, rows, where=where, values=values, limit=limit)

    def rebuild(self, inference_id: str) -> ModelInput:
        """Return the input of a stored inference, bit for bit what the model was fed.

        Raises StoreError if there is no such inference, a row is missing, or the bits differ.
        """
        return self.inputs([inference_id])[inference_id]

    def inputs(self, ids: Sequence[str]) -> dict[str, ModelInput]:
        """Return the inputs of stored inferences by id, each bit for bit what the model was fed.

        Raises StoreError if one is not there, a row is missing, or the bits differ.
        """
        found: dict[str, ModelInput] = {}
        with self._lock:
            sources: list[Fetch] = [partial(_from_journal, journal) for journal in self._opened()]
        # A journal holds the whole of its run, and answers sooner than the lake.
        for fetch in (*sources, self._fetch):
            if asked := [id_ for id_ in ids if id_ not in found]:
                found |= rebuilt(asked, fetch)
        for id_ in ids:
            if id_ not in found:
                raise StoreError(
                    f"inference {id_}: not in {self.runs} and not in {self.lake_uri}; "
                    "list ids with `history query`"
                )
        return {id_: found[id_] for id_ in ids}

    def close(self) -> None:
        """Let go of every file; the next call opens them again."""
        with self._lock:
            for journal in self._journals.values():
                journal.close()

    def _opened(self) -> list[JournalReader]:
        for path in sorted(self.runs.glob("*/journal.sqlite")):
            self._journals.setdefault(path, JournalReader(path))
        return [journal for path, journal in self._journals.items() if path.exists()]

    def _fetch(self, table: str, where: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.find(table, where, values).to_pylist()
        return found


def _from_journal(
    journal: JournalReader, table: str, where: str, values: Sequence[Any]
) -> list[dict[str, Any]]:
    return [
        dict(zip(COLUMNS[table], row, strict=True)) for row in journal.select(table, where, values)
    ]


def _conditions(query: Query) -> tuple[str, list[Any]]:
    if query.table not in _QUERYABLE:
        raise ConfigError(
            f"query.table: expected one of {', '.join(_QUERYABLE)}, was {query.table!r}"
        )
    if query.timeframe is not None and query.table == "inferences":
        raise ConfigError(
            "query.timeframe: expected table predictions or outcomes, was inferences; "
            "inferences have none"
        )
    asked: Mapping[str, Any] = {
        "run = ?": query.run,
        "symbol = ?": query.symbol,
        "model = ?": query.model,
        "timeframe = ?": query.timeframe,
        "event_ns >= ?": query.from_ns,
        "event_ns < ?": query.to_ns,
    }
    given = {condition: value for condition, value in asked.items() if value is not None}
    return " AND ".join(given) or "TRUE", list(given.values())


def _merged(
    table: str,
    stored: Any,
    recent: pa.Table,
    *,
    where: str,
    values: Sequence[Any],
    limit: int | None,
) -> pa.Table:
    names, keys = ", ".join(COLUMNS[table]), KEYS[table]
    parts = f"SELECT {names} FROM recent"
    if stored is not None:
        parts += f" UNION ALL SELECT {names} FROM stored WHERE {where}"
    once = f"SELECT * FROM ({parts}) QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)}) = 1"
    if limit is not None:
        once += f" ORDER BY {', '.join(f'{key} DESC' for key in keys)} LIMIT {int(limit)}"
    ordered = f"SELECT * FROM ({once}) ORDER BY {', '.join(keys)}"
    with duckdb.connect() as database:
        database.register("recent", recent)
        if stored is not None:
            database.register("stored", stored)
        try:
            bound = list(values) if stored is not None else []
            return database.sql(ordered, params=bound).to_arrow_table()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"query of {table}: {error}; check that the lake can be read, then ask again"
            ) from error
