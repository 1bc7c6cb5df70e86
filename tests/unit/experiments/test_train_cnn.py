"""A round trains a challenger on real answers, judges it honestly, and leaves a verdict."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from alphapulse.config import Learning, load_settings
from alphapulse.domain.errors import AlphaPulseError, InvalidRequest
from alphapulse.domain.inference import Example
from alphapulse.domain.learning import RoundState
from alphapulse.models.checkpoints import Registry, directory_of, load_checkpoint
from alphapulse.models.cnn import CNN
from alphapulse.models.rounds import Rounds
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from experiments import train_cnn
from experiments.answered import Answered, answered, examples, forecasts_answered, parts
from experiments.challenger import EPOCHS, Scores, judge, learn, score
from tests.unit.experiments.conftest import FIRST_TICK_NS, AnsweredRun

ALL = Learning(min_examples=4, max_examples=120, held_out_share=0.4)


@pytest.fixture(scope="module")
def champion(kept_run: AnsweredRun) -> CNN:
    return CNN.load(directory_of(kept_run.home, model="cnn", id=kept_run.champions["cnn"]))


@pytest.fixture(scope="module")
def shown(kept_run: AnsweredRun) -> tuple[list[Example], list[Example], Sequence[Answered]]:
    """Return examples to learn from, and examples to compare on with their answers."""
    home, settings = Home(kept_run.home), load_settings(kept_run.home)
    history = InferenceHistory(home, settings=settings.storage)

    async def read() -> tuple[list[Example], list[Example], Sequence[Answered]]:
        known = await forecasts_answered(
            history, run=home.run(1).id, model="cnn", until_ns=kept_run.last_ns
        )
        rows = answered(known, until_ns=kept_run.last_ns)
        found = parts(rows, learned_until_ns=FIRST_TICK_NS, settings=ALL)
        ids = [row.inference_id for row in (*found.train, *found.compared)]
        inputs = await history.inputs(ids)
        return examples(found.train, inputs), examples(found.compared, inputs), found.compared

    found = asyncio.run(read())
    history.close()
    return found


def verdict_of(champion: CNN, challenger: CNN, asked: list[Example], rows: Sequence[Answered]):  # type: ignore[no-untyped-def]
    scores = (score(model, asked) for model in (champion, challenger))
    return judge(rows, *scores, promote_at=20.0)


def worse(model: CNN) -> CNN:
    """Return a copy of `model` that expects pivots far sooner than it did."""
    other = CNN.fresh(seed=1, cost_bps=model.cost_bps)
    other.network.load_state_dict(model.network.state_dict())
    other.network.get_buffer("usual_FO")[:, 1] -= 2.0
    return other


def test_a_planted_better_challenger_is_promoted_and_a_planted_worse_rejected(
    champion: CNN, shown: tuple[list[Example], list[Example], Sequence[Answered]]
) -> None:
    _, asked, rows = shown

    better, figures = verdict_of(worse(champion), champion, asked, rows)
    bad, _ = verdict_of(champion, worse(champion), asked, rows)

    assert better.promoted, better.reason
    assert not bad.promoted
    assert bad.mean_difference < 0
    assert bad.e_value <= 1
    assert figures["losses"]["log_bars_1s"][0] > figures["losses"]["log_bars_1s"][1]
    assert 0 <= figures["challenger_hit_rate"] <= 1


def test_poisoned_feedback_is_rejected(
    champion: CNN, shown: tuple[list[Example], list[Example], Sequence[Answered]]
) -> None:
    taught, asked, rows = shown
    poisoned = [
        replace(
            e,
            targets=e.targets
            | {"p_high": 1 - e.targets["p_high"], "log_bars": 0 * e.targets["log_bars"]},
        )
        for e in taught
    ]

    challenger = learn(champion, poisoned, seed=7, trained={}, rate=2e-3)
    verdict, _ = verdict_of(champion, challenger, asked, rows)

    assert not verdict.promoted


def test_same_answers_and_seed_make_the_same_challenger_and_leave_the_champion(
    champion: CNN, shown: tuple[list[Example], list[Example], Sequence[Answered]]
) -> None:
    taught = shown[0][:40]
    before, losses = champion.version, list[float]()

    one = learn(champion, taught, seed=7, trained={"from": before}, on_step=losses.append)
    same = learn(champion, taught, seed=7, trained={"from": before})
    other = learn(champion, taught, seed=8, trained={"from": before})

    assert one.version == same.version != other.version
    assert one.version != before
    assert CNN.fresh(seed=1, cost_bps=1.0).trained == {}
    champion._version = ""
    assert champion.version == before
    assert len(losses) == EPOCHS * 1  # 32 of the 40 teach, in one batch


def test_forecasts_that_share_a_pivot_are_one_answer_in_the_order_they_became_known(
    shown: tuple[list[Example], list[Example], Sequence[Answered]],
) -> None:
    _, asked, rows = shown
    pivots = {(o.symbol, o.timeframe, o.ended_ns) for row in rows for o in row.outcomes}
    known_NF = np.isfinite(np.stack([e.targets["p_high"] for e in asked]))
    flat = Scores(np.ones(known_NF.shape), np.ones((4, *known_NF.shape)), np.ones(known_NF.shape))

    verdict, _ = judge(rows, flat, flat, promote_at=20.0)

    assert verdict.num_blocks == len(pivots)
    assert verdict.figures["num_rows"] == known_NF.sum()


def test_a_round_leaves_verdict_challenger_and_figures(answered_run: AnsweredRun) -> None:
    home = answered_run.home

    done = train_cnn.train_round(home, run=1, confirm_ns=77, trigger="ETH/USDT 1s L2 H")

    assert done.state in (RoundState.PROMOTED, RoundState.REJECTED)
    assert Rounds(home / "registry.sqlite").all() == [done]
    assert (done.confirm_ns, done.champion) == (77, answered_run.champions["cnn"])
    assert done.num_train == 48
    assert done.figures["num_blocks"] >= 9
    assert {"champion_loss", "challenger_loss", "e_value", "losses"} <= set(done.figures)
    assert "progress" not in done.figures
    layout = load_checkpoint(directory_of(home, model="cnn", id=done.challenger)).layout
    assert layout["trained"]["from"] == done.champion
    assert layout["trained"]["num_examples"] == 48
    assert FIRST_TICK_NS < layout["trained"]["until_ns"] < answered_run.last_ns
    roles = {e.id: e.role for e in Registry(home / "registry.sqlite").entries()}
    promoted = done.state is RoundState.PROMOTED
    assert roles[done.challenger] == ("challenger" if promoted else "rejected")
    assert roles[done.champion] == "champion"


def test_what_a_challenger_learned_is_never_compared_on_later(answered_run: AnsweredRun) -> None:
    home = answered_run.home
    first = train_cnn.train_round(home, run=1)

    after = train_cnn.train_round(home, run=1, champion=first.challenger)

    until_ns = load_checkpoint(directory_of(home, model="cnn", id=first.challenger)).layout[
        "trained"
    ]["until_ns"]
    assert after.num_compared <= first.num_compared
    assert after.confirm_ns == first.confirm_ns + 1
    assert until_ns < answered_run.last_ns


def test_too_little_to_compare_on_rejects_before_training(answered_run: AnsweredRun) -> None:
    early = str(FIRST_TICK_NS + 60_000_000_000)

    done = train_cnn.train_round(answered_run.home, run=1, until=early)

    assert (done.state, done.challenger) == (RoundState.REJECTED, "")
    assert "too little to compare on" in done.reason


def test_a_failure_is_written_down_and_exits_with_an_error(
    answered_run: AnsweredRun, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--home", str(answered_run.home), "--run", "1", "--confirm-ns", "5"]

    code = train_cnn.main([*words, "--champion", "nobody"])
    again = train_cnn.main(words)

    (kept,) = Rounds(answered_run.home / "registry.sqlite").all()
    assert code == again == 1
    assert kept.state is RoundState.FAILED
    assert kept.reason.startswith("CheckpointError: ")
    assert "without a verdict, was failed" in " ".join(capsys.readouterr().err.split())


def test_a_verdict_is_given_once(answered_run: AnsweredRun) -> None:
    early = str(FIRST_TICK_NS)
    train_cnn.train_round(answered_run.home, run=1, until=early, confirm_ns=5)

    with pytest.raises(InvalidRequest, match="was rejected"):
        train_cnn.train_round(answered_run.home, run=1, until=early, confirm_ns=5)


def test_an_instant_that_is_none_is_refused(answered_run: AnsweredRun) -> None:
    with pytest.raises(AlphaPulseError, match="ISO-8601"):
        train_cnn.train_round(answered_run.home, run=1, until="yesterday")


def test_the_command_prints_the_round_as_json(answered_run: AnsweredRun) -> None:
    words = ["--home", str(answered_run.home), "--run", "1", "--until", "2024-08-08T23:55:30Z"]
    command = [sys.executable, "-m", "experiments.train_cnn", *words, "--json"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    told = json.loads(done.stdout)
    assert (told["state"], told["model"], told["trigger"]) == ("rejected", "cnn", "asked for")
    assert done.stderr == ""


def test_a_stopped_round_is_a_failed_one(answered_run: AnsweredRun) -> None:
    words = ["--home", str(answered_run.home), "--run", "1", "--confirm-ns", "5"]
    command = [sys.executable, "-m", "experiments.train_cnn", *words]
    rounds = Rounds(answered_run.home / "registry.sqlite")

    with subprocess.Popen(command) as process:
        while rounds.running(Home(answered_run.home).run(1).id) is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        code = process.wait(20)

    (kept,) = rounds.all()
    assert code == 128 + signal.SIGTERM
    assert (kept.state, kept.reason) == (RoundState.FAILED, "SystemExit: 143")
