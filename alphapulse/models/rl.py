"""The policy: buy, sell or hold, from the newest rows, the CNN and the position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alphapulse.domain.inference import Action, Example, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.market import Floats
from alphapulse.features.validation import require_valid
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import load_checkpoint, spec_of
from alphapulse.models.fit import descend, split
from alphapulse.models.kept import Kept
from alphapulse.models.network import (
    owned,
    put_weights,
    seed_all,
    use_one_thread,
)
from alphapulse.models.policy import ACTIONS, HIDDEN, PolicyNetwork, features_of, num_features
from alphapulse.models.scores import constant_loss

# axes: B batch · X feature · H hidden · A action (buy, sell, hold) · R direction (long, short)

BATCH = 64
DECAY = 1.0  # few rows, many features


class RL(Kept[PolicyNetwork], Model):
    """Recommends a target position.

    Targets it learns from, NaN where not known: `action` float32 (1,), index of the teacher's
    action in buy, sell, hold; `result` float32 (2,), net result [R] of a long and of a short
    entered now. Needs `cnn` upstream.
    """

    name = "rl"

    def __init__(
        self,
        network: PolicyNetwork,
        *,
        spec: InputSpec = INPUT_SPEC,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        use_one_thread()
        self.network = network.eval()
        self.spec = spec
        self.trained = dict(trained or {})

    @classmethod
    def fresh(cls, *, seed: int, spec: InputSpec = INPUT_SPEC) -> Self:
        """Return an untrained one."""
        seed_all(seed)
        return cls(PolicyNetwork(num_features(spec)), spec=spec)

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return action probabilities, and what the likeliest is worth and how surely it pays."""
        require_valid(self.name, input, self.spec)
        with torch.inference_mode():
            logits, worth, pays, hidden = self.network(
                owned(features_of(input, upstream["cnn"], self.spec))[None]
            )
            p_BA, sure = torch.softmax(logits, dim=-1), torch.sigmoid(pays)
        p_buy, p_sell = float(p_BA[0, 0]), float(p_BA[0, 1])
        best = int(p_BA[0].argmax())
        acts = ACTIONS[best] is not Action.HOLD
        return Prediction(
            model=self.name,
            version=self.version,
            symbol=input.symbol,
            event_ns=input.event_ns,
            action=ACTIONS[best],
            p_buy=p_buy,
            p_sell=p_sell,
            p_hold=1.0 - p_buy - p_sell,
            confidence=float(sure[0, best]) if acts else float(p_BA[0, best]),
            utility_r=float(worth[0, best]) if acts else 0.0,
            hidden_H=hidden[0].numpy().copy(),
        )

    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Take eight passes over the older four fifths of the examples, report on the newest."""
        older, newest = split(self.name, examples)
        self.fit(older, seed=len(examples), epochs=8, rate=3e-4, from_base=False)
        return self.report(older, newest)

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int,
        epochs: int,
        rate: float = 1e-3,
        from_base: bool = True,
    ) -> None:
        """Imitate the teacher and learn the results, in seeded batches of 64.

        Args:
            examples: what to learn from.
            seed: of the order.
            epochs: passes.
            rate: learning rate.
            from_base: whether to begin anew at the base rates of these examples.
        """
        seed_all(seed)
        lessons = Lessons.of(examples, self.spec)
        if from_base:
            self.network.start_at_base(lessons.x_BX, lessons.action_B, lessons.result_B2)
        orders = [torch.randperm(len(lessons.x_BX)) for _ in range(epochs)]
        picks = [order[i : i + BATCH] for order in orders for i in range(0, len(order), BATCH)]
        losses = [lambda pick=pick: _loss(self.network, lessons.only(pick)) for pick in picks]
        self.network.train()
        descend(
            list(self.network.parameters()), losses, num_steps=len(losses), rate=rate, decay=DECAY
        )
        self.network.eval()
        self._version = ""

    def report(self, shown: Sequence[Example], held_out: Sequence[Example]) -> LearnReport:
        """Return the losses on `held_out` beside those of the best constants of `shown`.

        The constants of the teacher's action are its frequencies, when flat and when long apart.
        """
        taught, asked = Lessons.of(shown, self.spec), Lessons.of(held_out, self.spec)
        with torch.inference_mode():
            logits, worth, pays, _ = self.network(asked.x_BX)
        known = ~asked.action_B.isnan()
        mine = {
            "action": float(functional.cross_entropy(logits[known], asked.action_B[known].long()))
        }
        base = {"action": _base_of_actions(taught, asked)}
        for r, side in enumerate(("long", "short")):
            was, there = _known(taught.result_B2[:, r]), ~asked.result_B2[:, r].isnan()
            if not (was.size and there.any()):
                continue
            came = _known(asked.result_B2[:, r])
            mine[f"worth_{side}"] = float(np.square(worth[there, r].double().numpy() - came).mean())
            base[f"worth_{side}"] = float(np.square(was.mean() - came).mean())
            paid = torch.from_numpy(came > 0).float()
            mine[f"pays_{side}"] = float(
                functional.binary_cross_entropy_with_logits(pays[there, r], paid)
            )
            base[f"pays_{side}"] = constant_loss(
                "confidence", float((was > 0).mean()), (came > 0).astype(np.float64)
            )
        return LearnReport(len(taught.x_BX), held_out_loss=mine, base_rate_loss=base)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`; raises CheckpointError unless it is whole."""
        kept = load_checkpoint(directory, model=cls.name)
        network = PolicyNetwork(num_features(INPUT_SPEC))
        put_weights(network, kept.weights)
        return cls(network, spec=spec_of(kept), trained=kept.layout["trained"])

    def _layout(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "spec_version": self.spec.version,
            "spec_hash": self.spec.content_hash,
            "own": list(self.spec.own),
            "num_features": num_features(self.spec),
            "hidden": HIDDEN,
            "trained_slots": [],
            "trained": self.trained,
        }


