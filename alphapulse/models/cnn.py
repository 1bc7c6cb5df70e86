"""The CNN: where and when each timeframe turns next, and what that is worth as a vote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from alphapulse.domain.errors import ShapeMismatch, Unavailable
from alphapulse.domain.inference import (
    INPUT_SPEC,
    Action,
    Example,
    Forecast,
    InputSpec,
    ModelInput,
    Prediction,
)
from alphapulse.domain.market import SECOND_NS, TIMEFRAMES, Floats, Timeframe
from alphapulse.interfaces import LearnReport, Model
from alphapulse.models.checkpoints import checkpoint_id, load_checkpoint, save_checkpoint
from alphapulse.models.fit import (
    batch_of,
    best_constant,
    cnn_loss,
    constant_loss,
    descend,
    head_losses,
    outputs_of,
)
from alphapulse.models.network import (
    CnnNetwork,
    Sizes,
    owned,
    put_weights,
    seed_all,
    use_one_thread,
    volatility_SF,
    weights_of,
)

LEVELS = {
    Timeframe.S1: 2,
    Timeframe.M1: 2,
    Timeframe.H1: 1,
    Timeframe.D1: 1,
}  # ML.md 1.7; too few L2 on 1h, 1d
RISK = TIMEFRAMES.index(
    Timeframe.H1
)  # R, the risk of an entry: one hourly volatility of the decided symbol
HORIZON_NS = (
    300 * 60 * SECOND_NS
)  # an action settles within 300 bars of 1m; slower swings do not vote
TEMPERATURE_R = 0.1  # difference in utility that makes an action e times as likely


@dataclass(frozen=True, slots=True)
class Vote:
    """What a forecast is worth as an action; the probabilities sum to 1."""

    action: Action
    p_buy: float
    p_sell: float
    p_hold: float
    confidence: float
    utility_r: float


def vote(forecasts: Sequence[Forecast], volatility_F: Floats, *, cost: float) -> Vote:
    """Return the action that the forecasts pay best.

    A forecast of timeframe f that ends within 300 minutes expects the move m = (p_high - p_low) |move| v_f, v_f being
    the timeframe's volatility. Buying is worth (m - 2 cost) / R, selling (-m - 2 cost) / R, holding 0; R is one hourly
    volatility. The best timeframe speaks for each side; probabilities are a softmax of the three worths over 0.1 R.

    Args:
        forecasts: one a timeframe.
        volatility_F: float64 (F,) volatility of each timeframe [log price]; NaN where its stream is masked.
        cost: of one side [log price].
    """
    risk = float(volatility_F[RISK])
    worth: dict[Action, tuple[float, float]] = {Action.HOLD: (0.0, 0.0)}
    for sign, action in ((1.0, Action.BUY), (-1.0, Action.SELL)):
        offers = [
            (
                (sign * (f.p_high - f.p_low) * abs(f.move) * volatility_F[i] - 2 * cost) / risk,
                f.confidence,
            )
            for f in forecasts
            if f.bars_ahead * f.timeframe.ns <= HORIZON_NS
            for i in (TIMEFRAMES.index(f.timeframe),)
        ]
        worth[action] = max(offers, default=(-2 * cost / risk, 0.0))
    top = max(value for value, _ in worth.values())
    share = {a: math.exp((value - top) / TEMPERATURE_R) for a, (value, _) in worth.items()}
    total = sum(share.values())
    best = max(worth, key=lambda a: worth[a][0])
    return Vote(
        action=best,
        p_buy=share[Action.BUY] / total,
        p_sell=share[Action.SELL] / total,
        p_hold=share[Action.HOLD] / total,
        confidence=share[best] / total if best is Action.HOLD else worth[best][1],
        utility_r=worth[best][0],
    )


class CNN(Model):
    """Forecasts the next pivot of every timeframe of one symbol.

    Targets it learns from, float32 (F,), NaN where the answer is not known: `p_high` (1 if the next pivot is a high),
    `log_bars` (log(1 + bars until it opens)), `move` (log(price / price now) / volatility), `p_done` (1 if a pivot in
    the past is still to be confirmed), and `unique` (weight of the label, 1 if it is not there).
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
        self._version = ""

    @classmethod
    def fresh(cls, *, seed: int, cost_bps: float) -> Self:
        """Return an untrained one; its checkpoint is nobody's champion."""
        seed_all(seed)
        return cls(CnnNetwork(), cost_bps=cost_bps)

    @property
    def version(self) -> str:
        """Return the checkpoint id: a content hash of layout and weights."""
        if not self._version:
            self._version = checkpoint_id(self._layout(), weights_of(self.network))
        return self._version

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return forecasts of every timeframe whose stream is there, the vote they make, and the hidden state."""
        if input.spec != self.spec:
            raise ShapeMismatch(
                f"cnn: expected input spec {self.spec}, was {input.spec}; build the input for this one"
            )
        with torch.inference_mode():
            tokens = self.network.tokens(owned(input.bars_SFTC)[None], owned(input.flags_SFT)[None])
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
        """Take two passes over the older four fifths of the examples and report on the newest fifth."""
        seed_all(len(examples))
        kept = sorted(examples, key=lambda e: (e.input.event_ns, e.input.symbol))
        cut = len(kept) * 4 // 5
        if cut == 0:
            raise Unavailable(
                f"cnn: expected at least 2 examples to learn from, was {len(kept)}; wait for outcomes"
            )
        slices = [kept[i : min(i + 32, cut)] for _ in range(2) for i in range(0, cut, 32)]
        losses = [lambda rows=rows: cnn_loss(self.network, batch_of(rows)) for rows in slices]
        self.network.train()
        descend(list(self.network.parameters()), losses, num_steps=len(losses), rate=5e-4)
        self.network.eval()
        self._version = ""
        shown, held_out = batch_of(kept[:cut]), batch_of(kept[cut:])
        return report(self.network, shown.targets, [held_out], num_examples=cut)

    def save(self, directory: Path) -> str:
        """Write weights and layout into `directory` and return the checkpoint id."""
        return save_checkpoint(directory, layout=self._layout(), weights=weights_of(self.network))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the model saved in `directory`; raises CheckpointError if it is missing, damaged or foreign."""
        kept = load_checkpoint(directory, model=cls.name)
        sizes = Sizes(**kept.layout["sizes"])
        network = CnnNetwork(sizes=sizes)
        put_weights(network, kept.weights)
        return cls(
            network, cost_bps=kept.layout["cost_bps"], sizes=sizes, trained=kept.layout["trained"]
        )

    def _layout(self) -> dict[str, Any]:
        slots = [i for i, used in enumerate(self.network.get_buffer("trained_K").tolist()) if used]
        return {
            "model": self.name,
            "spec_version": self.spec.version,
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


def report(
    network: CnnNetwork,
    shown: Mapping[str, torch.Tensor],
    held_out: Sequence[Any],
    *,
    num_examples: int,
) -> LearnReport:
    """Return the mean held-out loss of every head and timeframe beside that of the training rows' best constant."""
    with torch.inference_mode():
        answered = [outputs_of(network, batch) for batch in held_out]
        found = [head_losses(outputs, targets) for outputs, targets in answered]
    mine: dict[str, float] = {}
    base: dict[str, float] = {}
    for head in found[0]:
        for f, timeframe in enumerate(TIMEFRAMES):
            loss = torch.cat([part[head][:, f] for part in found]).numpy()
            known = ~np.isnan(loss)
            if not known.any() or not _known(shown, head, f).size:
                continue
            mine[f"{head}_{timeframe}"] = float(loss[known].astype(np.float64).mean())
            base[f"{head}_{timeframe}"] = _base(
                head, f, shown, [targets for _, targets in answered]
            )
    return LearnReport(num_examples=num_examples, held_out_loss=mine, base_rate_loss=base)


def _known(
    targets: Mapping[str, torch.Tensor], head: str, f: int, kind: float | None = None
) -> Floats:
    values = targets[head][..., f].flatten().double().numpy()
    keep = ~np.isnan(values)
    if kind is not None:
        keep &= targets["p_high"][..., f].flatten().numpy() == kind
    return np.asarray(values[keep])


def _base(
    head: str,
    f: int,
    shown: Mapping[str, torch.Tensor],
    answers: Sequence[Mapping[str, torch.Tensor]],
) -> float:
    kinds = (
        (0.0, 1.0) if head == "move" else (None,)
    )  # a move is that of the kind that came, so is its constant
    total, count = 0.0, 0
    for kind in kinds:
        values = np.concatenate([_known(targets, head, f, kind) for targets in answers])
        taught = _known(shown, head, f, kind)
        if values.size:
            constant = best_constant(head, taught) if taught.size else 0.0
            total += constant_loss(head, constant, values) * values.size
            count += values.size
    return total / count
