"""Say how much history there is and where it lies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alphapulse.storage.asking.open_journals import OpenJournal
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.lake.files import LakeFile
from alphapulse.storage.tables import COLUMNS

_NO_JOURNAL = {"number": "", "decisions": 0, "inferences": 0, "unbatched": 0, "journal_bytes": 0}


def stats(reader: HistoryReader, home: Path) -> dict[str, Any]:
    """Return rows and bytes by table, what the journals hold, and the room on the home's disk.

    A row that is in a journal and in the lake is counted once. `lake_bytes` are of the files a
    table is made of now; the lake keeps those a compaction replaced a while beside them. A run
    that is in the lake alone has no journal bytes.
    """
    tables, lake_runs = [], set()
    for table in COLUMNS:
        files, waiting = reader.extent(table)
        tables.append(_table(table, files, waiting))
        lake_runs |= {run for file in files for run in file.runs or ()}
    runs = [_run(journal) for journal in reader.journals.of(None)]
    lake_only = lake_runs - {run["run"] for run in runs}
    return {
        "tables": tables,
        "runs": runs + [{**_NO_JOURNAL, "run": run} for run in sorted(lake_only)],
        "newest_ns": _newest([row["newest_ns"] for row in tables]),
        "lake_files": sum(row["lake_files"] for row in tables),
        "lake_bytes": sum(row["lake_bytes"] for row in tables),
        "journal_bytes": sum(run["journal_bytes"] for run in runs),
        "disk_free_bytes": _free_bytes(home),
    }


def _free_bytes(place: Path) -> int:
    """Return the room where a folder is, or will be."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _run(journal: OpenJournal) -> dict[str, Any]:
    counts = journal.reader.counts()
    shown = ("decisions", "inferences", "unbatched", "journal_bytes")
    about = {"number": journal.reader.path.parent.name, "run": journal.run}
    return about | {name: counts[name] for name in shown}


def _table(
    table: str, files: list[LakeFile], waiting: list[tuple[OpenJournal, int]]
) -> dict[str, Any]:
    beside = [_above(journal, table, number) for journal, number in waiting]
    in_journal = sum(num for num, _ in beside)
    return {
        "table": table,
        "rows": sum(file.num_rows for file in files) + in_journal,
        "rows_in_journal_alone": in_journal,
        "lake_files": len(files),
        "lake_bytes": sum(file.num_bytes for file in files),
        "newest_ns": _newest([file.last_ns for file in files] + [ns for _, ns in beside]),
    }


def _above(journal: OpenJournal, table: str, number: int) -> tuple[int, int | None]:
    """Return how many rows of a table have a higher number, and their newest event time."""
    sql = f"SELECT count(*), max(event_ns) FROM {table} WHERE number > ?"
    ((num, newest_ns),) = journal.reader.fetch(sql, (number,))
    return num, newest_ns


def _newest(times_ns: Sequence[int | None]) -> int | None:
    return max((ns for ns in times_ns if ns is not None), default=None)
