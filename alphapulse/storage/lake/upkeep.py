"""Keep a lake quick to list and to read, in the background beside its writer; no row changes.

Joining files never conflicts with an append, so nothing waits for it; a kill leaves the table as
it was, and files that nothing names, which a later call removes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from alphapulse.storage.lake.columns import LAST_LEVEL, LEVEL, writer_properties
from alphapulse.storage.lake.delta import NO_HOOKS, Lake
from alphapulse.storage.tables import COLUMNS

MAX_SMALL_FILES = 20  # of a day that still gets rows, before they are joined
PART_BYTES = 16 << 20  # a joined file of such a day is left alone from this size on
DAY_BYTES = 1 << 30  # of a day that is over: one file, as far as this goes
LATE_DAYS = 1  # a day is over this long after it ended: most answers come within a day
CHECKPOINT_EVERY = 50  # commits
VACUUM_EVERY_S = 3600.0  # listing a whole table costs requests in an object store
KEEP_REPLACED_H = 6  # how long a replaced file stays for those that still read it [h]
# Their rows come when an answer is known, not in the order of `event_ns`; the wide tables' do.
LATE = frozenset({"outcomes", "examples"})
SORT_BYTES = 256 << 20  # memory to sort a day of such a table; beyond it the disk is used


class Upkeep:
    """Does what is most overdue at a lake, one piece a call.

    ```python
    upkeep = Upkeep(Lake(uri))  # of its own: a writer may append meanwhile
    while upkeep.step():
        pass
    ```
    """

    def __init__(self, lake: Lake, *, keep_replaced_h: int = KEEP_REPLACED_H) -> None:
        self._lake = lake
        self._keep_replaced_h = keep_replaced_h
        self._checkpoints: dict[str, int] = {}  # newest version this process made one of
        self._vacuumed: dict[str, float] = {}

    def step(self, *, everything: bool = False) -> bool:
        """Do one piece of work and return whether there was any.

        Args:
            everything: join the files of each day as if it were over.

        Raises StoreError if the lake cannot be reached; the table is as it was.
        """
        return any(self._keep(table, everything) for table in COLUMNS)

    def _keep(self, table: str, everything: bool) -> bool:
        with self._lake.opened(table) as delta:
            if delta is None:
                return False
            return (
                _join(delta, table, everything)
                or self._checkpoint(delta, table)
                or self._vacuum(delta, table)
            )

    def _checkpoint(self, delta: DeltaTable, table: str) -> bool:
        if delta.version() - self._checkpoints.get(table, 0) < CHECKPOINT_EVERY:
            return False
        delta.create_checkpoint()
        delta.cleanup_metadata()
        self._checkpoints[table] = delta.version()
        return True

    def _vacuum(self, delta: DeltaTable, table: str) -> bool:
        now = time.monotonic()
        if now - self._vacuumed.get(table, float("-inf")) < VACUUM_EVERY_S:
            return False
        removed = delta.vacuum(
            retention_hours=self._keep_replaced_h,
            dry_run=False,
            enforce_retention_duration=False,  # of deltalake: a week
            full=True,  # what a killed writer left is in no log
            post_commithook_properties=NO_HOOKS,
        )
        self._vacuumed[table] = now
        return bool(removed)


def _join(delta: DeltaTable, table: str, everything: bool) -> bool:
    """Join the files of the first day that has too many and return whether there was one."""
    sizes = _sizes(delta)
    newest = max((day for _, day in sizes), default="")
    for (symbol, day), files in sizes.items():
        is_over = everything or _days_between(day, newest) > LATE_DAYS
        target, allowed = (DAY_BYTES, 1) if is_over else (PART_BYTES, MAX_SMALL_FILES)
        if sum(size < target for size in files) <= allowed:
            continue
        how: dict[str, Any] = {
            "partition_filters": [("symbol", "=", symbol), ("day", "=", day)],
            "target_size": target,
            "max_concurrent_tasks": 1,  # trading has the other cores
            "writer_properties": writer_properties(table, level=LAST_LEVEL if is_over else LEVEL),
            "post_commithook_properties": NO_HOOKS,
        }
        if is_over and table in LATE:
            done = delta.optimize.z_order(["event_ns"], max_spill_size=SORT_BYTES, **how)
        else:
            done = delta.optimize.compact(**how)
        if done["numFilesRemoved"]:
            return True
    return False


def _sizes(delta: DeltaTable) -> dict[tuple[str, str], list[int]]:
    """Return the sizes of the files [bytes] by symbol and day, oldest day first."""
    files = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    sizes = defaultdict(list)
    for file in sorted(files, key=lambda f: (f["partition.day"], f["partition.symbol"])):
        sizes[file["partition.symbol"], file["partition.day"]].append(int(file["size_bytes"]))
    return sizes


def _days_between(day: str, newest: str) -> int:
    passed: timedelta = date.fromisoformat(newest) - date.fromisoformat(day)
    return passed.days
