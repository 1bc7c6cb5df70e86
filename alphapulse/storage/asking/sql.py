"""Answer SQL over the tables of the history: it reads them, and nothing else."""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa

from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.storage.asking.conditions import Asked
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.tables import COLUMNS

# Once the tables are there, a statement reaches no other file, and cannot allow itself to.
_LOCK = (
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def answer_sql(reader: HistoryReader, statement: str) -> pa.Table:
    """Return what one SELECT of DuckDB's SQL finds in the tables of the history.

    A row that is in a journal and in the lake is there once. What waits in journals is read as a
    whole, whatever the statement says of it.

    Raises InvalidRequest if it is no SELECT, or cannot be answered; StoreError if journal or lake
    cannot be read.
    """
    _require_select(statement)
    named = [table for table in COLUMNS if re.search(rf"\b{table}\b", statement, re.IGNORECASE)]
    with duckdb.connect() as database:
        files: list[str] = []
        for table in named:
            files += _view(reader, table, database)
        allowed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
        for setting in (f"SET allowed_paths = [{allowed}]", *_LOCK):
            database.execute(setting)
        try:
            return database.sql(statement).to_arrow_table()
        except duckdb.IOException as error:
            raise StoreError(f"sql: {_said(error)}; check that the lake can be read") from error
        except duckdb.Error as error:
            raise InvalidRequest(
                f"sql: {_said(error)}; the tables are {', '.join(COLUMNS)}, and "
                "`SELECT column_name FROM (DESCRIBE inferences)` lists the columns of one"
            ) from None


def _require_select(statement: str) -> None:
    try:
        parsed = duckdb.extract_statements(statement)
    except duckdb.Error as error:
        raise InvalidRequest(f"sql: expected one SELECT, was {_said(error)}; correct it") from None
    kinds = [one.type.name for one in parsed]
    if kinds != ["SELECT"]:
        raise InvalidRequest(
            f"sql: expected one SELECT, was {', '.join(kinds) or 'nothing'}; the history is read "
            "here and never written"
        )


def _view(reader: HistoryReader, table: str, database: duckdb.DuckDBPyConnection) -> list[str]:
    """Make a table's rows a view of that name and return the files it reads."""
    gathered = reader.gathered(Asked(table, {}, lake_first=True))
    relation, _ = reader.relation(gathered, database, cut=False)
    names = ", ".join(gathered.asked.names)
    database.execute(f"CREATE VIEW {table} AS SELECT {names} FROM {relation}")
    return reader.paths(gathered)


def _said(error: duckdb.Error) -> str:
    return " ".join(str(error).split())
