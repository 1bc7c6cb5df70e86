"""Three predictions become one decision under the thresholds, without torch in the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from alphapulse.domain.inference import Action, Prediction, Thresholds
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.cnn import CNN
from alphapulse.models.decide import conclude, decide, local
from alphapulse.models.moe import Orchestrator
from alphapulse.models.rl import RL


def said(action: Action, *, confidence: float, utility: float = 0.3) -> Prediction:
    return Prediction(
        "moe", "0" * 16, "ETH/USDT", 0, action, 0.3, 0.3, 0.4, confidence, utility,
        np.zeros(2, dtype=np.float32),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "confidence", "utility", "position", "expected"),
    [
        (Action.BUY, 0.60, 0.3, 0.0, (Action.BUY, "acts")),
        (Action.BUY, 0.59, 0.3, 0.0, (Action.HOLD, "below_entry")),
        (Action.BUY, 0.90, 0.0, 0.0, (Action.HOLD, "flat_preferred")),
        (Action.HOLD, 0.90, 0.3, 0.0, (Action.HOLD, "flat_preferred")),
        (Action.SELL, 0.50, 0.3, 1.0, (Action.SELL, "acts")),
        (Action.SELL, 0.49, 0.3, 1.0, (Action.HOLD, "below_exit")),
        (Action.SELL, 0.50, -0.1, 1.0, (Action.SELL, "acts")),
        (Action.BUY, 0.55, 0.3, -1.0, (Action.BUY, "acts")),
        (Action.SELL, 0.55, 0.3, 0.0, (Action.HOLD, "below_entry")),
    ],
)
def test_acts_only_above_the_threshold_that_applies(
    action: Action,
    confidence: float,
    utility: float,
    position: float,
    expected: tuple[Action, str],
) -> None:
    prediction = said(action, confidence=confidence, utility=utility)

    decision = conclude(
        prediction, upstream={}, position=position, thresholds=Thresholds(entry=0.6, exit=0.5)
    )

    assert (decision.action, decision.reason) == expected


def test_models_of_this_process_are_asked_in_order(
    cnn: CNN, rl: RL, moe: Orchestrator, seen: ModelInput
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def noted(model: CNN | RL | Orchestrator):  # type: ignore[no-untyped-def]
        ask = local(model)

        async def asking(input: ModelInput, upstream: Mapping[str, Prediction]) -> Prediction:
            asked.append((model.name, tuple(upstream)))
            return await ask(input, upstream)

        return asking

    decision = asyncio.run(
        decide(seen, cnn=noted(cnn), rl=noted(rl), moe=noted(moe), thresholds=Thresholds())
    )

    assert asked == [("cnn", ()), ("rl", ("cnn",)), ("moe", ("cnn", "rl"))]
    assert [p.model for p in decision.predictions] == ["cnn", "rl", "moe"]
    assert decision.event_ns == seen.event_ns


def test_deciding_and_keeping_checkpoints_loads_no_torch() -> None:
    code = (
        "import sys, alphapulse.models.decide, alphapulse.models.checkpoints\n"
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
