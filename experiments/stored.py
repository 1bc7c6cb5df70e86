"""Settled decisions of a run as the policy saw them, and what every action would have brought."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alphapulse.domain.inference import Action, Prediction
from alphapulse.domain.inputs import InputSpec, Tensor
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import Floats, Ints
from alphapulse.interfaces import Query
from alphapulse.learning.rewards import Rules, settled_reward, target_of
from alphapulse.models.cnn import CNN
from alphapulse.models.network import owned
from alphapulse.models.policy import ACTIONS, NUM_ACCOUNT_FIELDS, features_of
from alphapulse.models.rl import RL
from alphapulse.storage.journal.decoding import prediction_of
from experiments.answered import Answered, History

# axes: N decision, oldest first · X feature


@dataclass(frozen=True, slots=True)
class Stored:
    """A settled decision.

    Attributes:
        features_X: float32 (X,) of the policy, the forecast as it was stored.
        actions: what each model said, by name.
        outcome: of the policy's action; it says what either side brought.
    """

    symbol: str
    event_ns: int
    features_X: Tensor
    actions: Mapping[str, Action]
    outcome: Outcome

    def brought(self, action: Action, rules: Rules) -> float:
        """Return what an action would have brought, net [R]."""
        before = int(np.sign(self.features_X[-NUM_ACCOUNT_FIELDS]))
        after = target_of(action, before, allow_short=rules.allow_short)
        return settled_reward(self.outcome, before=before, after=after, costs=rules.costs)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What one model did about one symbol, decision by decision.

    Attributes:
        features_NX: float32 (N, X) of the policy.
        action_N: int64 (N,) places in ACTIONS.
        reward_N: float64 (N,) net [R].
    """

    features_NX: Tensor
    action_N: Ints
    reward_N: Floats


async def stored(
    history: History, run: str, rows: Sequence[Answered], *, spec: InputSpec
) -> list[Stored]:
    """Return answered actions of the policy with what they were made from.

    Args:
        history: of the home.
        run: id of the run.
        rows: answered inferences of the policy, one outcome each, in event order.
        spec: of the policy that learns from them.
    """
    if not rows:
        return []
    span = {"run": run, "from_ns": rows[0].event_ns, "to_ns": rows[-1].event_ns + 1}
    said = (await history.query(Query(table="inferences", **span))).to_dict("records")
    found = (await history.query(Query(table="predictions", model=CNN.name, **span))).to_dict(
        "records"
    )
    told = defaultdict(list)
    for row in found:
        told[row["inference_id"]].append(row)
    actions: dict[tuple[str, int], dict[str, Action]] = defaultdict(dict)
    forecasts: dict[tuple[str, int], Prediction] = {}
    for row in said:
        key = (row["symbol"], row["event_ns"])
        actions[key][row["model"]] = Action(row["action"])
        if row["model"] == CNN.name:
            forecasts[key] = prediction_of(row, told[row["id"]])
    inputs = await history.inputs([row.inference_id for row in rows])
    return [
        Stored(
            symbol=row.symbol,
            event_ns=row.event_ns,
            features_X=features_of(
                inputs[row.inference_id], forecasts[row.symbol, row.event_ns], spec
            ),
            actions=actions[row.symbol, row.event_ns],
            outcome=row.outcomes[0],
        )
        for row in rows
    ]


def demonstrations(rows: Sequence[Stored], rules: Rules) -> list[Demonstration]:
    """Return what each model did about each symbol, with what it would have brought."""
    groups = defaultdict(list)
    for row in rows:
        for model, action in row.actions.items():
            groups[model, row.symbol].append((row, action))
    return [
        Demonstration(
            np.stack([row.features_X for row, _ in group]),
            np.array([ACTIONS.index(action) for _, action in group], dtype=np.int64),
            np.array([row.brought(action, rules) for row, action in group]),
        )
        for group in groups.values()
    ]


def choices(model: RL, rows: Sequence[Stored]) -> list[Action]:
    """Return the likeliest action of a policy at each decision."""
    if not rows:
        return []
    with torch.inference_mode():
        logits = model.network(owned(np.stack([row.features_X for row in rows])))[0]
    return [ACTIONS[int(best)] for best in logits.argmax(dim=-1)]
