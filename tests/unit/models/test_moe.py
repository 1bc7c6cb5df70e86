"""The gate hears awake slots only, treats experts alike, and pools what it hears."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alphapulse.domain.inference import Action, Example, Prediction
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.gate import GateNetwork, confidence_of, pool
from alphapulse.models.moe import Orchestrator


def said(model: str, *, p_buy: float, utility: float, confidence: float = 0.7) -> Prediction:
    action = Action.BUY if p_buy > 0.5 else Action.HOLD
    hidden_H = np.zeros(4, dtype=np.float32)
    p_sell = 0.05
    return Prediction(
        model, "0" * 16, "ETH/USDT", 0, action, p_buy, p_sell, 0.95 - p_buy, confidence, utility,
        hidden_H,
    )  # fmt: skip


UPSTREAM = {
    "cnn": said("cnn", p_buy=0.9, utility=0.4),
    "rl": said("rl", p_buy=0.8, utility=0.2, confidence=0.5),
}


def tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    said_BKE = torch.rand(3, 16, 5, generator=generator)
    awake_BK = torch.zeros(3, 16, dtype=torch.bool)
    awake_BK[:, :5] = True
    return said_BKE, awake_BK, torch.rand(3, 3, generator=generator)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e9])
def test_garbage_in_sleeping_slots_changes_no_bit(garbage: float) -> None:
    gate = GateNetwork(16)
    said_BKE, awake_BK, regime = tables()
    poisoned = torch.where(awake_BK[..., None], said_BKE, garbage)

    for answer in (pool, confidence_of):
        clean = answer(gate(said_BKE, awake_BK, regime), said_BKE, awake_BK)
        dirty = answer(gate(poisoned, awake_BK, regime), poisoned, awake_BK)
        assert torch.equal(clean, dirty)
    assert (gate(poisoned, awake_BK, regime)[:, 5:] == 0).all()


def test_permuted_slots_get_permuted_shares() -> None:
    gate = GateNetwork(16)
    said_BKE, awake_BK, regime = tables()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))

    before = gate(said_BKE, awake_BK, regime)
    after = gate(said_BKE[:, order], awake_BK[:, order], regime)

    torch.testing.assert_close(after, before[:, order])


def test_pools_probabilities_and_utility_under_the_weights(
    moe: Orchestrator, seen: ModelInput
) -> None:
    prediction = moe.predict(seen, upstream=UPSTREAM)
    w = prediction.weights

    assert set(w) == {"flat", "cnn", "rl"}
    assert sum(w.values()) == pytest.approx(1.0)
    assert prediction.utility_r == pytest.approx(w["cnn"] * 0.4 + w["rl"] * 0.2)
    assert prediction.p_buy == pytest.approx(w["cnn"] * 0.9 + w["rl"] * 0.8)
    assert prediction.p_buy + prediction.p_sell + prediction.p_hold == pytest.approx(1.0)


def test_an_expert_it_was_not_trained_with_changes_no_bit(
    moe: Orchestrator, seen: ModelInput
) -> None:
    stranger = {"moe": said("moe", p_buy=0.1, utility=float("nan"))}

    before = moe.predict(seen, upstream=UPSTREAM)
    after = moe.predict(seen, upstream=UPSTREAM | stranger)

    assert after.weights == before.weights
    assert (after.p_buy, after.utility_r) == (before.p_buy, before.utility_r)


def test_with_nobody_to_hear_it_says_nothing(moe: Orchestrator, seen: ModelInput) -> None:
    with pytest.raises(KeyError):
        moe.predict(seen, upstream={})


def test_learning_gives_weight_to_the_expert_that_earns(
    moe: Orchestrator, seen: ModelInput
) -> None:
    right = said("cnn", p_buy=0.9, utility=0.4)
    wrong = said("rl", p_buy=0.1, utility=0.0)
    result = np.array([1.0, -1.0], dtype=np.float32)
    rows = [Example(seen, {"cnn": right, "rl": wrong}, {"result": result})] * 20

    report = moe.learn(rows)
    prediction = moe.predict(seen, upstream=rows[0].upstream)

    assert prediction.weights["cnn"] > 0.8
    assert report.held_out_loss["negated_result_r"] < report.base_rate_loss["negated_result_r"]
