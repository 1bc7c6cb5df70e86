"""Take stock of every stored decision: what retention needs to know of it, as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Bools, Ints
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.database import cursor
from alphapulse.storage.retention.policy import Candidates, audit_sample
from alphapulse.storage.tables import SERIES

# axes: N decision

# What leaves with a decision: the tables that hold it, by (run, symbol, event_ns).
LEAVING = ("packages", "inferences", "predictions", "outcomes", "examples")
_READ = {  # the columns read of each table; everything else stays on the disk
    "inferences": ("run", "symbol", "event_ns", "model", "id", "decided_at_ns"),
    "examples": ("run", "symbol", "event_ns", "model", "loss", "stratum"),
    "orders": ("inference_id",),
}
_ROW_BYTES = 75  # of a closed row in a journal beside its cells: keys, index, page slack
# In a journal: what a restart goes on from, and what holds the newest number of its series, which
# the next row would take again. A row the lake has not taken yet holds its decision too.
_HELD = """
SELECT symbol, event_ns FROM decisions WHERE number > :decision
  OR number = (SELECT max(number) FROM decisions) OR number IN (SELECT decision FROM last)
UNION SELECT symbol, event_ns FROM settled
  WHERE number > :outcome OR number = (SELECT max(number) FROM settled)
UNION SELECT symbol, event_ns FROM noted_examples
  WHERE number > :examples OR number = (SELECT max(number) FROM noted_examples)"""
_TAKEN_STOCK = """
CREATE TEMP TABLE decided AS
  SELECT run, symbol, event_ns, min(decided_at_ns) AS stored_ns, count(DISTINCT model) AS said,
    bool_or(id IN (SELECT inference_id FROM orders)) AS is_ordered
  FROM inferences GROUP BY ALL;
CREATE TEMP TABLE answered AS
  SELECT run, symbol, event_ns, count(DISTINCT model) AS answered, max(loss) AS loss,
    arg_max(stratum, coalesce(loss, -1)) AS stratum
  FROM examples GROUP BY ALL;
CREATE TEMP TABLE names AS
  SELECT run, symbol, row_number() OVER (ORDER BY run, symbol) - 1 AS name
  FROM (SELECT DISTINCT run, symbol FROM decided);
CREATE TEMP TABLE strata AS
  SELECT stratum, row_number() OVER (ORDER BY stratum) - 1 AS number
  FROM (SELECT DISTINCT stratum FROM answered);
SELECT name, event_ns, stored_ns, coalesce(answered, 0) < said AS is_pending, is_ordered,
  loss, coalesce(strata.number, -1) AS stratum,
  held.event_ns IS NOT NULL AS is_held, in_journal.event_ns IS NOT NULL AS is_in_journal
FROM decided JOIN names USING (run, symbol) LEFT JOIN answered USING (run, symbol, event_ns)
LEFT JOIN strata ON strata.stratum = answered.stratum
LEFT JOIN held USING (run, symbol, event_ns) LEFT JOIN in_journal USING (run, symbol, event_ns)
ORDER BY name, event_ns"""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All decisions of a home.

    Attributes:
        candidates: their columns.
        names: (run, symbol) of each number in `name_N`.
        name_N: whose each decision is.
        is_in_journal_N: whether a journal holds it, beside the lake.
        journal_bytes: a decision's share of what is alive in the journals.
        other_bytes: alive beside the decisions: closed rows and what is never evicted.
    """

    candidates: Candidates
    names: tuple[tuple[str, str], ...]
    name_N: Ints
    is_in_journal_N: Bools
    journal_bytes: int
    other_bytes: int


