"""Make of outcomes what the models learn from: targets by name, and how much each example counts.

Nobody is taught the opposite of what happened: where a model was right the example counts once,
where it was wrong it counts by how wrong it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from alphapulse.domain.inference import Tensor
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import TIMEFRAMES, Floats, PivotKind, Timeframe

# axes: F timeframe · N example

RESULT_LIMITS = (-1.5, 3.0)  # of a result [R]: one trade in a crash must not be the lesson
MAX_WEIGHT = 3.0  # of an example: one odd row must not be the lesson either
BUY, SELL, HOLD = 0.0, 1.0, 2.0  # order of models.policy.ACTIONS
HEADS = ("p_high", "log_bars", "move", "p_done", "unique")
Answer = tuple[str, str, int, str, int]


def answer_of(outcome: Outcome) -> Answer:
    """Return which pivot answered a forecast: rows that name the same one share their answer."""
    return outcome.symbol, outcome.timeframe, outcome.level, outcome.kind, outcome.ended_ns


def sharing(outcomes: Iterable[Outcome]) -> Mapping[Answer, int]:
    """Return how many forecasts each pivot answered, given those of a whole group of examples."""
    return Counter(answer_of(outcome) for outcome in outcomes if outcome.level > 0)


def targets_of(
    outcomes: Sequence[Outcome],
    *,
    shared: Mapping[Answer, int] | None = None,
    is_held: bool = False,
) -> dict[str, Tensor]:
    """Return the targets of an example, float32, from the outcomes of one inference.

    Forecasts give the CNN's heads, (F,), NaN where nothing is known; its action gives `result`,
    (2,), of a long and of a short, within RESULT_LIMITS, and the policy's `action`, (1,): see
    `hindsight`.

    Args:
        outcomes: of one inference; without a forecast or an action its targets are not there.
        shared: how many examples each pivot answered, from `sharing`; `unique` is 1 over it. A
            pivot that is not in it answered this example alone.
        is_held: whether a position was held at the inference.
    """
    targets: dict[str, Tensor] = {}
    forecasts = [outcome for outcome in outcomes if outcome.level > 0]
    if forecasts:
        targets = {h: np.full(len(TIMEFRAMES), np.nan, dtype=np.float32) for h in HEADS}
    for outcome in forecasts:
        f = TIMEFRAMES.index(Timeframe(outcome.timeframe))
        targets["p_high"][f] = outcome.kind == PivotKind.HIGH
        targets["log_bars"][f] = np.log1p(outcome.bars)
        targets["move"][f] = outcome.move
        targets["p_done"][f] = outcome.p_done
        targets["unique"][f] = 1 / (shared or {}).get(answer_of(outcome), 1)
    for outcome in outcomes:
        if outcome.level == 0:
            results = np.array([outcome.result_long, outcome.result_short], dtype=np.float32)
            targets["result"] = np.clip(results, *RESULT_LIMITS)
            targets["action"] = np.array([hindsight(outcome, is_held=is_held)], dtype=np.float32)
    return targets


def hindsight(outcome: Outcome, *, is_held: bool) -> float:
    """Return the action that was best in hindsight, as its place in buy, sell, hold.

    Buy where a long paid net, and no less than a short: flat it enters, held it stays. Else sell
    where a position is held and a long did not pay, for leaving costs it nothing more. Else hold:
    no shorts are opened on spot. NaN where a side is not known.
    """
    long, short = outcome.result_long, outcome.result_short
    if np.isnan(long) or np.isnan(short):
        return float("nan")
    if long > 0 and long >= short:
        return BUY
    return SELL if is_held and long <= 0 else HOLD


def is_accurate(outcomes: Iterable[Outcome]) -> bool:
    """Return whether everything that can hit did; an inference that only held was not wrong."""
    return all(outcome.hit != 0 for outcome in outcomes)


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
