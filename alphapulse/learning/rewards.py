"""What a policy earns at each step, in units of the entry's risk R, costs included."""

from __future__ import annotations

from dataclasses import dataclass

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import Action
from alphapulse.domain.learning import Outcome


@dataclass(frozen=True, slots=True)
class Held:
    """What is held at an instant.

    Attributes:
        position: 0 flat, 1 long, -1 short.
        entry: log price at which it was opened; 0 when flat.
        risk: R of the entry, one hourly volatility then [log price]; 1 when flat.
        since_ns: when it was opened [ns UTC]; 0 when flat.
    """

    position: int = 0
    entry: float = 0.0
    risk: float = 1.0
    since_ns: int = 0

    def result(self, log_price: float) -> float:
        """Return the unrealised result at `log_price` [R], costs not counted."""
        return self.position * (log_price - self.entry) / self.risk


FLAT = Held()


@dataclass(frozen=True, slots=True)
class Costs:
    """What a change of position by one unit costs.

    Attributes:
        side: of one side, opened or closed [log price].
    """

    side: float

    def __post_init__(self) -> None:
        if self.side < 0:
            raise InvalidRequest(f"costs: expected 0 or more a side, was {self.side}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What turns an action into a result: costs, and whether sell may open a short."""

    costs: Costs
    allow_short: bool


def target_of(action: Action, position: int, *, allow_short: bool) -> int:
    """Return the position an action asks for: see `Action`."""
    if action is Action.HOLD:
        return position
    return 1 if action is Action.BUY else -1 if allow_short else 0


def moved(held: Held, target: int, *, at_ns: int, log_price: float, risk: float) -> Held:
    """Return what is held after taking the position `target`.

    Args:
        held: what was held.
        target: position wanted.
        at_ns: instant at which it changes [ns UTC].
        log_price: at which it changes.
        risk: one hourly volatility, R of an entry made now [log price].
    """
    if target == held.position:
        return held
    return Held(target, log_price, risk, at_ns) if target else FLAT


def reward(before: Held, after: Held, *, move: float, costs: Costs) -> float:
    """Return what one step earned [R]: what is held times its move, less the cost of changing it.

    Staying flat earns exactly 0: there is neither a bonus for entering nor a fine for waiting.

    Args:
        before: held before the decision.
        after: held from the decision on.
        move: of the log price until the next step.
        costs: of a change by one unit.
    """
    earned = after.position * move / after.risk if after.position else 0.0
    if after.position == before.position:
        return earned
    # what closes a position costs in its own R, what opens one in the new R
    closed, opened = abs(before.position) / before.risk, abs(after.position) / after.risk
    return earned - costs.side * (closed + opened)


def settled_reward(outcome: Outcome, *, before: int, after: int, costs: Costs) -> float:
    """Return what being at a position from a settled inference on brought, net [R].

    As `reward` counts it from the inference until all is closed: gains are above 0, costs below.
    Staying flat brought exactly 0. What is held pays one side when it is left, now or later: where
    the price does not move, staying and leaving brought the same.

    Args:
        outcome: of an action, from which the results of both sides are known.
        before: position held before the inference.
        after: position held from then on.
        costs: of one side, those the outcome was settled with: its results pay for both.
    """
    side = costs.side / outcome.unit
    result = (outcome.result_short, 0.0, outcome.result_long)[after + 1]
    if before == after:
        return result + side * abs(after)  # it was opened before
    return result - side * abs(before)
