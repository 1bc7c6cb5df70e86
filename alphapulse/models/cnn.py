"""The CNN: where and when each timeframe turns next, and what that is worth as a vote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from alphapulse.domain.inference import Example, Forecast, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.learning import LEVELS
from alphapulse.domain.market import TIMEFRAMES, Floats
from alphapulse.features.validation import require_valid
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import load_checkpoint, spec_of
from alphapulse.models.fit import batch_of, cnn_loss, descend, split
from alphapulse.models.kept import Kept
from alphapulse.models.network import (
    CnnNetwork,
    Sizes,
    heard,
    owned,
    put_weights,
    seed_all,
    use_one_thread,
    volatility_SF,
)
from alphapulse.models.scores import report
from alphapulse.models.vote import vote


class CNN(Kept[CnnNetwork], Model):
    """Forecasts the next pivot of every timeframe of one symbol.

    Targets it learns from, float32 (F,), NaN where the answer is not known: `p_high` (1 if the next
    pivot is a high), `log_bars` (log(1 + bars until it opens)), `move` (log(price / price now) /
    volatility), `p_done` (1 if a pivot in the past is still to be confirmed), and `unique` (weight
    of the label, 1 if it is not there).
    """

    name = "cnn"

    def __init__(
        self,
        network: CnnNetwork,
        *,
        cost_bps: float,
        spec: InputSpec = INPUT_SPEC,
        sizes: Sizes | None = None,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        use_one_thread()
        self.network = network.eval()
        self.spec = spec
        self.cost_bps = cost_bps
        self.sizes = sizes or Sizes()
        self.trained = dict(trained or {})

    @classmethod
    def fresh(cls, *, seed: int, cost_bps: float, spec: InputSpec = INPUT_SPEC) -> Self:
        """Return an untrained one; its checkpoint is nobody's champion."""
        seed_all(seed)
        return cls(CnnNetwork(spec), cost_bps=cost_bps, spec=spec)

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return a forecast a timeframe whose stream is there, their vote and the hidden state."""
        require_valid(self.name, input, self.spec)
        with torch.inference_mode():
            tokens = self.network.tokens(
                owned(heard(input, self.spec))[None], owned(input.flags_SFT)[None]
            )
            names = ("book_STB", "known_STB", "peers_KP", "awake_K")
            beside = self.network.beside(*(owned(getattr(input, name))[None] for name in names))
            outputs_BFO, hidden_BH = self.network.fuse(tokens, beside)
            sure_BF = torch.sigmoid(self.network.hit_logit(outputs_BFO))
            odds_BFO = torch.sigmoid(outputs_BFO)
        volatility_F = volatility_SF(input.bars_SFTC, input.flags_SFT)[0]
        told = np.column_stack(
            [outputs_BFO[0].numpy(), sure_BF[0].numpy(), odds_BFO[0].numpy()[:, [0, 4]]]
        )
        forecasts = _forecasts(input, told.astype(np.float64), volatility_F)
        said = vote(forecasts, volatility_F, cost=self.cost_bps / 1e4)
        return Prediction(
            model=self.name,
            version=self.version,
            symbol=input.symbol,
            event_ns=input.event_ns,
            hidden_H=hidden_BH[0].numpy().copy(),
            forecasts=forecasts,
            **asdict(said),
        )

    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Take two passes over the older four fifths of the examples, report on the newest."""
        seed_all(len(examples))
        older, newest = split(self.name, examples)
        slices = [older[i : i + 32] for _ in range(2) for i in range(0, len(older), 32)]
        losses = [
            lambda rows=rows: cnn_loss(self.network, batch_of(rows, self.spec)) for rows in slices
        ]
        self.network.train()
        descend(list(self.network.parameters()), losses, num_steps=len(losses), rate=5e-4)
        self.network.eval()
        self._version = ""
        shown, held_out = batch_of(older, self.spec), batch_of(newest, self.spec)
        return report(self.network, shown.targets, [held_out], num_examples=len(older))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`; raises CheckpointError unless it is whole."""
        kept = load_checkpoint(directory, model=cls.name)
        sizes = Sizes(**kept.layout["sizes"])
        spec = spec_of(kept)
        network = CnnNetwork(spec, sizes)
        put_weights(network, kept.weights)
        return cls(
            network,
            cost_bps=kept.layout["cost_bps"],
            spec=spec,
            sizes=sizes,
            trained=kept.layout["trained"],
        )

    def _layout(self) -> dict[str, Any]:
        slots = [i for i, used in enumerate(self.network.get_buffer("trained_K").tolist()) if used]
        return {
            "model": self.name,
            "spec_version": self.spec.version,
            "spec_hash": self.spec.content_hash,
            "own": list(self.spec.own),
            "sizes": asdict(self.sizes),
            "trained_slots": slots,
            "cost_bps": self.cost_bps,
            "trained": self.trained,
        }


def _forecasts(input: ModelInput, told_FX: Floats, volatility_F: Floats) -> tuple[Forecast, ...]:
    found = []
    for timeframe, told, unit in zip(TIMEFRAMES, told_FX, volatility_F, strict=True):
        if math.isnan(unit):
            continue
        logit, log_bars, high, low, _, sure, p_high, p_done = (float(value) for value in told)
        bars_ahead, move = math.expm1(max(log_bars, 0.0)), high if logit >= 0 else low
        found.append(
            Forecast(
                timeframe=timeframe,
                level=LEVELS[timeframe],
                p_high=p_high,
                p_low=1.0 - p_high,
                pivot_ns=input.event_ns + round(bars_ahead * timeframe.ns),
                bars_ahead=bars_ahead,
                price=input.price * math.exp(move * float(unit)),
                move=move,
                p_done=p_done,
                confidence=sure,
            )
        )
    return tuple(found)
