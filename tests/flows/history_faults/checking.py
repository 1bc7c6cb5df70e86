"""Compare a history with what its writers were promised: all of it, once, whole, and readable."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alphapulse.config import Storage
from alphapulse.storage.asking.conditions import Asked, Span
from alphapulse.storage.asking.packages import with_forming
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM
from alphapulse.storage.tables import COLUMNS, KEYS, NOTES
from tests.flows.history_faults.board import CAPACITY, Board, Kind, Mark
from tests.flows.history_faults.content import (
    OF_A_DECISION,
    OF_A_KIND,
    answer,
    decision,
    event_ns_of,
    numbers_of,
)
from tests.unit.storage.records import note

NEWEST, OLDER = 24, 12  # decisions compared cell by cell after each kill
MAX_SAID = 20


@dataclass
class Findings:
    """What is wrong with a history; all zeros where nothing is.

    Attributes:
        lost: acknowledged decisions and other rows that are not there, or not whole.
        doubled: rows there more than once, in the journal, the lake, or the answer of both.
        half: decisions nobody was promised of which a part is there.
        altered: rows of which a cell is not what was handed over.
        strange: rows nobody ever handed over.
        unreadable: reads that failed.
        said: the first of these in words.
    """

    lost: int = 0
    doubled: int = 0
    half: int = 0
    altered: int = 0
    strange: int = 0
    unreadable: int = 0
    said: list[str] = field(default_factory=list)

    def count(self, what: str, number: int, words: str) -> None:
        """Add `number` defects of a kind."""
        if number:
            setattr(self, what, getattr(self, what) + number)
            self.said = [*self.said, f"{number} {what}: {words}"][:MAX_SAID]

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Count whatever fails inside as a read that failed."""
        try:
            yield
        except Exception as error:  # whatever it is, it could not be read
            self.count("unreadable", 1, f"{what}: {type(error).__name__}: {error}")


