"""Train the gate on what the experts say where none has learned; test on the held-out part."""

from __future__ import annotations

from alphapulse.config import Training
from alphapulse.interfaces import LearnReport
from alphapulse.models.moe import Orchestrator
from experiments.dataset import HELD_OUT, Dataset, Upstream


def train(
    dataset: Dataset, training: Training, upstream: Upstream
) -> tuple[Orchestrator, LearnReport]:
    """Return a trained gate and its loss on the held-out part.

    Args:
        dataset: of `experiments.dataset.collect`.
        training: the seed.
        upstream: by (instant, symbol) what CNN and policy predict when flat, for the parts `moe`
            and `held_out`.
    """
    model = Orchestrator.fresh(seed=training.seed, spec=dataset.spec)
    shown = dataset.rows("moe", upstream)
    model.fit(shown, seed=training.seed)
    return model, model.report(dataset.rows(HELD_OUT, upstream), num_examples=len(shown))
