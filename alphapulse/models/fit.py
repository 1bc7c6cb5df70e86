"""What the models are taught with: losses by head, calibration, and one seeded descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alphapulse.domain.errors import Unavailable
from alphapulse.domain.inference import Example
from alphapulse.domain.inputs import InputSpec
from alphapulse.models.network import CnnNetwork, heard, owned

# axes: B batch · S symbol · F timeframe · T row · C channel · O output of a timeframe's head · N
# example
HEADS = ("p_high", "log_bars", "move", "p_done")
RATE = 2e-3
DECAY = 0.02


@dataclass(frozen=True, slots=True)
class CnnBatch:
    """Inputs of the CNN with their answers.

    Attributes:
        bars_BSFTC: float32, as in ModelInput.
        flags_BSFT: uint8.
        targets: by head (and `unique`, the label's weight): float32 (B, F), NaN where the answer is
            not known; with
            `both`, (B, S, F).
        both: whether either symbol is decided in turn (the streams are encoded once for the two).
        beside: book_BSTB, known_BSTB, peers_BKP, awake_BK; empty where there is neither book nor
            peer.
    """

    bars_BSFTC: Tensor
    flags_BSFT: Tensor
    targets: Mapping[str, Tensor]
    both: bool = False
    beside: tuple[Tensor, ...] = ()


def outputs_of(network: CnnNetwork, batch: CnnBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return outputs (B, F, O) and targets (B, F); of 2B rows where both symbols decide."""
    tokens = network.tokens(batch.bars_BSFTC, batch.flags_BSFT)
    beside = network.beside(*batch.beside) if batch.beside else None
    outputs, _ = network.fuse(tokens, beside)
    if not batch.both:
        return outputs, dict(batch.targets)
    others, _ = network.fuse(tokens.flip(1))
    return torch.cat([outputs, others]), {
        k: torch.cat(v.unbind(1)) for k, v in batch.targets.items()
    }


def head_losses(outputs_BFO: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of each head, (B, F), NaN where the answer is not known.

    Cross-entropy [nats] for `p_high` and `p_done`; absolute error for `log_bars` [log(1 + bars)]
    and `move` [volatility of the timeframe], the move being that of the kind that came.
    """
    logit, bars, high, low, done = outputs_BFO.unbind(-1)
    kind = targets["p_high"]
    known = ~kind.isnan()
    move = torch.where(kind > 0.5, high, low)
    return {
        "p_high": _where(known, functional.binary_cross_entropy_with_logits, logit, kind),
        "log_bars": _where(known, functional.l1_loss, bars, targets["log_bars"]),
        "move": _where(known, functional.l1_loss, move, targets["move"]),
        "p_done": _where(
            ~targets["p_done"].isnan(),
            functional.binary_cross_entropy_with_logits,
            done,
            targets["p_done"],
        ),
    }


def _where(known: Tensor, loss: Callable[..., Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    found = loss(outputs, torch.where(known, targets, 0.0), reduction="none")
    return torch.where(known, found, torch.nan)


def cnn_loss(network: CnnNetwork, batch: CnnBatch) -> Tensor:
    """Return the sum of the heads' mean losses, every label weighted by `unique`."""
    outputs, targets = outputs_of(network, batch)
    total = outputs.new_zeros(())
    for loss in head_losses(outputs, targets).values():
        known = ~loss.isnan()
        weight = torch.where(known, targets["unique"], 0.0)
        total = total + (torch.where(known, loss, 0.0) * weight).sum() / weight.sum().clamp(
            min=1e-6
        )
    return total


def hits(outputs_BFO: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
    """Return (B, F): 1 where kind, time and price came as forecast, NaN where not known.

    Hit: the kind is right, the time errs by at most max(2 bars, half), the price by at most half
    the volatility times the root of the wait.
    """
    logit, log_bars, high, low, _ = outputs_BFO.detach().unbind(-1)
    kind, waited = targets["p_high"], torch.expm1(targets["log_bars"])
    right = (logit >= 0) == (kind > 0.5)
    timely = (torch.expm1(log_bars) - waited).abs() <= (0.5 * waited).clamp(min=2.0)
    move = torch.where(logit >= 0, high, low)
    priced = (move - targets["move"]).abs() <= 0.5 * waited.clamp(min=1.0).sqrt()
    return torch.where(kind.isnan(), torch.nan, (right & timely & priced).float())


def descend(
    parameters: Sequence[torch.nn.Parameter],
    losses: Iterable[Callable[[], Tensor]],
    *,
    num_steps: int,
    rate: float = RATE,
    decay: float = DECAY,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Take one AdamW step a loss, gradients clipped to norm 1.

    The rate falls linearly to a tenth over `num_steps`.
    """
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    for step, loss in enumerate(losses):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.1, 1 - 0.9 * step / num_steps)
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        on_step()


def calibrate(network: CnnNetwork, outputs_BFO: Tensor, hit_BF: Tensor) -> None:
    """Fit the confidence on answered rows that the rest was not trained on (full batch, 300 steps).

    Raises Unavailable if no row is answered.
    """
    known = ~hit_BF.isnan()
    if not bool(known.any()):
        raise Unavailable(
            "confidence: expected answered rows after the training rows, was none; "
            "give a longer history"
        )
    parameters = list(network.hit.parameters())

    def loss() -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            network.hit_logit(outputs_BFO)[known], hit_BF[known]
        )

    descend(parameters, [loss] * 300, num_steps=300, rate=0.02, decay=0.1)


def split(model: str, examples: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """Return the older four fifths and the newest fifth; raises Unavailable below two examples."""
    kept = sorted(examples, key=lambda e: (e.input.event_ns, e.input.symbol))
    cut = len(kept) * 4 // 5
    if cut == 0:
        raise Unavailable(
            f"{model}: expected at least 2 examples to learn from, was {len(kept)}; "
            "wait for outcomes"
        )
    return kept[:cut], kept[cut:]


def batch_of(examples: Sequence[Example], spec: InputSpec) -> CnnBatch:
    """Stack examples for a CNN of `spec`; a target an example does not carry is not known."""
    inputs = [example.input for example in examples]

    def stacked(name: str) -> Tensor:
        return owned(np.stack([getattr(input, name) for input in inputs]))

    missing = np.full(inputs[0].spec.num_timeframes, np.nan, dtype=np.float32)
    targets = {h: owned(np.stack([e.targets.get(h, missing) for e in examples])) for h in HEADS}
    unique = [
        np.float32(e.weight) * e.targets.get("unique", np.ones_like(missing)) for e in examples
    ]
    return CnnBatch(
        owned(np.stack([heard(input, spec) for input in inputs])),
        stacked("flags_SFT"),
        targets | {"unique": owned(np.stack(unique))},
        beside=tuple(stacked(name) for name in ("book_STB", "known_STB", "peers_KP", "awake_K")),
    )
