"""Answered inferences of a run as examples: only what was known at the time, parted by time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alphapulse.config import Learning
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import Example
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.learning import OUTCOME_VERSION, Outcome
from alphapulse.domain.market import Floats
from alphapulse.interfaces import Query
from alphapulse.learning.examples import is_accurate, sharing, targets_of, weights_of

if TYPE_CHECKING:
    import pandas as pd

# axes: N answered inference, in order of event time


class History(Protocol):
    """What is asked of the inference history; InferenceHistory is one."""

    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One inference with what the market has answered of it so far.

    Attributes:
        event_ns: instant of the inference [ns UTC].
        outcomes: one a timeframe and level that is settled.
    """

    inference_id: str
    symbol: str
    event_ns: int
    outcomes: tuple[Outcome, ...]

    @property
    def known_ns(self) -> int:
        """Return the instant from which all of it was known [ns UTC]."""
        return max(outcome.known_ns for outcome in self.outcomes)

    def known_before(self, cut_ns: int) -> Answered:
        """Return it with the answers known before `cut_ns`, perhaps none."""
        return replace(self, outcomes=tuple(o for o in self.outcomes if o.known_ns < cut_ns))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a round learns from, and what it compares on; both in order of event time.

    Attributes:
        train: every answer of these was known before the first compared inference was made.
        compared: made after everything that champion and challenger learned from.
        until_ns: newest instant the challenger knows something of [ns UTC].
    """

    train: tuple[Answered, ...]
    compared: tuple[Answered, ...]
    until_ns: int


async def forecasts_answered(
    history: History, *, run: str, model: str, until_ns: int
) -> tuple[Outcome, ...]:
    """Return the outcomes of a run's forecasts that were known at `until_ns`, never later ones."""
    found = await _outcomes(history, run=run, model=model, until_ns=until_ns)
    return tuple(outcome for outcome in found if outcome.level > 0)


async def actions_answered(
    history: History, *, run: str, model: str, until_ns: int
) -> tuple[Outcome, ...]:
    """Return the outcomes of a run's actions that were known at `until_ns`, never later ones.

    One with a missing bar on either side says nothing of what an entry would have brought.
    """
    found = await _outcomes(history, run=run, model=model, until_ns=until_ns)
    whole = (o for o in found if not math.isnan(o.result_long + o.result_short))
    return tuple(outcome for outcome in whole if outcome.level == 0)


async def _outcomes(
    history: History, *, run: str, model: str, until_ns: int
) -> tuple[Outcome, ...]:
    frame = await history.query(Query(table="outcomes", run=run, model=model, to_ns=until_ns + 1))
    names = [field.name for field in fields(Outcome)]
    known = frame[(frame["known_ns"] <= until_ns) & (frame["version"] == OUTCOME_VERSION)]
    return tuple(Outcome(**row) for row in known[names].to_dict("records"))


def answered(outcomes: Iterable[Outcome], *, until_ns: int) -> tuple[Answered, ...]:
    """Return the inferences with at least one outcome known at `until_ns`, in event order."""
    found: dict[tuple[int, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.known_ns <= until_ns:
            key = (outcome.event_ns, outcome.symbol, outcome.inference_id)
            found.setdefault(key, []).append(outcome)
    return tuple(
        Answered(id, symbol, event_ns, tuple(found[event_ns, symbol, id]))
        for event_ns, symbol, id in sorted(found)
    )


def parts(rows: Sequence[Answered], *, learned_until_ns: int, settings: Learning) -> Parts:
    """Part answered inferences by time, so that nothing compared on was learned from.

    The newest share of them is compared on, the newest `max_examples` before it are learned from,
    each with what of its answers was known before the first compared inference was made. An
    inference that the champion may have learned from is not compared on.

    Args:
        rows: in order of event time.
        learned_until_ns: newest instant the champion knows something of [ns UTC].
        settings: share to compare on, most examples.
    """
    num_newest = min(round(len(rows) * settings.held_out_share), settings.max_examples)
    fresh = [row for row in rows[len(rows) - num_newest :] if row.event_ns > learned_until_ns]
    first_ns = fresh[0].event_ns if fresh else 0
    past = [row.known_before(first_ns) for row in rows if row.event_ns < first_ns]
    train = [row for row in past if row.outcomes][-settings.max_examples :]
    until_ns = max([learned_until_ns, *(row.known_ns for row in train)])
    return Parts(tuple(train), tuple(fresh), until_ns)


def leaks(found: Parts, *, now_ns: int, learned_until_ns: int) -> int:
    """Return how many rows use what could not be known; anything but 0 is a fault.

    Args:
        found: the parts of a round.
        now_ns: instant of the round [ns UTC].
        learned_until_ns: newest instant the champion knows something of [ns UTC].
    """
    taught_until_ns = max([learned_until_ns, *(row.known_ns for row in found.train)])
    too_late = [row for row in (*found.train, *found.compared) if row.known_ns > now_ns]
    seen = [row for row in found.compared if row.event_ns <= taught_until_ns]
    backwards = [
        row
        for row in (*found.train, *found.compared)
        if any(outcome.known_ns < row.event_ns for outcome in row.outcomes)
    ]
    return len({row.inference_id for row in (*too_late, *seen, *backwards)})


def require_no_leak(found: Parts, *, now_ns: int, learned_until_ns: int) -> None:
    """Raise InvalidRequest if a row uses what could not be known."""
    num_leaks = leaks(found, now_ns=now_ns, learned_until_ns=learned_until_ns)
    if num_leaks:
        raise InvalidRequest(
            f"training round at {now_ns}: expected 0 rows used before their outcome was known, was "
            f"{num_leaks}; part the rows by `known_ns`"
        )


def examples(rows: Sequence[Answered], inputs: Mapping[str, ModelInput]) -> list[Example]:
    """Return the rows as examples, each counting once; labels that share a pivot share its weight.

    Args:
        rows: answered inferences.
        inputs: what each was fed, by its id.
    """
    shared = sharing(outcome for row in rows for outcome in row.outcomes)
    return [
        Example(inputs[row.inference_id], {}, targets_of(row.outcomes, shared=shared))
        for row in rows
    ]


def weighted(rows: Sequence[Answered], found: Sequence[Example], loss_N: Floats) -> list[Example]:
    """Return the examples of `rows` with what the champion got wrong counting more.

    Args:
        rows: answered inferences.
        found: their examples.
        loss_N: float64 (N,) the champion's loss on each.
    """
    accurate_N = np.array([is_accurate(row.outcomes) for row in rows])
    weight_N = weights_of(loss_N, accurate_N)
    return [
        replace(example, weight=float(weight))
        for example, weight in zip(found, weight_N, strict=True)
    ]
