"""Make of outcomes what the models learn from: targets by name, and how much each example counts.

Nobody is taught the opposite of what happened: where a model was right the example counts once,
where it was wrong it counts by how wrong it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from alphapulse.domain.inputs import Tensor
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import TIMEFRAMES, Floats, PivotKind, Timeframe

# axes: F timeframe · N example

MAX_WEIGHT = 3.0  # of an example: one odd row must not be the lesson
HEADS = ("p_high", "log_bars", "move", "p_done", "unique")
Answer = tuple[str, str, int, str, int]


def answer_of(outcome: Outcome) -> Answer:
    """Return which pivot answered a forecast: rows that name the same one share their answer."""
    return outcome.symbol, outcome.timeframe, outcome.level, outcome.kind, outcome.ended_ns


def sharing(outcomes: Iterable[Outcome]) -> Mapping[Answer, int]:
    """Return how many forecasts each pivot answered, given those of a whole group of examples."""
    return Counter(answer_of(outcome) for outcome in outcomes)


def targets_of(
    outcomes: Sequence[Outcome],
    *,
    shared: Mapping[Answer, int] | None = None,
) -> dict[str, Tensor]:
    """Return the CNN's heads of an example, float32 (F,), NaN where nothing is known.

    Args:
        outcomes: of the forecasts of one inference.
        shared: how many examples each pivot answered, from `sharing`; `unique` is 1 over it. A
            pivot that is not in it answered this example alone.
    """
    targets = {head: np.full(len(TIMEFRAMES), np.nan, dtype=np.float32) for head in HEADS}
    for outcome in outcomes:
        f = TIMEFRAMES.index(Timeframe(outcome.timeframe))
        targets["p_high"][f] = outcome.kind == PivotKind.HIGH
        targets["log_bars"][f] = np.log1p(outcome.bars)
        targets["move"][f] = outcome.move
        targets["p_done"][f] = outcome.p_done
        targets["unique"][f] = 1 / (shared or {}).get(answer_of(outcome), 1)
    return targets


def is_accurate(outcomes: Iterable[Outcome]) -> bool:
    """Return whether every forecast of an inference hit."""
    return all(outcome.hit == 1 for outcome in outcomes)


def weights_of(loss_N: Floats, accurate_N: npt.NDArray[np.bool_]) -> Floats:
    """Return how much each example counts, float64 (N,).

    An accurate one counts once, which confirms it; an inaccurate one counts by its loss over the
    median loss, at most MAX_WEIGHT times, which corrects it.

    Args:
        loss_N: float64 (N,) the same proper loss for all, NaN where there is none: it counts once.
        accurate_N: bool (N,) see `is_accurate`.
    """
    known_N = ~np.isnan(loss_N)
    usual = float(np.median(loss_N[known_N])) if known_N.any() else 0.0
    if usual <= 0:
        return np.ones(len(loss_N))
    missed_N = np.where(known_N, np.minimum(loss_N / usual, MAX_WEIGHT), 1.0)
    return np.where(accurate_N, 1.0, missed_N)
