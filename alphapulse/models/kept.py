"""What every model of ours shares: one network, one checkpoint id, one way to be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from alphapulse.models.checkpoints import checkpoint_id, save_checkpoint
from alphapulse.models.network import weights_of

Network = TypeVar("Network", bound=nn.Module)


class Kept(ABC, Generic[Network]):
    """Identifies and saves a model by its layout and the weights of its network."""

    network: Network
    _version = ""  # computed when first asked for; a change of weights forgets it

    @abstractmethod
    def _layout(self) -> dict[str, Any]:
        """Return what rebuilds the network before its weights are put in, as plain JSON values."""

    @property
    def version(self) -> str:
        """Return the checkpoint id: a content hash of layout and weights."""
        if not self._version:
            self._version = checkpoint_id(self._layout(), weights_of(self.network))
        return self._version

    def save(self, directory: Path) -> str:
        """Write weights and layout into `directory` and return the checkpoint id."""
        return save_checkpoint(directory, layout=self._layout(), weights=weights_of(self.network))
