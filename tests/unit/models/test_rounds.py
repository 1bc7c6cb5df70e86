"""A round is begun once, by whoever comes first, and its verdict stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.models.checkpoints import Entry, Registry
from alphapulse.models.rounds import Rounds


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    return Rounds(tmp_path / "registry.sqlite")


def round_at(confirm_ns: int, *, run: str = "r", model: str = "cnn") -> TrainingRound:
    return TrainingRound(
        run=run,
        model=model,
        confirm_ns=confirm_ns,
        trigger="ETH/USDT 1s L2 H",
        state=RoundState.RUNNING,
        champion="c",
        started_at="2024-08-09T00:00:00Z",
    )


def test_what_was_begun_is_read_back(rounds: Rounds) -> None:
    round = replace(round_at(5), figures={"progress": {"done": 1, "loss": 0.5}}, job="j")

    assert rounds.begin(round)
    assert rounds.get("r", "cnn", 5) == round
    assert rounds.get("r", "rl", 5) is None


def test_a_confirmation_starts_one_round_however_many_ask(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    Rounds(path)

    def ask(worker: int) -> bool:
        return Rounds(path).begin(replace(round_at(5), job=f"j{worker}"))

    with ThreadPoolExecutor(8) as pool:
        began = list(pool.map(ask, range(32)))

    assert sum(began) == 1
    (kept,) = Rounds(path).all("r")
    assert kept.job == f"j{began.index(True)}"


def test_run_and_model_have_rounds_of_their_own(rounds: Rounds) -> None:
    assert rounds.begin(round_at(5))
    assert rounds.begin(round_at(5, run="other"))
    assert rounds.begin(round_at(5, model="rl"))

    assert len(rounds.all()) == 3
    assert len(rounds.all("r")) == 2


def test_all_are_oldest_first_and_a_limit_keeps_the_newest(rounds: Rounds) -> None:
    for confirm_ns in (9, 3, 7):
        rounds.begin(round_at(confirm_ns))

    assert [round.confirm_ns for round in rounds.all()] == [9, 3, 7]
    assert [round.confirm_ns for round in rounds.all("r", limit=2)] == [3, 7]


def test_the_running_one_is_found_until_it_has_a_verdict(rounds: Rounds) -> None:
    round = round_at(5)
    rounds.begin(round)
    assert rounds.running("r") == round
    assert rounds.running("other") is None

    rounds.update(replace(round, state=RoundState.REJECTED, reason="no better"))

    assert rounds.running("r") is None


def test_a_verdict_stays_while_what_follows_from_it_is_added(rounds: Rounds) -> None:
    promoted = replace(round_at(5), state=RoundState.PROMOTED, challenger="d")
    rounds.begin(round_at(5))
    rounds.update(promoted)

    rounds.update(replace(promoted, live_ns=9))
    with pytest.raises(StoreError, match="was promoted"):
        rounds.update(replace(promoted, state=RoundState.FAILED))

    assert rounds.get("r", "cnn", 5) == replace(promoted, live_ns=9)


def test_a_round_that_was_not_begun_is_not_made_up(rounds: Rounds) -> None:
    with pytest.raises(StoreError, match="was none"):
        rounds.update(round_at(5))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"not a database, but long enough to be read" * 9)

    with pytest.raises(StoreError, match=r"registry\.sqlite"):
        Rounds(tmp_path / "registry.sqlite")


def test_rounds_and_models_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    registry, rounds = Registry(path), Rounds(path)
    for id, role in (("c", "champion"), ("d", "challenger")):
        registry.register(Entry(id, "cnn", role, "data", "config", 5, {}))
    rounds.begin(round_at(5))

    registry.set_role("d", "champion")

    assert rounds.all() == [round_at(5)]
    assert [entry.role for entry in registry.entries()] == ["retired", "champion"]