class Check:
    """One look at a history nobody writes to.

    Attributes:
        found: what is wrong.
    """

    def __init__(self, run: Run, board: Board) -> None:
        self.found = Findings()
        self._run = run
        self._lake_uri = str(run.path.parents[1] / "lake")
        self._offered = {kind: board.numbers(kind, Mark.OFFERED) for kind in Kind}
        self._promised = {kind: board.numbers(kind, Mark.ACKNOWLEDGED) for kind in Kind}

    def of_newest(self) -> dict[str, Any]:
        """Read every table, and compare the newest rows cell by cell."""
        newest = sorted(self._offered[Kind.DECISION])[-NEWEST:]
        self._check(since=min(newest, default=0), sample=set(newest))
        return asdict(self.found)

    def of_all(self, seed: int) -> dict[str, Any]:
        """Count every row, in the journal and the lake too; compare the newest and some others."""
        offered = sorted(self._offered[Kind.DECISION])
        older = random.Random(seed).sample(offered, min(OLDER, len(offered)))
        self._check(since=0, sample={*offered[-NEWEST:], *older})
        self._check_both()
        return asdict(self.found)

    def at_the_end(self) -> dict[str, Any]:
        """Flush what is left and compare every cell; the lake alone must hold all of it."""
        with self.found.reading("the last flush"):
            history = InferenceHistory(
                Home(self._run.path.parents[1]), run=self._run, settings=Storage()
            )
            asyncio.run(history.flush())
            history.close()
        self._check(since=0, sample=self._offered[Kind.DECISION])
        self._check_both()
        with self.found.reading("the journal against the lake"):
            self._compare_lake_with_journal()
        return asdict(self.found) | {"batches": self._num_batches()}

    def _check(self, *, since: int, sample: set[int]) -> None:
        tables: dict[str, pa.Table] = {}
        reader = HistoryReader(runs=self._run.path.parent, lake_uri=self._lake_uri)
        for table in COLUMNS:
            with self.found.reading(table):
                asked = Asked(table, {"event_ns": Span(event_ns_of(table, since))})
                found = reader.find(asked)
                tables[table] = found.filter(pa.array(numbers_of(table, found) >= since))
        reader.close()
        if len(tables) == len(COLUMNS):
            self._count_rows(tables, since)
            self._compare_with_untouched(tables, sample)

    def _check_both(self) -> None:
        if self._run.journal_path.exists():
            with self.found.reading("the journal"):
                self._check_journal()
            with self.found.reading("the lake"):
                self._check_lake()

    def _count_rows(self, tables: dict[str, pa.Table], since: int) -> None:
        rows = {
            table: np.bincount(numbers_of(table, found), minlength=CAPACITY)
            for table, found in tables.items()
        }
        for table, found in tables.items():
            self._check_keys(table, found, where="journal and lake")
            kind = OF_A_KIND.get(table, Kind.DECISION)
            self._count("strange", _set(rows[table]) - self._offered[kind], table)
        promised = {kind: {n for n in self._promised[kind] if n >= since} for kind in Kind}
        for table, kind in OF_A_KIND.items():
            self._count("lost", promised[kind] - _set(rows[table]), table)
        stored = set().union(*(_set(rows[table]) for table in OF_A_DECISION))
        whole = {n for n in stored if all(rows[t][n] == c for t, c in OF_A_DECISION.items())}
        self._count("lost", promised[Kind.DECISION] - whole, "decisions")
        self._count("half", stored - whole - promised[Kind.DECISION], "decisions")

    def _compare_with_untouched(self, tables: dict[str, pa.Table], sample: set[int]) -> None:
        """Compare with a journal to which the same was handed, and nothing happened."""
        numbers, run = sorted(sample), self._run.id
        with tempfile.TemporaryDirectory() as folder:
            untouched = Journal(Path(folder) / "journal.sqlite", run=run)
            untouched.append([decision(n, run=run) for n in numbers])
            untouched.settle([answer(n, run=run) for n in numbers])
            for table in NOTES:
                untouched.note(table, [note(table, n, run=run) for n in numbers])
            for table, found in tables.items():
                among = pa.array(np.isin(numbers_of(table, found), numbers))
                expected = arrow_table(table, untouched.select(table))
                self._compare(table, found.filter(among), expected)
            untouched.close()

    def _check_journal(self) -> None:
        journal = JournalReader(self._run.journal_path)
        said = journal.fetch("PRAGMA integrity_check", {})
        self.found.count("unreadable", int(said != [("ok",)]), f"journal: {said[:3]}")
        for table in COLUMNS:
            keys = ", ".join(KEYS[table])
            ((rows, once),) = journal.fetch(
                f"SELECT (SELECT count(*) FROM {table}), "
                f"(SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {table}))",
                {},
            )
            self.found.count("doubled", rows - once, f"{table} of the journal")
        journal.close()

    def _check_lake(self) -> None:
        """The lake holds what the batches it says it has hold: not a row less, none twice."""
        journal = JournalReader(self._run.journal_path)
        for table in COLUMNS:
            stored, (batch,) = Lake(self._lake_uri).read(table, writers=[journal.name()])
            if stored is None:
                continue
            keys = stored.to_table(columns=list(KEYS[table]))
            self._check_keys(table, keys, where="the lake")
            if table == "rows":  # the journal has forming rows with its packages
                keys = keys.filter(pc.not_equal(keys["stream"], STREAM))
            ((size,),) = journal.fetch(
                f"SELECT count(*) FROM {table} WHERE number <= :to",
                {"to": journal.reached(batch, table)},
            )
            missing = size - keys.num_rows
            self.found.count("lost", max(missing, 0), f"rows of {table} of the lake")
            self.found.count("doubled", max(-missing, 0), f"rows of {table} of the lake")
        journal.close()

    def _compare_lake_with_journal(self) -> None:
        journal = JournalReader(self._run.journal_path)
        for table in COLUMNS:
            expected = arrow_table(table, journal.select(table))
            stored, _ = Lake(self._lake_uri).read(table, writers=[])
            found = stored.to_table(columns=list(COLUMNS[table])) if stored else expected[:0]
            if table == "rows":
                found = found.filter(pc.not_equal(found["stream"], STREAM))
            elif table == "packages":
                found = with_forming(found, lambda _: self._forming_rows())
            self._compare(table, found, expected)
            self.found.count("lost", max(expected.num_rows - found.num_rows, 0), f"{table} of lake")
        journal.close()

    def _forming_rows(self) -> pa.Table:
        stored, _ = Lake(self._lake_uri).read("rows", writers=[])
        assert stored is not None
        return stored.to_table(filter=pc.field("stream") == STREAM)

    def _num_batches(self) -> int:
        journal = JournalReader(self._run.journal_path)
        number = len(journal.batches())
        journal.close()
        return number

    def _check_keys(self, table: str, found: pa.Table, *, where: str) -> None:
        once = found.group_by(list(KEYS[table])).aggregate([]).num_rows
        self.found.count("doubled", found.num_rows - once, f"{table} of {where}")

    def _compare(self, table: str, found: pa.Table, expected: pa.Table) -> None:
        """Count the rows found whose cells differ in a bit from those expected at the same key."""
        keys = list(KEYS[table])
        wanted = expected.join(found.select(keys), keys=keys, join_type="left semi")
        order = [(key, "ascending") for key in keys]
        found_bits, wanted_bits = (_bits(t.sort_by(order)) for t in (found, wanted))
        if not found_bits.equals(wanted_bits):
            pairs = zip(found_bits.to_pylist(), wanted_bits.to_pylist(), strict=False)
            wrong = [row for row, want in pairs if row != want]
            self.found.count("altered", max(len(wrong), 1), f"{table}: {wrong[:1]}"[:500])

    def _count(self, what: str, numbers: set[int], of: str) -> None:
        listed = sorted(numbers)
        self.found.count(what, len(listed), f"{of} {listed[:5]}")


def _set(rows: npt.NDArray[np.int64]) -> set[int]:
    return set(np.flatnonzero(rows).tolist())


def _bits(found: pa.Table) -> pa.Table:
    """Return the same with its floats as the integers of their bits: -0.0 is not 0.0."""
    columns = [
        pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
        if column.type == pa.float64()
        else column
        for column in found.columns
    ]
    return pa.table(columns, names=found.column_names)
