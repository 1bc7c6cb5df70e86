"""Where a run goes on: after the newest instant that history and ledger both hold."""

from __future__ import annotations

from pathlib import Path

from actors.launch import Launch
from alphapulse import cluster
from alphapulse.execution.ledger_reader import LedgerReader


def ledger_path(launch: Launch) -> Path:
    """Return where the ledger of the run is; its one writer is the trader."""
    return Path(launch.home) / "runs" / str(launch.run_number) / "ledger.sqlite"


async def resume_point(launch: Launch) -> int:
    """Return the newest instant whose decisions and orders are all durable, -1 before the first.

    What came after it is made again; ids make that harmless.
    """
    last = await cluster.History().last()
    path = ledger_path(launch)
    stepped = LedgerReader(path).last_step() if path.exists() else None
    if stepped is None or set(last) != set(launch.settings.market.symbols):
        return -1
    return min(stepped, *(predictions[0].event_ns for predictions in last.values()))
