"""Load whichever model a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

from alphapulse.interfaces import Model
from alphapulse.models.checkpoints import load_checkpoint
from alphapulse.models.cnn import CNN
from alphapulse.models.moe import Orchestrator
from alphapulse.models.rl import RL

KINDS: dict[str, type[CNN] | type[RL] | type[Orchestrator]] = {
    "cnn": CNN,
    "rl": RL,
    "moe": Orchestrator,
}


def load_model(directory: Path) -> Model:
    """Return the model saved in `directory`; raises CheckpointError if it is not one of ours."""
    return KINDS[load_checkpoint(directory).layout["model"]].load(directory)