def take_stock(lake: Lake, journals: Sequence[JournalReader], *, audit_share: float) -> Inventory:
    """Return the decisions of the lake, and those the journals have not handed over yet.

    Bytes are averages: of the lake's files, and of what is alive in the journals.

    Raises StoreError if lake or journals cannot be read.
    """
    with cursor() as database:
        held, in_journal = _from_journals(lake, journals)
        database.register("held", held)
        database.register("in_journal", in_journal)
        for table in _READ:
            _register(database, table, lake, journals)
        try:
            found = _numpy(database, _TAKEN_STOCK)
            names = database.sql("SELECT run, symbol FROM names ORDER BY name").fetchall()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"taking stock of {lake.uri}: {error}; check that the lake can be read"
            ) from error
    num, num_in_journal = len(found["name"]), int(found["is_in_journal"].sum())
    in_lake = sum(map(lake.live_bytes, LEAVING)) // max(num, 1)
    decided, beside = _journal_bytes(journals)
    in_journals = decided // max(num_in_journal, 1)
    name_N, event_ns_N = found["name"], found["event_ns"]
    runs = {run: number for number, run in enumerate(sorted({run for run, _ in names}))}
    symbols = {symbol: number for number, symbol in enumerate(sorted({s for _, s in names}))}
    hashes = np.array([_hash(run, symbol) for run, symbol in names], np.uint64)
    candidates = Candidates(
        run_N=np.array([runs[run] for run, _ in names], np.int64)[name_N],
        symbol_N=np.array([symbols[symbol] for _, symbol in names], np.int64)[name_N],
        event_ns_N=event_ns_N,
        stored_ns_N=found["stored_ns"],
        bytes_N=in_lake + in_journals * found["is_in_journal"].astype(np.int64),
        loss_N=found["loss"],
        stratum_N=found["stratum"],
        is_pending_N=found["is_pending"],
        is_ordered_N=found["is_ordered"],
        is_audit_N=audit_sample(hashes[name_N], event_ns_N, share=audit_share),
        is_held_N=found["is_held"],
    )
    return Inventory(
        candidates=candidates,
        names=tuple(names),
        name_N=name_N,
        is_in_journal_N=found["is_in_journal"],
        journal_bytes=in_journals,
        other_bytes=beside + sum(lake.live_bytes(t) for t in SERIES if t not in LEAVING),
    )


def _numpy(database: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Return the columns an answer consists of; a number that is missing is NaN."""
    columns = database.execute(sql).fetchnumpy()
    kinds = {"loss": np.float64, "is_pending": bool, "is_ordered": bool, "is_held": bool}
    kinds |= {"is_in_journal": bool}
    return {
        name: np.ma.filled(column.astype(kinds.get(name, np.int64)), np.nan)
        if name == "loss"
        else np.asarray(column, kinds.get(name, np.int64))
        for name, column in columns.items()
    }


def _register(
    database: duckdb.DuckDBPyConnection, table: str, lake: Lake, journals: Sequence[JournalReader]
) -> None:
    """Make a table known as a whole: what the lake holds, and what journals hold after it."""
    names = ", ".join(_READ[table])
    stored, reached = lake.read(table, writers=[journal.name() for journal in journals])
    recent: list[tuple[Any, ...]] = []
    for journal, batch in zip(journals, reached, strict=True):
        sql = f"SELECT {names} FROM {table} WHERE number > :after"
        recent += journal.fetch(sql, {"after": journal.reached(batch, table)})
    database.register(f"recent_{table}", _columns(_READ[table], recent))
    parts = f"SELECT {names} FROM recent_{table}"
    if stored is not None:
        database.register(f"stored_{table}", stored)
        parts += f" UNION ALL SELECT {names} FROM stored_{table}"
    database.execute(f"CREATE TEMP VIEW {table} AS {parts}")


def _from_journals(lake: Lake, journals: Sequence[JournalReader]) -> tuple[pa.Table, pa.Table]:
    held: list[tuple[Any, ...]] = []
    there: list[tuple[Any, ...]] = []
    for journal in journals:
        run, taken = journal.meta("run"), taken_numbers(lake, journal)
        held += [(run, *row) for row in journal.fetch(_HELD, taken)]
        decided = journal.fetch("SELECT symbol, event_ns FROM decisions", {})
        there += [(run, *row) for row in decided]
    key = ("run", "symbol", "event_ns")
    return _columns(key, held), _columns(key, there)


def taken_numbers(lake: Lake, journal: JournalReader) -> dict[str, int]:
    """Return, by series, the newest number of a journal that all its tables in the lake hold."""
    taken: dict[str, int] = {}
    for table, series in SERIES.items():
        (batch,) = lake.read(table, writers=[journal.name()])[1]
        reached = journal.reached(batch, table)
        taken[series] = min(taken.get(series, reached), reached)
    return taken


def _journal_bytes(journals: Sequence[JournalReader]) -> tuple[int, int]:
    """Return what the decisions take in the journals, and what is alive beside them [bytes]."""
    decided, beside = 0, 0
    for journal in journals:
        ((alive, num_rows, cells),) = journal.fetch(
            "SELECT (SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, "
            "pragma_freelist_count, pragma_page_size), (SELECT count(*) FROM closed_rows), "
            "(SELECT avg(length(cells)) FROM (SELECT cells FROM closed_rows LIMIT 1000))",
            {},
        )
        rows = min(num_rows * (int(cells or 0) + _ROW_BYTES), alive)
        decided, beside = decided + alive - rows, beside + rows
    return decided, beside


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    kinds = {"event_ns": pa.int64(), "decided_at_ns": pa.int64(), "loss": pa.float64()}
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table(
        {n: pa.array(c, kinds.get(n, pa.string())) for n, c in zip(names, columns, strict=True)}
    )


def _hash(run: str, symbol: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{run}|{symbol}".encode()).digest()[:8])
