"""The policy: buy, sell or hold, from the newest rows, the CNN's forecast and hidden state, and the position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alphapulse.domain.errors import ShapeMismatch, Unavailable
from alphapulse.domain.inference import (
    INPUT_SPEC,
    Action,
    Example,
    InputSpec,
    ModelInput,
    Prediction,
)
from alphapulse.domain.inference import Tensor as Array
from alphapulse.domain.market import TIMEFRAMES, BarFlag
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import checkpoint_id, load_checkpoint, save_checkpoint
from alphapulse.models.fit import best_constant, constant_loss, descend
from alphapulse.models.network import owned, put_weights, seed_all, use_one_thread, weights_of

# axes: B batch · X feature · H hidden · A action (buy, sell, hold) · R direction (long, short)
ACTIONS = (Action.BUY, Action.SELL, Action.HOLD)
HIDDEN = 32
CNN_HIDDEN = 48
FORECAST_FIELDS = 6


class PolicyNetwork(nn.Module):
    """Two layers over standardised features; a feature that training has not seen vary counts for nothing."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_features, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.action = nn.Linear(HIDDEN, len(ACTIONS))
        self.worth = nn.Linear(HIDDEN, 2)
        self.pays = nn.Linear(HIDDEN, 2)
        self.register_buffer("mean_X", torch.zeros(num_features))
        self.register_buffer(
            "inverse_X", torch.ones(num_features)
        )  # 1 / standard deviation, 0 where constant

    def standardise(self, features_BX: Tensor) -> None:
        """Take mean and spread of `features_BX` as the ones to standardise with."""
        spread_X, mean_X = torch.std_mean(features_BX, dim=0, correction=0)
        self.get_buffer("mean_X").copy_(mean_X)
        self.get_buffer("inverse_X").copy_(torch.where(spread_X > 1e-6, 1 / spread_X, 0.0))

    def forward(self, features_BX: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return action logits (B, 3), worth of going long and short [R] (B, 2), their logits of paying, hidden (B, H)."""
        x = ((features_BX - self.get_buffer("mean_X")) * self.get_buffer("inverse_X")).clamp(-5, 5)
        hidden = torch.tanh(self.second(functional.gelu(self.first(x))))
        return self.action(hidden), self.worth(hidden), self.pays(hidden), hidden


def features_of(input: ModelInput, forecast: Prediction) -> Array:
    """Return the policy's features, float32 (X,): newest rows, forecasts, the CNN's hidden state, the account.

    The newest row of each of the eight streams (zeros where masked) with its valid bit; of each timeframe p_high,
    log(1 + bars ahead), move, p_done, confidence and whether there is a forecast.
    """
    valid_SF = (input.flags_SFT[:, :, -1] & int(BarFlag.VALID)) != 0
    rows_SFC = np.where(valid_SF[..., None], input.bars_SFTC[:, :, -1], np.float32(0))
    told = np.zeros((len(TIMEFRAMES), FORECAST_FIELDS), dtype=np.float32)
    for f in forecast.forecasts:
        fields = (f.p_high, np.log1p(f.bars_ahead), f.move, f.p_done, f.confidence, 1.0)
        told[TIMEFRAMES.index(f.timeframe)] = fields
    parts = (rows_SFC, valid_SF, told, forecast.hidden_H, input.account_A)
    return np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])


def num_features(spec: InputSpec) -> int:
    """Return the length of `features_of`."""
    streams = spec.num_symbols * spec.num_timeframes
    told = spec.num_timeframes * FORECAST_FIELDS
    return streams * (spec.num_channels + 1) + told + CNN_HIDDEN + spec.num_account_fields


class RL(Model):
    """Recommends a target position.

    Targets it learns from, NaN where not known: `action` float32 (1,), index of the teacher's action in buy, sell,
    hold; `result` float32 (2,), net result [R] of a long and of a short entered now. Needs `cnn` upstream.
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
        self._version = ""

    @classmethod
    def fresh(cls, *, seed: int) -> Self:
        """Return an untrained one."""
        seed_all(seed)
        return cls(PolicyNetwork(num_features(INPUT_SPEC)))

    @property
    def version(self) -> str:
        """Return the checkpoint id: a content hash of layout and weights."""
        if not self._version:
            self._version = checkpoint_id(self._layout(), weights_of(self.network))
        return self._version

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return action probabilities, the worth of the likeliest action and the probability that it pays."""
        if input.spec != self.spec:
            raise ShapeMismatch(
                f"rl: expected input spec {self.spec}, was {input.spec}; build the input for this one"
            )
        with torch.inference_mode():
            logits, worth, pays, hidden = self.network(
                owned(features_of(input, upstream["cnn"]))[None]
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
        """Take eight passes over the older four fifths of the examples and report on the newest fifth."""
        kept = sorted(examples, key=lambda e: (e.input.event_ns, e.input.symbol))
        cut = len(kept) * 4 // 5
        if cut == 0:
            raise Unavailable(
                f"rl: expected at least 2 examples to learn from, was {len(kept)}; wait for outcomes"
            )
        self.fit(kept[:cut], seed=len(kept), epochs=8, rate=3e-4, standardise=False)
        return self.report(kept[:cut], kept[cut:])

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int,
        epochs: int,
        rate: float = 1e-3,
        standardise: bool = True,
    ) -> None:
        """Imitate the teacher and learn the results, in seeded batches of 64.

        Args:
            examples: what to learn from.
            seed: of the order.
            epochs: passes.
            rate: learning rate.
            standardise: whether to take the features' mean and spread from these examples.
        """
        seed_all(seed)
        x, action, result, weight = _stack(examples)
        if standardise:
            self.network.standardise(x)
        order = [torch.randperm(len(x)) for _ in range(epochs)]
        picks = [chosen for indices in order for chosen in indices.split(64)]
        losses = [
            lambda p=p: _loss(self.network, x[p], action[p], result[p], weight[p]) for p in picks
        ]
        self.network.train()
        descend(
            list(self.network.parameters()), losses, num_steps=len(losses), rate=rate, decay=0.3
        )
        self.network.eval()
        self._version = ""

    def report(self, shown: Sequence[Example], held_out: Sequence[Example]) -> LearnReport:
        """Return the losses on `held_out` beside those of the best constants of `shown`."""
        x, action, result, _ = _stack(held_out)
        _, taught, results, _ = _stack(shown)
        with torch.inference_mode():
            logits, worth, pays, _ = self.network(x)
        known = ~action.isnan()
        mine = {"action": float(functional.cross_entropy(logits[known], action[known].long()))}
        base = {"action": _base_of_actions(shown, taught, held_out, action)}
        for r, side in enumerate(("long", "short")):
            was, then = _known(results[:, r]), _known(result[:, r])
            if not (len(was) and len(then)):
                continue
            there = ~result[:, r].isnan()
            mine[f"worth_{side}"] = float((worth[there, r] - then).square().mean())
            base[f"worth_{side}"] = float((was.mean() - then).square().mean())
            paid = (then > 0).float()
            mine[f"pays_{side}"] = float(
                functional.binary_cross_entropy_with_logits(pays[there, r], paid)
            )
            rate = best_constant("confidence", (was > 0).double().numpy())
            base[f"pays_{side}"] = constant_loss("confidence", rate, paid.double().numpy())
        return LearnReport(num_examples=len(shown), held_out_loss=mine, base_rate_loss=base)

    def save(self, directory: Path) -> str:
        """Write weights and layout into `directory` and return the checkpoint id."""
        return save_checkpoint(directory, layout=self._layout(), weights=weights_of(self.network))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`; raises CheckpointError if it is missing, damaged or foreign."""
        kept = load_checkpoint(directory, model=cls.name)
        network = PolicyNetwork(num_features(INPUT_SPEC))
        put_weights(network, kept.weights)
        return cls(network, trained=kept.layout["trained"])

    def _layout(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "spec_version": self.spec.version,
            "num_features": num_features(self.spec),
            "hidden": HIDDEN,
            "trained_slots": [],
            "trained": self.trained,
        }


def _stack(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    unknown = np.full(2, np.nan, dtype=np.float32)
    x = owned(np.stack([features_of(e.input, e.upstream["cnn"]) for e in examples]))
    action = owned(
        np.array([e.targets.get("action", unknown)[0] for e in examples], dtype=np.float32)
    )
    result = owned(np.stack([e.targets.get("result", unknown) for e in examples]))
    return x, action, result, owned(np.array([e.weight for e in examples], dtype=np.float32))


def _base_of_actions(
    shown: Sequence[Example], taught: Tensor, held_out: Sequence[Example], action: Tensor
) -> float:
    """Return the cross-entropy of the teacher's action frequencies, flat and in a position apart."""
    losses = []
    for invested in (False, True):
        before, now = (
            owned(np.array([(e.input.account_A[0] != 0) == invested for e in rows]))
            & ~answers.isnan()
            for rows, answers in ((shown, taught), (held_out, action))
        )
        shares = torch.bincount(taught[before].long(), minlength=len(ACTIONS)).double()
        log_share = (shares / shares.sum().clamp(min=1)).clamp(min=1e-6).log()
        losses.append(-log_share[action[now].long()])
    return float(torch.cat(losses).mean())


def _known(values: Tensor) -> Tensor:
    return values[~values.isnan()]


def _loss(
    network: PolicyNetwork, x: Tensor, action: Tensor, result: Tensor, weight: Tensor
) -> Tensor:
    logits, worth, pays, _ = network(x)
    taught, settled = ~action.isnan(), ~result.isnan()
    chosen = torch.where(taught, action, 0.0).long()
    net = torch.where(settled, result, 0.0)
    imitation = functional.cross_entropy(logits, chosen, reduction="none") * taught
    valuation = ((worth - net).square() * settled).sum(dim=-1)
    paying = (
        functional.binary_cross_entropy_with_logits(pays, (net > 0).float(), reduction="none")
        * settled
    ).sum(-1)
    return ((imitation + 0.5 * valuation + 0.5 * paying) * weight).sum() / weight.sum()
