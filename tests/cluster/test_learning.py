"""A run that learns while people look: rounds end with verdicts, and looking changes no row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.domain.market import SECOND_NS
from alphapulse.models.checkpoints import Registry, directory_of, load_checkpoint
from alphapulse.models.rounds import Rounds
from tests.browser.browser import open_page, wait_until_drawn
from tests.cluster.conftest import EAGER, UpProcess
from tests.cluster.rows import ledger_of, noted, rows_of, traded

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Learned = tuple[Path, dict[str, Any]]
VERDICTS = {RoundState.PROMOTED, RoundState.REJECTED}


@pytest.fixture(scope="module")
def learned(new_home: Callable[[str], Path], start_up: Callable[..., UpProcess]) -> Learned:
    """Home and summary of an eager run with training; its page is opened, closed and killed."""
    home = new_home("learned")
    up = start_up(home, "--speed", "10", settings=EAGER, training=True, dashboard=True)
    up.wait_for(lambda status: status["training"]["running"] is not None, within_s=240)
    with open_page(f"http://127.0.0.1:{up.page_port}") as page:
        wait_until_drawn(page)
    (killed,) = up.pages
    killed.kill()
    up.wait_for(lambda _: [page.pid for page in up.pages] not in ([], [killed.pid]))
    code, summary, err = up.end()
    assert code == 0, err
    return home, summary


def rounds_of(learned: Learned) -> list[TrainingRound]:
    return Rounds(learned[0] / "registry.sqlite").all(learned[1]["run"])


def test_rounds_on_pivots_end_with_a_verdict_and_no_error(learned: Learned) -> None:
    summary = learned[1]

    rounds = rounds_of(learned)

    assert summary["errors"] == 0
    assert summary["training_rounds"] == len(rounds) >= 1
    assert {round.state for round in rounds} <= VERDICTS
    assert all(round.reason and round.ended_at and round.job for round in rounds)
    confirmed = [round.confirm_ns for round in rounds]
    gaps = [b - a for a, b in pairwise(confirmed)]
    assert all(gap >= 60 * SECOND_NS for gap in gaps), "each pivot once, and no two too close"
    assert summary["promotions"] == sum(round.state is RoundState.PROMOTED for round in rounds)


def test_challenger_is_kept_with_the_figures_it_was_judged_by(learned: Learned) -> None:
    home, _ = learned
    judged = [round for round in rounds_of(learned) if round.challenger]

    assert judged, "no round had enough to compare"
    roles = {entry.id: entry.role for entry in Registry(home / "registry.sqlite").entries()}
    for round in judged:
        kept = load_checkpoint(directory_of(home, model="cnn", id=round.challenger), model="cnn")
        assert kept.layout["trained"]["from"] == round.champion
        assert {"e_value", "champion_loss", "challenger_loss"} <= set(round.figures)
        assert round.num_train > 0 < round.num_compared
        wanted = "champion" if round.state is RoundState.PROMOTED else "rejected"
        assert roles[round.challenger] == wanted
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as db:
        assert db.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0] >= 1


def test_no_row_was_learned_from_before_its_answer_was_known(learned: Learned) -> None:
    outcomes = rows_of(learned[0], "outcomes")

    for round in rounds_of(learned):
        if round.challenger:
            place = directory_of(learned[0], model="cnn", id=round.challenger)
            until_ns = load_checkpoint(place).layout["trained"]["until_ns"]
            compared = outcomes[(outcomes["model"] == "cnn") & (outcomes["event_ns"] >= until_ns)]
            assert round.num_compared <= compared["inference_id"].nunique()


def test_verdicts_and_labels_are_kept_beside_the_inferences(learned: Learned) -> None:
    home, _ = learned

    kept = {row["event_ns"]: row for row in noted(home, "training_rounds")}
    labels = noted(home, "examples")

    assert [kept[r.confirm_ns]["state"] for r in rounds_of(learned)] == [
        r.state.value for r in rounds_of(learned)
    ]
    ids = [row["inference_id"] for row in labels]
    assert len(ids) == len(set(ids)) > 100
    assert set(ids) <= set(rows_of(home)["id"])
    answered = rows_of(home, "outcomes").groupby("inference_id")["known_ns"].max()
    for row in labels:
        if row["inference_id"] in answered:
            assert row["known_ns"] >= answered[row["inference_id"]]


def test_page_opened_closed_and_killed_while_it_learned_changed_no_row(
    learned: Learned, whole: tuple[Path, dict[str, Any]]
) -> None:
    live = [r.live_ns for r in rounds_of(learned) if r.live_ns is not None and r.live_ns > 0]
    until_ns = min(live, default=2**62)

    for table in ("inferences", "predictions", "outcomes"):
        mine, other = rows_of(learned[0], table), rows_of(whole[0], table)
        if table == "outcomes":
            mine, other = (rows[rows["known_ns"] < until_ns] for rows in (mine, other))
        mine, other = (rows[rows["event_ns"] < until_ns] for rows in (mine, other))
        pd.testing.assert_frame_equal(mine, other)
    mine_traded, other_traded = (traded(ledger_of(home)) for home in (learned[0], whole[0]))
    for name, rows in mine_traded.items():
        expected = [row for row in other_traded[name] if row["event_ns"] < until_ns]
        assert [row for row in rows if row["event_ns"] < until_ns] == expected, name
