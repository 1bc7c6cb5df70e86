"""Warm-start the policy on rows new to the CNN: a hindsight teacher, and what entries brought."""

from __future__ import annotations

from alphapulse.config import Training
from alphapulse.interfaces import LearnReport
from alphapulse.models.rl import RL
from experiments.dataset import HELD_OUT, Dataset, Upstream

FLAT_AND_LONG = (0, 1)
EPOCHS = 4


def train(dataset: Dataset, training: Training, upstream: Upstream) -> tuple[RL, LearnReport]:
    """Return a trained policy and its losses on the held-out part.

    Args:
        dataset: of `experiments.dataset.collect`.
        training: the seed.
        upstream: by (instant, symbol) the CNN's prediction, for the parts `rl` and `held_out`.
    """
    model = RL.fresh(seed=training.seed, spec=dataset.spec)
    shown = dataset.rows("rl", upstream, positions=FLAT_AND_LONG)
    model.fit(shown, seed=training.seed, epochs=EPOCHS)
    return model, model.report(shown, dataset.rows(HELD_OUT, upstream, positions=FLAT_AND_LONG))
