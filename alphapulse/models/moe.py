"""The orchestrator: a masked gate over sixteen fixed slots, of which slot 0 is to stay flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import Action, Example, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.inputs import Tensor as Array
from alphapulse.domain.market import TIMEFRAMES, Timeframe
from alphapulse.features.peers import SLOTS
from alphapulse.features.validation import require_valid
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import load_checkpoint, spec_of
from alphapulse.models.fit import descend, split
from alphapulse.models.gate import HIDDEN, SAID, GateNetwork, confidence_of, pool
from alphapulse.models.kept import Kept
from alphapulse.models.network import (
    owned,
    put_weights,
    seed_all,
    use_one_thread,
    volatility_SF,
)
from alphapulse.models.policy import ACTIONS

# axes: B batch · K slot · E what an expert says · A action (buy, sell, hold) · H hidden
EVIDENCE = 30  # answered entries below which the confidence is left as it is
CAUTION = 0.1  # weight of the shares' entropy against a result of 1 R
FLAT = np.array([0, 0, 1, 1, 0], dtype=np.float32)  # always awake: holds, surely, for nothing


def regime_of(input: ModelInput) -> Array:
    """Return what the gate knows of the market, float32 (3,).

    Log volatility of 1m and of 1h, each over its usual size, and the position.
    """
    volatility_F = volatility_SF(input.bars_SFTC, input.flags_SFT)[0]
    minute, hour = (volatility_F[TIMEFRAMES.index(f)] for f in (Timeframe.M1, Timeframe.H1))
    return np.array(
        [np.log(minute / 1e-3), np.log(hour / 1e-2), input.account_A[0]], dtype=np.float32
    )


class Orchestrator(Kept[GateNetwork], Model):
    """Weighs what the experts say into one prediction.

    Targets it learns from: `result` float32 (2,), net result [R] of a long and of a short entered
    now, NaN where not known. Listens to the slots it was trained with; `upstream` holds their
    predictions by slot name.
    """

    name = "moe"

    def __init__(
        self,
        network: GateNetwork,
        *,
        spec: InputSpec = INPUT_SPEC,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        use_one_thread()
        self.network = network.eval()
        self.spec = spec
        self.trained = dict(trained or {})

    @classmethod
    def fresh(
        cls,
        *,
        seed: int,
        slots: Sequence[str] = ("flat", "cnn", "rl"),
        spec: InputSpec = INPUT_SPEC,
    ) -> Self:
        """Return an untrained one that listens to `slots`."""
        seed_all(seed)
        network = GateNetwork(INPUT_SPEC.num_slots)
        network.get_buffer("trained_K")[[SLOTS[name] for name in slots]] = True
        return cls(network, spec=spec)

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return the weighted opinion and the shares; KeyError if it hears none of `upstream`."""
        require_valid(self.name, input, self.spec)
        if not self._heard(upstream):
            raise KeyError(
                f"moe: expected predictions of {', '.join(self._slots())}, was "
                f"{', '.join(upstream) or 'none'}"
            )
        said_KE, awake_K = self._table(upstream)
        with torch.inference_mode():
            shares_BK = self.network(
                owned(said_KE)[None], owned(awake_K)[None], owned(regime_of(input))[None]
            )
            pooled_BE = pool(shares_BK, owned(said_KE)[None], owned(awake_K)[None])
            best = int(pooled_BE[0, :3].argmax())
            sure = confidence_of(shares_BK, owned(said_KE)[None], owned(awake_K)[None])[:, best]
            if ACTIONS[best] is not Action.HOLD:
                sure = self.network.recalibrate(sure)
        p_buy, p_sell = float(pooled_BE[0, 0]), float(pooled_BE[0, 1])
        weights = {
            name: float(shares_BK[0, SLOTS[name]]) for name in ("flat", *self._heard(upstream))
        }
        return Prediction(
            model=self.name,
            version=self.version,
            symbol=input.symbol,
            event_ns=input.event_ns,
            action=ACTIONS[best],
            p_buy=p_buy,
            p_sell=p_sell,
            p_hold=1.0 - p_buy - p_sell,
            confidence=float(sure[0]),
            utility_r=float(pooled_BE[0, 4]),
            hidden_H=shares_BK[0].numpy().copy(),
            weights=weights,
        )

    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Fit the gate on the older four fifths of the examples and report on the newest fifth."""
        older, newest = split(self.name, examples)
        self.fit(older, seed=len(examples))
        return self.report(newest, num_examples=len(older))

    def fit(self, examples: Sequence[Example], *, seed: int) -> None:
        """Let the shares earn the most [R] on `examples`, then calibrate the confidence.

        The experts must not have been trained on these examples: what they say there would be too
        good.
        """
        seed_all(seed)
        said, awake, regime, earned, result = self._stack(examples)
        gate = [*self.network.score.parameters(), self.network.prior_K]

        def loss() -> Tensor:
            shares = self.network(said, awake, regime)
            entropy = -(shares * shares.clamp(min=1e-9).log()).sum(dim=-1)
            return -torch.mean((shares * earned).sum(dim=-1) + CAUTION * entropy)

        descend(gate, [loss] * 200, num_steps=200, rate=0.01, decay=0.1)
        self._calibrate(said, awake, regime, result)
        self._version = ""

    def report(self, held_out: Sequence[Example], *, num_examples: int) -> LearnReport:
        """Return the mean loss [R], the negated result, of the gate beside that of equal shares."""
        said, awake, regime, earned, _ = self._stack(held_out)
        with torch.inference_mode():
            mine = -(self.network(said, awake, regime) * earned).sum(dim=-1).mean()
        equal = -(earned * awake).sum(dim=-1) / awake.sum(dim=-1)
        return LearnReport(
            num_examples,
            {"negated_result_r": float(mine)},
            {"negated_result_r": float(equal.mean())},
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`; raises CheckpointError unless it is whole."""
        kept = load_checkpoint(directory, model=cls.name)
        network = GateNetwork(INPUT_SPEC.num_slots)
        put_weights(network, kept.weights)
        return cls(network, spec=spec_of(kept), trained=kept.layout["trained"])

    def _calibrate(self, said: Tensor, awake: Tensor, regime: Tensor, result: Tensor) -> None:
        with torch.inference_mode():
            shares = self.network(said, awake, regime)
            best = pool(shares, said, awake)[:, :3].argmax(dim=-1)
            sure = confidence_of(shares, said, awake).gather(1, best[:, None]).squeeze(1)
        entered = best < 2
        if int(entered.sum()) < EVIDENCE:
            return
        paid = (result.gather(1, best.clamp(max=1)[:, None]).squeeze(1) > 0).float()[entered]
        sure = sure[entered].clone()

        def loss() -> Tensor:
            told = self.network.recalibrate(sure)
            return functional.binary_cross_entropy(told, paid)

        descend([self.network.platt], [loss] * 200, num_steps=200, rate=0.02, decay=0.1)

    def _table(
        self, upstream: Mapping[str, Prediction]
    ) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
        said_KE = np.zeros((self.spec.num_slots, SAID), dtype=np.float32)
        awake_K = np.zeros(self.spec.num_slots, dtype=np.bool_)
        said_KE[SLOTS["flat"]], awake_K[SLOTS["flat"]] = FLAT, True
        for name in self._heard(upstream):
            p = upstream[name]
            said_KE[SLOTS[name]] = (p.p_buy, p.p_sell, p.p_hold, p.confidence, p.utility_r)
            awake_K[SLOTS[name]] = True
        return said_KE, awake_K

    def _stack(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        unknown = np.full(2, np.nan, dtype=np.float32)
        answered = [e for e in examples if not np.isnan(e.targets.get("result", unknown)).any()]
        if not answered:
            raise Unavailable(
                "moe: expected examples with a known result, was none; wait for outcomes"
            )
        tables = [self._table(e.upstream) for e in answered]
        result = owned(np.stack([e.targets["result"] for e in answered]))
        said, awake = (
            owned(np.stack([t[0] for t in tables])),
            owned(np.stack([t[1] for t in tables])),
        )
        regime = owned(np.stack([regime_of(e.input) for e in answered]))
        best_BK = said[..., :3].argmax(dim=-1)
        outcome_BA = functional.pad(result, (0, 1))  # to hold earns nothing
        earned = torch.where(awake, outcome_BA.gather(1, best_BK), 0.0)
        return said, awake, regime, earned, result

    def _slots(self) -> tuple[str, ...]:
        trained = self.network.get_buffer("trained_K")
        return tuple(name for name, slot in SLOTS.items() if bool(trained[slot]))

    def _heard(self, upstream: Mapping[str, Prediction]) -> tuple[str, ...]:
        return tuple(name for name in self._slots() if name in upstream)

    def _layout(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "spec_version": self.spec.version,
            "spec_hash": self.spec.content_hash,
            "own": list(self.spec.own),
            "hidden": HIDDEN,
            "trained_slots": [SLOTS[name] for name in self._slots()],
            "trained": self.trained,
        }
