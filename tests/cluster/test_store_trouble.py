"""A store in trouble stops no decision, and what waits for it survives a kill of everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cluster.conftest import EAGER, UpProcess, num_decisions
from tests.cluster.rows import rows_of
from tests.flows.disturbed import locked

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NUM_BEFORE, NUM_MEANWHILE = 20, 200  # decisions until the journal is locked, and while it is
SETTINGS = {**EAGER, "ALPHAPULSE__STORAGE__APPEND_TIMEOUT_S": "0.5"}


def test_run_killed_while_its_journal_was_locked_equals_an_undisturbed_one(
    start_up: Callable[..., UpProcess],
    new_home: Callable[[str], Path],
    whole: tuple[Path, dict[str, Any]],
) -> None:
    home = new_home("trouble")
    first = start_up(home, "--speed", "max", settings=SETTINGS)
    first.wait_until(lambda trader: num_decisions(trader) >= NUM_BEFORE)
    with locked(home / "runs" / "1" / "journal.sqlite"):
        trader = first.wait_until(lambda trader: trader["spilled"] >= NUM_MEANWHILE)
        told = {alert["code"] for alert in first.get("alerts").json()}
        first.kill_everything()

    code, summary, err = start_up(home, "--speed", "max", settings=SETTINGS).end()

    assert code == 0, err
    assert trader["flagged"] == trader["pending"] >= NUM_MEANWHILE
    assert "RecordsSpilled" in told
    assert summary["errors"] == 0
    assert not (home / "runs" / "1" / "spill.sqlite").exists()
    for table in ("inferences", "predictions"):
        pd.testing.assert_frame_equal(rows_of(home, table), rows_of(whole[0], table))
