"""What a recording's end left unanswered may leave the history, and is never an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from alphapulse.config import Storage
from alphapulse.domain.market import BarSeries
from alphapulse.domain.pruning import Pruned
from alphapulse.interfaces import Query
from alphapulse.learning.settling import Settling
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.unit.storage.asking.test_rebuild import NUM_POINTS, replayed
from tests.unit.storage.records import SYMBOLS
from tests.unit.storage.retention.past import start

SAID = len(SYMBOLS) * 3  # inferences an instant


async def no_bars(first_ns: int) -> Sequence[BarSeries]:
    return ()


def prune_after(recordings: Path, path: Path, *, is_over: bool) -> tuple[Pruned, dict[str, int]]:
    """Settle the first instants of a recording, prune them, and count what is left by outcome."""
    home = Home(path)
    run = start(home)
    settings = Storage(max_decisions=2, audit_share=0.0, disk_free_pct=0.0, disk_free_gb=0.0)
    history = InferenceHistory(home, run=run, settings=settings)

    async def go() -> tuple[Pruned, dict[str, int]]:
        await replayed(recordings, history, run)
        settling = Settling(history, cost_bps=10.0, seed=no_bars)
        while await settling.step(is_over=is_over):
            pass
        await history.flush()
        pruned = await history.prune()
        outcomes = ("pending", "void", "hit", "missed")
        found = {o: len(await history.query(Query(outcome=o))) for o in outcomes}
        return pruned, {name: num for name, num in found.items() if num}

    try:
        return asyncio.run(go())
    finally:
        history.close()


def test_a_run_that_goes_on_keeps_what_waits_for_an_answer(
    recordings: Path, tmp_path: Path
) -> None:
    pruned, left = prune_after(recordings, tmp_path, is_over=False)

    assert pruned.decisions == 0
    assert left == {"pending": NUM_POINTS * SAID}


def test_an_ended_run_gives_up_what_waits_in_vain(recordings: Path, tmp_path: Path) -> None:
    pruned, left = prune_after(recordings, tmp_path, is_over=True)

    assert pruned.decisions == (NUM_POINTS - 1) * len(SYMBOLS)
    assert left == {"void": SAID}
