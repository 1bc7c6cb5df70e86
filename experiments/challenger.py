"""A challenger of the CNN: taught by answered inferences, and judged beside the champion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alphapulse.domain.inference import Example
from alphapulse.domain.market import TIMEFRAMES, Floats, Timeframe
from alphapulse.learning.examples import answer_of
from alphapulse.learning.promotion import Verdict, compare
from alphapulse.models.cnn import CNN
from alphapulse.models.fit import (
    HEADS,
    batch_of,
    calibrate,
    cnn_loss,
    descend,
    head_losses,
    hits,
    outputs_of,
    split,
)
from alphapulse.models.network import CnnNetwork, seed_all
from experiments.answered import (
    Answered,
)

# axes: N example · F timeframe · K head
EPOCHS = 2  # as CNN.learn, and the rate too
RATE = 5e-4
BATCH_ROWS = 32


@dataclass(frozen=True, slots=True)
class Scores:
    """How a network did on examples.

    Attributes:
        loss_NF: float64 (N, F) mean loss of the heads, NaN where nothing is settled.
        head_KNF: float64 (K, N, F) losses by head.
        hit_NF: float64 (N, F) 1 where kind, time and price came as forecast.
    """

    loss_NF: Floats
    head_KNF: Floats
    hit_NF: Floats


def score(model: CNN, rows: Sequence[Example]) -> Scores:
    """Return the losses and hits of a model on examples."""
    heads, hit = [], []
    with torch.inference_mode():
        for i in range(0, len(rows), BATCH_ROWS):
            outputs, targets = outputs_of(
                model.network, batch_of(rows[i : i + BATCH_ROWS], model.spec)
            )
            losses = head_losses(outputs, targets)
            heads.append(torch.stack([losses[head] for head in HEADS]))
            hit.append(hits(outputs, targets))
    head_KNF = torch.cat(heads, dim=1).double()
    return Scores(
        head_KNF.nanmean(dim=0).numpy(), head_KNF.numpy(), torch.cat(hit).double().numpy()
    )


def learn(
    champion: CNN,
    shown: Sequence[Example],
    *,
    seed: int,
    trained: dict[str, Any],
    on_step: Callable[[float], None] = lambda loss: None,
    epochs: int = EPOCHS,
    rate: float = RATE,
) -> CNN:
    """Return a challenger: the champion, taught by answered inferences.

    The newest fifth of them fits its confidence only: what it has learned from would flatter it.

    Args:
        champion: where it begins; stays as it is.
        shown: at least two examples.
        seed: of the order.
        trained: what the challenger's layout says of how it was made.
        on_step: called with the loss after every step.
        epochs: passes.
        rate: learning rate.
    """
    seed_all(seed)
    network = CnnNetwork(champion.spec, champion.sizes)
    network.load_state_dict(champion.network.state_dict())
    older, newest = split(CNN.name, shown)
    orders = [torch.randperm(len(older)).tolist() for _ in range(epochs)]
    picks = [
        order[i : i + BATCH_ROWS] for order in orders for i in range(0, len(order), BATCH_ROWS)
    ]
    losses: list[float] = []

    def loss_of(pick: list[int]) -> torch.Tensor:
        loss = cnn_loss(network, batch_of([older[n] for n in pick], champion.spec))
        losses.append(float(loss.detach()))
        return loss

    network.train()
    descend(
        list(network.parameters()),
        [lambda pick=pick: loss_of(pick) for pick in picks],
        num_steps=len(picks),
        rate=rate,
        on_step=lambda: on_step(losses[-1]),
    )
    network.eval()
    with torch.inference_mode():
        outputs, targets = outputs_of(network, batch_of(newest, champion.spec))
    calibrate(network, outputs.clone(), hits(outputs, targets).clone())
    return CNN(
        network,
        cost_bps=champion.cost_bps,
        spec=champion.spec,
        sizes=champion.sizes,
        trained=trained,
    )


def judge(
    rows: Sequence[Answered], champion: Scores, challenger: Scores, *, promote_at: float
) -> tuple[Verdict, dict[str, Any]]:
    """Return the gate's verdict on compared rows, and figures beside its own.

    What is paired is a forecast: one timeframe of one inference, its loss the mean of the heads.
    Forecasts that one pivot answered are one block; blocks stand in the order they became known.
    """
    forecasts = sorted(
        (outcome.known_ns, answer_of(outcome), n, TIMEFRAMES.index(Timeframe(outcome.timeframe)))
        for n, row in enumerate(rows)
        for outcome in row.outcomes
    )
    n_N = [n for _, _, n, _ in forecasts]
    f_N = [f for _, _, _, f in forecasts]
    group_N = np.array(["|".join(map(str, answer)) for _, answer, _, _ in forecasts])
    pair = [scores.loss_NF[n_N, f_N] for scores in (champion, challenger)]
    verdict = compare(pair[0], pair[1], group_N, promote_at=promote_at)
    by_head = {
        f"{head}_{timeframe}": [
            _mean(champion.head_KNF[k, :, f]),
            _mean(challenger.head_KNF[k, :, f]),
        ]
        for k, head in enumerate(HEADS)
        for f, timeframe in enumerate(TIMEFRAMES)
        if np.isfinite(champion.head_KNF[k, :, f]).any()
    }
    return verdict, {
        "losses": by_head,
        "champion_hit_rate": _mean(champion.hit_NF),
        "challenger_hit_rate": _mean(challenger.hit_NF),
    }


def _mean(values: Floats) -> float:
    return float(np.nanmean(values))


def recipe(seed: int) -> dict[str, Any]:
    """Return how a challenger is taught, as plain values."""
    return {"seed": seed, "epochs": EPOCHS, "rate": RATE, "batch": BATCH_ROWS}