@dataclass(frozen=True, slots=True)
class Lessons:
    """Stacked examples: features, teacher's action, results, weight, whether invested."""

    x_BX: Tensor
    action_B: Tensor
    result_B2: Tensor
    weight_B: Tensor
    invested_B: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], spec: InputSpec) -> Self:
        """Read each example once, as a policy of `spec` hears it."""
        unknown = np.full(2, np.nan, dtype=np.float32)
        rows = [
            (
                features_of(e.input, e.upstream["cnn"], spec),
                e.targets.get("action", unknown)[0],
                e.targets.get("result", unknown),
                e.weight,
                e.input.account_A[0] != 0,
            )
            for e in examples
        ]
        x, action, result, weight, invested = zip(*rows, strict=True)
        return cls(
            owned(np.stack(x)),
            owned(np.array(action, dtype=np.float32)),
            owned(np.stack(result)),
            owned(np.array(weight, dtype=np.float32)),
            owned(np.array(invested, dtype=np.bool_)),
        )

    def only(self, pick: Tensor) -> Lessons:
        """Return the rows `pick`."""
        return Lessons(*(getattr(self, name)[pick] for name in self.__slots__))


def _base_of_actions(taught: Lessons, asked: Lessons) -> float:
    losses = []
    for invested in (False, True):
        before = (taught.invested_B == invested) & ~taught.action_B.isnan()
        now = (asked.invested_B == invested) & ~asked.action_B.isnan()
        counts = torch.bincount(taught.action_B[before].long(), minlength=len(ACTIONS)).double()
        share = (counts / counts.sum().clamp(min=1)).clamp(min=1e-6)
        losses.append(-share.log()[asked.action_B[now].long()])
    return float(torch.cat(losses).mean())


def _known(values: Tensor) -> Floats:
    return np.asarray(values[~values.isnan()].double().numpy())


def _loss(network: PolicyNetwork, lessons: Lessons) -> Tensor:
    logits, worth, pays, _ = network(lessons.x_BX)
    taught, settled = ~lessons.action_B.isnan(), ~lessons.result_B2.isnan()
    chosen = torch.where(taught, lessons.action_B, 0.0).long()
    net = torch.where(settled, lessons.result_B2, 0.0)
    paid = (net > 0).float()
    imitation = functional.cross_entropy(logits, chosen, reduction="none") * taught
    valuation = ((worth - net).square() * settled).sum(dim=-1)
    paying = functional.binary_cross_entropy_with_logits(pays, paid, reduction="none") * settled
    total = imitation + 0.5 * valuation + 0.5 * paying.sum(dim=-1)
    return torch.sum(total * lessons.weight_B) / lessons.weight_B.sum()
