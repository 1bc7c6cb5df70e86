"""The gate between champion and challenger: is there evidence enough that the new one is better?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import Floats

# axes: N paired row, in order of time · K block of rows that share an answer, in order of time
SCALE = 0.25  # difference of two losses that counts as one whole step; a larger one counts no more
MAX_BET = 0.5  # share of the evidence that one block may cost at most
PRIOR_VARIANCE = 0.25  # of the differences, before any was seen [steps²]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a challenger.

    Attributes:
        e_value: evidence that the challenger is better; 1 says nothing, 20 errs once in 20.
        mean_difference: champion's loss less the challenger's, mean of the blocks; above 0 the
            challenger is better.
        num_blocks: answers it was judged on.
        reason: the verdict in a sentence.
        figures: losses and counts behind it, plain JSON values.
    """

    promoted: bool
    e_value: float
    mean_difference: float
    num_blocks: int
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def compare(
    champion_loss_N: Floats,
    challenger_loss_N: Floats,
    group_N: npt.NDArray[Any],
    *,
    promote_at: float,
    scale: float = SCALE,
) -> Verdict:
    """Judge a challenger by its losses beside the champion's on the same settled rows.

    Rows that share an answer are no independent evidence: they count as one block, their mean. Each
    block multiplies the evidence by 1 + bet · difference, the difference in steps of `scale` and
    cut at ±1, the bet chosen from the blocks before it: an e-process. Where the challenger is no
    better, it reaches `promote_at` with probability at most 1 / `promote_at`, however often one
    looks. What reaches it promotes, everything else rejects.

    That promise needs blocks that are independent of each other. The answers of ETH and BTC to one
    swing are not quite: with four blocks at once, correlated 0.9, some 9 % of equal challengers
    were promoted at 20 in a simulation, where 5 % is the promise.

    ```python
    verdict = compare(champion_N, challenger_N, pivot_N, promote_at=20.0)
    ```

    Args:
        champion_loss_N: float64 (N,), lower is better, in order of time.
        challenger_loss_N: the same rows' losses of the challenger.
        group_N: (N,) which answer a row shares; a block stands where its first row does.
        promote_at: evidence from which on the challenger is promoted.
        scale: loss that counts as one step.

    Raises:
        InvalidRequest: the rows are not paired, or a loss is not a number.

    Source: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (2024),
    section 5, the bets one-sided.
    """
    _require_pairs(champion_loss_N, challenger_loss_N, group_N)
    if not len(group_N):
        return Verdict(False, 1.0, 0.0, 0, "no settled row that neither was trained on", {})
    champion_K, challenger_K = block_means(
        np.column_stack([champion_loss_N, challenger_loss_N]), group_N
    ).T
    difference_K = champion_K - challenger_K
    e_value = evidence(difference_K / scale)
    mean = float(difference_K.mean())
    promoted = e_value >= promote_at
    figures = {
        "champion_loss": float(champion_K.mean()),
        "challenger_loss": float(challenger_K.mean()),
        "difference": mean,
        "e_value": e_value,
        "promote_at": promote_at,
        "num_rows": len(group_N),
        "num_blocks": len(difference_K),
        "blocks_won": int((difference_K > 0).sum()),
    }
    reason = (
        f"evidence {e_value:.3g} {'reached' if promoted else 'is below'} {promote_at:g} on "
        f"{len(difference_K)} answers: loss {figures['challenger_loss']:.4f}, "
        f"champion {figures['champion_loss']:.4f}"
    )
    return Verdict(promoted, e_value, mean, len(difference_K), reason, figures)


def block_means(values_NX: Floats, group_N: npt.NDArray[Any]) -> Floats:
    """Return the mean row of every group, (K, X), groups in the order of their first row."""
    _, first_G, group_of_N = np.unique(group_N, return_index=True, return_inverse=True)
    place_G = np.argsort(np.argsort(first_G))
    block_N = place_G[group_of_N]
    # sorted within a block, the sum does not depend on the order rows came in
    order_N = np.lexsort([*values_NX.T, block_N])
    ends_K = np.flatnonzero(np.diff(block_N[order_N], prepend=-1))
    sums_KX = np.add.reduceat(values_NX[order_N], ends_K, axis=0)
    return np.asarray(sums_KX / np.bincount(block_N)[:, None], dtype=np.float64)


def evidence(step_K: Floats) -> float:
    """Return the e-value of steps in order of time: how strongly their mean is above 0.

    Args:
        step_K: float64 (K,); what is beyond ±1 is cut.
    """
    wealth, total, squares = 1.0, 0.0, 0.0
    for k, step in enumerate(np.clip(step_K, -1.0, 1.0).tolist()):
        mean = total / (k + 1)  # one step of 0 before the first
        variance = (PRIOR_VARIANCE + squares) / (k + 1) - mean * mean
        bet = min(max(mean / (variance + mean * mean), 0.0), MAX_BET)
        wealth *= 1 + bet * step
        total, squares = total + step, squares + step * step
    return float(wealth)


def least_blocks(promote_at: float) -> int:
    """Return how few blocks could promote at all: nothing is bet on the first."""
    return 1 + math.ceil(math.log(promote_at) / math.log1p(MAX_BET))


def _require_pairs(
    champion_loss_N: Floats, challenger_loss_N: Floats, group_N: npt.NDArray[Any]
) -> None:
    if not champion_loss_N.shape == challenger_loss_N.shape == group_N.shape:
        raise InvalidRequest(
            "comparison: expected one loss of both and one group a row, was "
            f"{champion_loss_N.shape}, {challenger_loss_N.shape} and {group_N.shape}; "
            "pass the same settled rows of both"
        )
    for name, loss_N in (("champion", champion_loss_N), ("challenger", challenger_loss_N)):
        if not np.isfinite(loss_N).all():
            raise InvalidRequest(
                f"comparison: expected finite losses of the {name}, was "
                f"{int((~np.isfinite(loss_N)).sum())} that are not; leave out rows without an "
                "answer, and reject a model that says NaN"
            )
