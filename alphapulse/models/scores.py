"""What a model must beat: the base rate of every head, and the held-out losses beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from alphapulse.domain.market import TIMEFRAMES, Floats
from alphapulse.interfaces import LearnReport
from alphapulse.models.fit import CnnBatch, head_losses, outputs_of
from alphapulse.models.network import CnnNetwork, owned

# axes: B batch · F timeframe · O output of a timeframe's head
PROBABILITIES = frozenset({"p_high", "p_done", "confidence"})


def best_constant(head: str, values: Floats) -> float:
    """Return the constant that serves `head` best on `values`, NaN where there are none.

    That is the mean of a probability, else the median.
    """
    if not values.size:
        return float("nan")
    return float(np.mean(values) if head in PROBABILITIES else np.median(values))


def constant_loss(head: str, constant: float, values: Floats) -> float:
    """Return the mean loss on `values` of always answering `constant`."""
    if head not in PROBABILITIES:
        return float(np.mean(np.abs(values - constant)))
    p = min(max(constant, 1e-6), 1 - 1e-6)
    return float(-np.mean(values * np.log(p) + (1 - values) * np.log(1 - p)))


def usual_outputs(targets: Mapping[str, Tensor]) -> Tensor:
    """Return the outputs (F, O) that answer each timeframe with its base rate.

    A timeframe without answers gets the mean of those that have some.
    """
    known = {head: _columns(targets, head) for head in ("p_high", "log_bars", "p_done")}
    moves = [_columns(targets, "move", kind) for kind in (1.0, 0.0)]
    columns = [
        [_logit(best_constant("p_high", v)) for v in known["p_high"]],
        [best_constant("log_bars", v) for v in known["log_bars"]],
        *([best_constant("move", v) for v in of_kind] for of_kind in moves),
        [_logit(best_constant("p_done", v)) for v in known["p_done"]],
    ]
    usual_FO = np.array(columns).T
    mean_O = np.nan_to_num(np.nanmean(usual_FO, axis=0)) if np.isfinite(usual_FO).any() else 0.0
    return owned(np.where(np.isnan(usual_FO), mean_O, usual_FO).astype(np.float32))


def _columns(targets: Mapping[str, Tensor], head: str, kind: float | None = None) -> list[Floats]:
    return [_known(targets, head, f, kind) for f in range(len(TIMEFRAMES))]


def _logit(p: float) -> float:
    kept = min(max(p, 0.01), 0.99) if not np.isnan(p) else p
    return float(np.log(kept / (1 - kept)))


def report(
    network: CnnNetwork,
    shown: Mapping[str, Tensor],
    held_out: Sequence[CnnBatch],
    *,
    num_examples: int,
) -> LearnReport:
    """Return the mean held-out loss of every head and timeframe beside the base rate's.

    The base rate is the best constant of the training rows.
    """
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


def _known(targets: Mapping[str, Tensor], head: str, f: int, kind: float | None = None) -> Floats:
    values = targets[head][..., f].flatten().double().numpy()
    keep = ~np.isnan(values)
    if kind is not None:
        keep &= targets["p_high"][..., f].flatten().numpy() == kind
    return np.asarray(values[keep])


def _base(
    head: str,
    f: int,
    shown: Mapping[str, Tensor],
    answers: Sequence[Mapping[str, Tensor]],
) -> float:
    # a move is that of the kind that came, and so is its constant
    kinds = (0.0, 1.0) if head == "move" else (None,)
    total, count = 0.0, 0
    for kind in kinds:
        values = np.concatenate([_known(targets, head, f, kind) for targets in answers])
        taught = _known(shown, head, f, kind)
        if values.size:
            constant = best_constant(head, taught) if taught.size else 0.0
            total += constant_loss(head, constant, values) * values.size
            count += values.size
    return total / count
