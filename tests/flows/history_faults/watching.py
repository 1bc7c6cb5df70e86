"""Have a writer say its phase: around SQLite's statements, deltalake's calls, and the batches.

What is wrapped runs as it is, and all of it is public: the history itself is not touched.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from deltalake import DeltaTable
from deltalake.table import TableOptimizer

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from tests.flows.history_faults.board import Board, Phase


def watch(board: Board, *, connection: type[sqlite3.Connection] = sqlite3.Connection) -> None:
    """Have every history of this process say its phases on `board`; it uses a `connection`."""
    told = functools.partial(_told, board)
    sqlite3.connect = functools.partial(sqlite3.connect, factory=_watched(connection, board))
    DeltaTable.create = staticmethod(told(Phase.CREATING, DeltaTable.create))
    DeltaTable.vacuum = told(Phase.VACUUMING, DeltaTable.vacuum)
    DeltaTable.create_checkpoint = told(Phase.CHECKPOINTING, DeltaTable.create_checkpoint)
    DeltaTable.cleanup_metadata = told(Phase.CHECKPOINTING, DeltaTable.cleanup_metadata)
    TableOptimizer.compact = told(Phase.COMPACTING, TableOptimizer.compact)
    TableOptimizer.z_order = told(Phase.COMPACTING, TableOptimizer.z_order)
    Journal.name_batch = told(Phase.NAMING, Journal.name_batch)
    Lake.take = told(Phase.TAKING, Lake.take)
    for name, module in list(sys.modules.items()):
        if name.startswith("alphapulse.storage") and hasattr(module, "write_deltalake"):
            module.write_deltalake = told(Phase.LAKE_COMMITTING, module.write_deltalake)


def _told(board: Board, phase: Phase, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def telling(*args: Any, **named: Any) -> Any:
        with board.during(phase):
            return function(*args, **named)

    return telling


def _watched(connection: type[sqlite3.Connection], board: Board) -> type[sqlite3.Connection]:
    class Watched(connection):  # type: ignore[misc,valid-type]
        """Says WRITING from BEGIN to the end of a transaction, and COMMITTING in its COMMIT."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN"):
                board.enter(Phase.WRITING)
            elif sql == "COMMIT":
                board.enter(Phase.COMMITTING)
            result = super().execute(sql, *values)
            if sql in ("COMMIT", "ROLLBACK"):
                board.leave(Phase.COMMITTING)
            return result

    return Watched
