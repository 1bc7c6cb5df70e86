"""The gate promotes on evidence: never the worse, rarely the equal, soon the clearly better."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import Floats, Ints
from alphapulse.learning.promotion import Verdict, block_means, compare, evidence

AT = 20.0
TRIALS = 200
Pairs = tuple[Floats, Floats, Ints]


def paired(seed: int, *, gain: float, num_blocks: int = 30) -> Pairs:
    """Return losses as answers make them: skewed, and alike within an answer.

    A challenger differs from the champion by `gain` on average, by an answer more than by a row.
    """
    random = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(num_blocks), random.integers(3, 40, num_blocks))
    hard_K = random.gamma(4.0, 0.2, num_blocks)
    apart_K = random.normal(gain, 0.12, num_blocks)
    champion_N = hard_K[group_N] * random.lognormal(0, 0.2, len(group_N))
    challenger_N = champion_N - apart_K[group_N] + random.normal(0, 0.05, len(group_N))
    return champion_N, challenger_N, group_N


def promotions(gain: float, *, judge: object = compare, num_blocks: int = 30) -> int:
    return sum(
        judge(*paired(seed, gain=gain, num_blocks=num_blocks), promote_at=AT).promoted  # type: ignore[operator]
        for seed in range(TRIALS)
    )


def rows_as_evidence(
    champion_N: Floats, challenger_N: Floats, group_N: Ints, *, promote_at: float
) -> Verdict:
    """Judge as if every row were an answer of its own (the planted fault)."""
    return compare(champion_N, challenger_N, np.arange(len(group_N)), promote_at=promote_at)


def mean_as_evidence(
    champion_N: Floats, challenger_N: Floats, group_N: Ints, *, promote_at: float
) -> Verdict:
    """Judge by whose mean loss is lower (the planted fault)."""
    better = bool(champion_N.mean() > challenger_N.mean())
    return Verdict(better, 1.0, 0.0, len(group_N), "")


@pytest.mark.parametrize("gain", [-0.02, -0.05, -0.2])
def test_none_of_200_worse_challengers_is_promoted(gain: float) -> None:
    assert promotions(gain) == 0


def test_at_most_one_in_twenty_equal_challengers_is_promoted() -> None:
    assert promotions(0.0) <= TRIALS / 20
    assert promotions(0.0, num_blocks=200) <= TRIALS / 20


@pytest.mark.parametrize("judge", [rows_as_evidence, mean_as_evidence])
def test_a_gate_that_forgets_the_blocks_or_the_evidence_is_caught(judge: object) -> None:
    assert promotions(0.0, judge=judge) > TRIALS / 20


def test_a_clearly_better_challenger_needs_some_twenty_to_thirty_answers() -> None:
    assert promotions(0.2, num_blocks=5) == 0
    assert promotions(0.2, num_blocks=25) >= 0.95 * TRIALS


def test_looking_after_every_answer_promotes_an_equal_one_no_more_often() -> None:
    looked = [
        max(evidence(step_K[:k]) for k in range(1, 61))
        for step_K in (
            np.random.default_rng(seed).choice([-1.0, 1.0], 60) for seed in range(TRIALS)
        )
    ]

    assert sum(peak >= AT for peak in looked) <= TRIALS / 20


def test_the_same_model_is_no_evidence() -> None:
    loss_N, _, group_N = paired(1, gain=0.0)

    verdict = compare(loss_N, loss_N, group_N, promote_at=AT)

    assert (verdict.e_value, verdict.mean_difference, verdict.promoted) == (1.0, 0.0, False)


def test_verdict_carries_the_figures_it_rests_on() -> None:
    champion_N = np.array([1.0, 2.0, 4.0])
    challenger_N = np.array([0.5, 2.5, 3.0])

    verdict = compare(champion_N, challenger_N, np.array(["a", "a", "b"]), promote_at=AT)

    assert verdict.num_blocks == 2
    assert verdict.figures == {
        "champion_loss": 2.75,
        "challenger_loss": 2.25,
        "difference": 0.5,
        "e_value": 1.0,  # nothing is bet on the first answer, and the first brought nothing
        "promote_at": AT,
        "num_rows": 3,
        "num_blocks": 2,
        "blocks_won": 1,
    }
    assert "below 20 on 2 answers" in verdict.reason


def test_nothing_to_compare_rejects_and_says_so() -> None:
    nothing = np.array([])

    verdict = compare(nothing, nothing, nothing, promote_at=AT)

    assert not verdict.promoted
    assert "no settled row" in verdict.reason


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_order_of_rows_within_an_answer_changes_no_bit(seed: int, random: object) -> None:
    champion_N, challenger_N, group_N = paired(seed, gain=0.1, num_blocks=12)
    order = np.arange(len(group_N))
    for group in range(12):
        rows = np.flatnonzero(group_N == group).tolist()
        random.shuffle(rows)  # type: ignore[attr-defined]
        order[group_N == group] = rows

    told = compare(champion_N, challenger_N, group_N, promote_at=AT)
    shuffled = compare(champion_N[order], challenger_N[order], group_N[order], promote_at=AT)

    assert shuffled == told


def test_a_row_given_a_thousand_times_stays_one_answer_within_its_own_bounds() -> None:
    champion_N, challenger_N, group_N = paired(3, gain=0.1)
    differences_N = champion_N - challenger_N
    block = group_N == 7
    loudest = int(np.flatnonzero(block)[differences_N[block].argmax()])
    order = np.sort(np.concatenate([np.arange(len(group_N)), np.full(999, loudest)]))

    told_K = block_means(differences_N[:, None], group_N)[:, 0]
    again_K = block_means(differences_N[order][:, None], group_N[order])[:, 0]

    others = np.arange(len(told_K)) != 7
    assert (again_K[others] == told_K[others]).all()
    assert told_K[7] < again_K[7] <= differences_N[loudest]
    at_most = 1.5  # what one answer can multiply the evidence by, however loud
    assert evidence(again_K / 0.25) <= at_most * evidence(np.delete(told_K, 7) / 0.25) * at_most


@given(st.lists(st.floats(-50, 50), max_size=60))
def test_evidence_is_positive_and_no_answer_can_more_than_halve_or_add_half(
    steps: list[float],
) -> None:
    step_K = np.array(steps)

    path = [evidence(step_K[:k]) for k in range(len(step_K) + 1)]

    assert all(0.499 <= after / before <= 1.501 for before, after in pairwise(path))


def test_a_loss_that_is_not_a_number_is_refused() -> None:
    good_N, bad_N = np.array([1.0, 1.0]), np.array([1.0, np.nan])

    with pytest.raises(InvalidRequest, match="challenger, was 1 that are not"):
        compare(good_N, bad_N, np.array([1, 2]), promote_at=AT)
    with pytest.raises(InvalidRequest, match="one group a row"):
        compare(good_N, good_N, np.array([1]), promote_at=AT)
