"""Train the first CNN on candles: on the oldest part, its confidence on the next; then test it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alphapulse.config import Training
from alphapulse.interfaces import LearnReport
from alphapulse.models.cnn import CNN
from alphapulse.models.fit import (
    DECAY,
    RATE,
    CnnBatch,
    calibrate,
    cnn_loss,
    descend,
    hits,
    outputs_of,
)
from alphapulse.models.network import CnnNetwork, owned, seed_all
from alphapulse.models.scores import report, usual_outputs
from experiments.dataset import HELD_OUT, Dataset
from experiments.labels import Part

BATCH_INSTANTS = 16  # each decides both symbols: 32 rows


def train(
    dataset: Dataset,
    training: Training,
    on_step: Callable[[], None] = lambda: None,
    *,
    rate: float = RATE,
    decay: float = DECAY,
    on_epoch: Callable[[CnnNetwork], None] = lambda network: None,
) -> tuple[CNN, LearnReport]:
    """Return a trained CNN and its losses on the held-out part.

    Args:
        dataset: of `experiments.dataset.collect`.
        training: seed, epochs and costs.
        on_step: called after every step of `num_steps`.
        rate: learning rate.
        decay: of the weights.
        on_epoch: called with the network after every pass.
    """
    model = CNN.fresh(seed=training.seed, cost_bps=training.cost_bps, spec=dataset.spec)
    network, part = model.network, dataset.parts["cnn"]
    seed_all(training.seed)
    orders = [torch.randperm(part.end - part.begin) for _ in range(training.epochs)]
    picks = [p for order in orders for p in torch.split(order, BATCH_INSTANTS)]
    shown = {head: owned(values) for head, values in part.pivots.items()}
    network.start_at_base(usual_outputs(shown))
    losses = [lambda pick=pick: cnn_loss(network, _batch(dataset, part, pick)) for pick in picks]
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_step()
        if done % (len(picks) // training.epochs) == 0:
            on_epoch(network)

    network.train()
    descend(
        list(network.parameters()),
        losses,
        num_steps=len(losses),
        rate=rate,
        decay=decay,
        on_step=step,
    )
    network.eval()
    outputs, targets = _answered(model, dataset, "rl")
    calibrate(network, outputs, hits(outputs, targets))
    return model, held_out_report(network, dataset)


def held_out_report(network: CnnNetwork, dataset: Dataset) -> LearnReport:
    """Return the losses of `network` on the held-out part beside those of the base rates."""
    part = dataset.parts["cnn"]
    shown = {head: owned(values) for head, values in part.pivots.items()}
    held_out = _batches(dataset, dataset.parts[HELD_OUT])
    return report(network, shown, held_out, num_examples=2 * (part.end - part.begin))


def num_steps(dataset: Dataset, training: Training) -> int:
    """Return how many steps `train` takes."""
    part = dataset.parts["cnn"]
    return training.epochs * -(-(part.end - part.begin) // BATCH_INSTANTS)


def _batch(dataset: Dataset, part: Part, pick: torch.Tensor) -> CnnBatch:
    rows = pick.numpy()
    return CnnBatch(
        owned(dataset.bars_NSFTC[part.begin + rows]),
        owned(dataset.flags_NSFT[part.begin + rows]),
        {head: owned(values[rows]) for head, values in part.pivots.items()},
        both=True,
    )


def _batches(dataset: Dataset, part: Part) -> list[CnnBatch]:
    indices = torch.arange(part.end - part.begin)
    return [_batch(dataset, part, pick) for pick in torch.split(indices, BATCH_INSTANTS)]


def _answered(
    model: CNN, dataset: Dataset, name: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the outputs on a part the network has not learned from, and the answers."""
    with torch.no_grad():
        found = [outputs_of(model.network, b) for b in _batches(dataset, dataset.parts[name])]
    targets = {head: torch.cat([answer[head] for _, answer in found]) for head in found[0][1]}
    return torch.cat([outputs for outputs, _ in found]), targets
