"""The journals of a home, held open: what is asked for of all of them, sorted and cut."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from alphapulse.storage.asking.conditions import Asked
from alphapulse.storage.journal.decoding import unpacked_column
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.columns import arrow_schema
from alphapulse.storage.lake.files import Snapshot
from alphapulse.storage.tables import LAKE_ONLY, SERIES

FEW = 2_000  # decisions that a journal gives sooner than the lake does
# Restrictions that leave a fixed share of a journal's rows: the newest few are soon found.
_DENSE = frozenset({"run", "symbol", "model", "timeframe", "event_ns"})
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM decisions WHERE event_ns BETWEEN ? AND ? LIMIT ?)"
_NEWEST_NS = 2**62
_WIDER = 8  # how much further back the next look goes


@dataclass(frozen=True, slots=True)
class OpenJournal:
    """A journal that is read.

    Attributes:
        name: it has in the lake.
    """

    run: str
    name: str
    reader: JournalReader

    @property
    def lake_only_ns(self) -> int:
        """Return the newest instant of which it may lack something the lake has, -1 if none."""
        return int(self.reader.meta(LAKE_ONLY) or -1)

    def reached(self, batch: int, table: str) -> int:
        """Return the newest number of a table's rows that a lake with this batch has."""
        return self.reader.reached(batch, table) if batch else 0


class OpenJournals:
    """Every journal of a home, each opened once."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._opened: dict[Path, OpenJournal] = {}
        self._lock = threading.Lock()

    def of(self, run: str | None) -> list[OpenJournal]:
        """Return the journals there are now, of one run or all."""
        with self._lock:
            for path in sorted(self._runs.glob("*/journal.sqlite")):
                if path not in self._opened:
                    reader = JournalReader(path)
                    name = reader.name()
                    self._opened[path] = OpenJournal(name.rpartition("-")[0], name, reader)
            there = [journal for path, journal in self._opened.items() if path.exists()]
        return [journal for journal in there if run in (None, journal.run)]

    def close(self) -> None:
        """Let go of every file; the next call opens them again."""
        with self._lock:
            for journal in self._opened.values():
                journal.reader.close()


def is_few(asked: Asked, journals: Sequence[OpenJournal]) -> bool:
    """Return whether journals hold all that is asked for of their runs, and soon find it.

    The newest `limit` rows are soon found if no rare property is asked for.
    """
    if SERIES[asked.table] in ("row", "outcome"):  # they have no index by event time
        return False
    oldest_ns, newest_ns = _bounds(asked)
    if any(journal.lake_only_ns >= oldest_ns for journal in journals):
        return False
    if asked.limit is not None and asked.limit <= FEW and asked.where.keys() <= _DENSE:
        return True
    bounds = (oldest_ns, newest_ns, FEW + 1)
    num: int = sum(journal.reader.fetch(_COUNT, bounds)[0][0] for journal in journals)
    return num <= FEW


def reached(journals: Sequence[OpenJournal], snapshot: Snapshot | None, table: str) -> list[int]:
    """Return the newest number of a table's rows the lake has of each journal, 0 without any."""
    if snapshot is None:
        return [0] * len(journals)
    pairs = zip(journals, snapshot.reached, strict=True)
    return [journal.reached(batch, table) for journal, batch in pairs]


def recent(asked: Asked, journals: Sequence[OpenJournal], after: Sequence[int]) -> pa.Table:
    """Return what is asked for of the rows above a number in each journal, sorted and cut."""
    # what all rows have alike is not read row by row
    alike = {name: is_ for name, is_ in asked.where.items() if isinstance(is_, str)}
    names = [name for name in asked.stored if name != "run" and name not in alike]
    pairs = zip(journals, after, strict=True)
    found = [(journal.run, _selected(asked, names, journal, number)) for journal, number in pairs]
    found = [(run, rows) for run, rows in found if rows]
    if len(found) == 1:
        ((alike["run"], rows),) = found
    else:
        rows = [(*row, run) for run, of_run in found for row in of_run]
        names.append("run")
    # SQLite would read everything for an order of columns from several of its tables
    rows.sort(key=itemgetter(*(names.index(name) for name in asked.key if name in names)))
    rows = rows[-asked.limit :] if asked.limit is not None else rows
    schema = _schema(asked.table)
    columns = dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))
    arrays = [
        pa.array(unpacked_column(asked.table, name, columns[name]), schema.field(name).type)
        if name in columns
        else pa.repeat(pa.scalar(alike[name], schema.field(name).type), len(rows))
        for name in asked.stored
    ]
    return pa.Table.from_arrays(arrays, names=list(asked.stored))


_schema = cache(arrow_schema)


def _selected(
    asked: Asked, names: Sequence[str], journal: OpenJournal, number: int
) -> list[tuple[Any, ...]]:
    """Return columns of the rows above a number, in any order; of a limit at least the newest."""
    what, where, values = f"SELECT {', '.join(names)} FROM {asked.table}", *asked.sql()
    if number:
        where, values = f"number > ? AND ({where})", [number, *values]
    if asked.limit is None and number:
        return journal.reader.fetch(f"{what} WHERE {where}", values)
    # SQLite takes the index of the times where both ends are given, else it reads everything.
    sql = f"{what} WHERE event_ns BETWEEN ? AND ? AND ({where})"
    oldest_ns, newest_ns = _bounds(asked)
    if asked.limit is None or SERIES[asked.table] != "decision":
        return journal.reader.fetch(sql, (oldest_ns, newest_ns, *values))
    num = asked.limit
    while True:
        since_ns = _since(asked, journal, num)
        rows = journal.reader.fetch(sql, (max(since_ns, oldest_ns), newest_ns, *values))
        if since_ns < 0 or len(rows) >= asked.limit:
            return rows
        num *= _WIDER


def _bounds(asked: Asked) -> tuple[int, int]:
    """Return the oldest and the newest event time that can be meant [ns UTC]."""
    span = asked.span
    ends = [span.end - 1] if span.end is not None else []
    ends += [span.last] if span.last is not None else []
    return int(span.first or 0), int(min(ends, default=_NEWEST_NS))


def _since(asked: Asked, journal: OpenJournal, num: int) -> int:
    """Return the instant of the decision `num` before the newest that can be meant, -1 of none."""
    where, values = "event_ns BETWEEN ? AND ?", list[Any](_bounds(asked))
    if isinstance(symbol := asked.where.get("symbol"), str):
        where, values = f"{where} AND symbol = ?", [*values, symbol]
    sql = f"SELECT event_ns FROM decisions WHERE {where} ORDER BY event_ns DESC LIMIT 1 OFFSET ?"
    found = journal.reader.fetch(sql, (*values, num))
    return found[0][0] if found else -1
