"""A run is settled as its history grows, each answer once, and concluded where its source ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import Action
from alphapulse.domain.learning import Cursor, Followed, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import BarSeries
from alphapulse.learning.settling import Settling
from tests.unit.learning.test_outcomes import COST_BPS, around, at, calm, decided, forecast

Event = ShownBar | PastDecision


class Kept:
    """A history of events: hands them out in slices and keeps each answer under its key.

    It loses its connection before the calls whose numbers are in `fails`.
    """

    def __init__(self, events: Sequence[Event], *, fails: frozenset[int] = frozenset()) -> None:
        self.events = list(events)
        self.outcomes: dict[tuple[str, str, int], Outcome] = {}
        self.examples: dict[str, Mapping[str, Any]] = {}
        self._fails = fails
        self._calls = 0

    async def follow(self, after: Cursor, *, limit: int) -> Followed:
        self._answer()
        events = tuple(self.events[after.decision :][:3])
        return Followed(events=events, cursor=Cursor(decision=after.decision + len(events)))

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        self._answer()
        return sum(
            self._keep(self.outcomes, (o.inference_id, o.timeframe, o.level), o) for o in outcomes
        )

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self._answer()
        assert table == "examples"
        return sum(self._keep(self.examples, row["inference_id"], row) for row in rows)

    def _keep(self, kept: dict[Any, Any], key: Any, told: Any) -> bool:
        is_new = key not in kept
        assert repr(kept.setdefault(key, told)) == repr(told), "what is kept never changes"
        return is_new

    def _answer(self) -> None:
        self._calls += 1
        if self._calls in self._fails:
            raise StoreError("history: expected an answer, was none; ask again")


async def no_bars(first_ns: int) -> Sequence[BarSeries]:
    return ()


def settling(history: Kept) -> Settling:
    return Settling(history, cost_bps=COST_BPS, seed=no_bars)


def run(settling: Settling, *, is_over: bool) -> None:
    async def go() -> None:
        while True:
            try:
                if not await settling.step(is_over=is_over):
                    return
            except StoreError:
                continue

    asyncio.run(go())


# A forecast that is answered, of a decision whose action still stands; and one with no answer.
CUT = [*around(3, forecast()), *calm(range(17, 40), 10.0), decided(40, Action.BUY, model="cnn")]


def test_what_is_pending_when_a_recording_ends_is_void_and_gets_no_outcome() -> None:
    history = Kept(CUT)
    run(settling(history), is_over=False)
    answered, before = dict(history.outcomes), dict(history.examples)

    run(settling(history), is_over=True)  # a restarted one reads it again from the start

    assert before == {}
    assert history.outcomes == answered != {}
    states = {id_: row["state"] for id_, row in history.examples.items()}
    assert states == {"rl-3": "void", "cnn-40": "void"}
    for row in history.examples.values():
        assert math.isnan(row["hit"])
        assert math.isnan(row["loss"])
        assert row["known_ns"] == at(40)


def test_an_end_again_changes_nothing() -> None:
    history = Kept(CUT)
    first, second = settling(history), settling(history)
    run(first, is_over=True)
    kept = repr(history.examples)

    run(first, is_over=True)
    run(second, is_over=True)

    assert repr(history.examples) == kept
    assert first.is_concluded
    assert second.is_concluded


@pytest.mark.parametrize("failing", range(1, 30))
def test_an_end_that_is_disturbed_says_the_same(failing: int) -> None:
    whole, disturbed = Kept(CUT), Kept(CUT, fails=frozenset({failing}))

    run(settling(whole), is_over=True)
    run(settling(disturbed), is_over=True)

    assert repr(disturbed.examples) == repr(whole.examples)
    assert repr(disturbed.outcomes) == repr(whole.outcomes)
