"""How three predictions become one decision, the same way in Serve and in a backtest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from alphapulse.domain.inference import Action, Decision, Prediction, Thresholds
from alphapulse.domain.inputs import ModelInput
from alphapulse.interfaces import Model

Ask = Callable[[ModelInput, Mapping[str, Prediction]], Awaitable[Prediction]]


def local(model: Model) -> Ask:
    """Return `model` of this process as something to await, as a Serve handle is."""

    async def ask(input: ModelInput, upstream: Mapping[str, Prediction]) -> Prediction:
        return model.predict(input, upstream=upstream)

    return ask


async def decide(
    input: ModelInput, *, cnn: Ask, rl: Ask, moe: Ask, thresholds: Thresholds
) -> Decision:
    """Ask the CNN, then the policy, then the orchestrator, and conclude.

    ```python
    decision = await decide(input, cnn=local(cnn), rl=local(rl), moe=local(moe),
    thresholds=thresholds) ```
    """
    forecast = await cnn(input, {})
    advice = await rl(input, {"cnn": forecast})
    upstream = {"cnn": forecast, "rl": advice}
    return conclude(
        await moe(input, upstream),
        upstream=upstream,
        position=float(input.account_A[0]),
        thresholds=thresholds,
    )


def conclude(
    prediction: Prediction,
    *,
    upstream: Mapping[str, Prediction],
    position: float,
    thresholds: Thresholds,
) -> Decision:
    """Turn the orchestrator's prediction into the decision that the thresholds allow.

    Args:
        prediction: the orchestrator's.
        upstream: the predictions behind it, in the order they were made.
        position: what is held now [-1..1].
        thresholds: `exit` rules a step out of a position, `entry` every other step.

    Returns:
        The action preferred, reason `acts`; or hold, reason `flat_preferred` (the ensemble itself
        prefers to do nothing, or expects no gain of entering), `below_entry` or `below_exit`.
    """
    reason = _verdict(prediction, position=position, thresholds=thresholds)
    return Decision(
        symbol=prediction.symbol,
        event_ns=prediction.event_ns,
        action=prediction.action if reason == "acts" else Action.HOLD,
        confidence=prediction.confidence,
        utility_r=prediction.utility_r,
        reason=reason,
        thresholds=thresholds,
        predictions=(*upstream.values(), prediction),
    )


def _verdict(prediction: Prediction, *, position: float, thresholds: Thresholds) -> str:
    if prediction.action is Action.HOLD:
        return "flat_preferred"
    direction = 1.0 if prediction.action is Action.BUY else -1.0
    if position * direction < 0:
        return "acts" if prediction.confidence >= thresholds.exit else "below_exit"
    if prediction.utility_r <= 0:
        return "flat_preferred"
    return "acts" if prediction.confidence >= thresholds.entry else "below_entry"
