"""The one map from forecasts to a vote: what each action is worth, net, in units of risk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alphapulse.domain.inference import Action, Forecast
from alphapulse.domain.market import SECOND_NS, TIMEFRAMES, Floats, Timeframe

RISK = TIMEFRAMES.index(Timeframe.H1)  # R, the risk of an entry: one hourly volatility
HORIZON_NS = 300 * 60 * SECOND_NS  # an action settles within 300 bars of 1m
TEMPERATURE_R = 0.25  # difference in worth that makes an action e times as likely


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

    A forecast of timeframe f that ends within 300 minutes expects the move m = (p_high - p_low)
    |move| v_f, v_f being the timeframe's volatility. Buying is worth (m - 2 cost) / R, selling (-m
    - 2 cost) / R, holding 0; R is one hourly volatility. The best timeframe speaks for each side;
    probabilities are a softmax of the three worths over 0.25 R.

    Args:
        forecasts: one a timeframe.
        volatility_F: float64 (F,) volatility of each timeframe [log price]; NaN where its stream is
            masked.
        cost: of one side [log price].
    """
    risk = float(volatility_F[RISK])
    worth: dict[Action, tuple[float, float]] = {Action.HOLD: (0.0, 0.0)}
    for sign, action in ((1.0, Action.BUY), (-1.0, Action.SELL)):
        offers = [
            (
                (sign * (f.p_high - f.p_low) * abs(f.move) * float(volatility_F[i]) - 2 * cost)
                / risk,
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
