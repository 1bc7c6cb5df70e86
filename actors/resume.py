"""Where a run goes on: after the newest instant that history and ledger both hold."""

from __future__ import annotations

from pathlib import Path

from actors.launch import Launch
from alphapulse import cluster
from alphapulse.execution.ledger import Ledger


def ledger_of(launch: Launch) -> Ledger:
    """Return the ledger of the run."""
    path = Path(launch.home) / "runs" / str(launch.run_number) / "ledger.sqlite"
    return Ledger(path, run=launch.run)


async def resume_point(launch: Launch) -> int:
    """Return the newest instant whose decisions and orders are all durable, -1 before the first.

    What came after it is made again; ids make that harmless.
    """
    last = await cluster.History().last()
    ledger = ledger_of(launch)
    stepped = ledger.last_step()
    ledger.close()
    if stepped is None or set(last) != set(launch.settings.market.symbols):
        return -1
    return min(stepped, *(predictions[0].event_ns for predictions in last.values()))
