"""A round learns from what was known before, and compares on what nobody has learned from."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.config import Learning, load_settings
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import SECOND_NS
from alphapulse.interfaces import Query
from alphapulse.models.cnn import CNN
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from experiments.answered import (
    Answered,
    Parts,
    actions_answered,
    answered,
    examples,
    forecasts_answered,
    leaks,
    parts,
    require_no_leak,
    weighted,
)
from tests.unit.experiments.conftest import FIRST_TICK_NS, AnsweredRun

SETTINGS = Learning(min_examples=4, max_examples=40, held_out_share=0.3)


def outcome(at_s: int, known_s: int, *, timeframe: str = "1s", hit: float = 1.0) -> Outcome:
    return Outcome(
        inference_id=f"i{at_s}",
        run="r",
        symbol="ETH/USDT",
        model="cnn",
        event_ns=at_s * SECOND_NS,
        known_ns=known_s * SECOND_NS,
        timeframe=timeframe,
        level=2,
        unit=1e-4,
        ended_ns=(known_s - 2) * SECOND_NS,
        price=2_300.0,
        move=0.5,
        hit=hit,
        kind="H",
        bars=float(known_s - at_s - 2),
        p_done=0.0,
    )


def every_second(num: int, *, wait_s: int = 7) -> tuple[Answered, ...]:
    return answered([outcome(s, s + wait_s) for s in range(num)], until_ns=10**18)


def parted_without_purge(rows: tuple[Answered, ...], *, learned_until_ns: int) -> Parts:
    """Part as many would: by the time of the inference, whenever its answer came (the fault)."""
    cut = len(rows) * 7 // 10
    return Parts(rows[:cut], rows[cut:], max(learned_until_ns, rows[cut - 1].event_ns))


def test_what_was_not_known_by_the_instant_of_the_round_is_left_out() -> None:
    told = [outcome(1, 9), outcome(2, 10), outcome(3, 11), outcome(1, 30, timeframe="1m")]

    found = answered(told, until_ns=10 * SECOND_NS)

    assert [row.inference_id for row in found] == ["i1", "i2"]
    assert [len(row.outcomes) for row in found] == [1, 1]


class Kept:
    """A history of the given outcomes, whatever is asked of it about them."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = outcomes

    async def query(self, query: Query) -> pd.DataFrame:
        assert query.table == "outcomes"
        return pd.DataFrame([asdict(outcome) for outcome in self._outcomes])


def test_an_action_with_a_missing_bar_on_either_side_teaches_nothing() -> None:
    whole = replace(outcome(1, 9), level=0, kind="", result_long=0.5, result_short=-0.7)
    void = replace(whole, inference_id="i2", result_short=float("nan"), reason="void")

    found = asyncio.run(
        actions_answered(Kept(whole, void), run="r", model="rl", until_ns=10 * SECOND_NS)
    )

    assert [row.inference_id for row in found] == ["i1"]


def test_answers_of_what_is_learned_were_known_before_anything_compared_was_said() -> None:
    found = parts(every_second(100), learned_until_ns=0, settings=SETTINGS)

    assert [row.event_ns // SECOND_NS for row in found.compared] == list(range(70, 100))
    assert [row.event_ns // SECOND_NS for row in found.train] == list(range(23, 63))
    assert found.until_ns == (62 + 7) * SECOND_NS


def test_a_late_answer_is_dropped_where_the_quick_one_beside_it_is_kept() -> None:
    slow = [outcome(s, s + 50, timeframe="1m") for s in range(100)]
    rows = answered([*(outcome(s, s + 7) for s in range(100)), *slow], until_ns=10**18)

    found = parts(rows, learned_until_ns=0, settings=SETTINGS)

    known = {row.event_ns // SECOND_NS: len(row.outcomes) for row in found.train}
    assert known[30] == 1
    assert all(len(row.outcomes) == 2 for row in found.compared)


def test_what_the_champion_may_have_learned_is_not_compared_on() -> None:
    rows = every_second(100)

    found = parts(rows, learned_until_ns=80 * SECOND_NS, settings=SETTINGS)
    nothing = parts(rows, learned_until_ns=99 * SECOND_NS, settings=SETTINGS)

    assert [row.event_ns // SECOND_NS for row in found.compared] == list(range(81, 100))
    assert (nothing.train, nothing.compared) == ((), ())
    assert nothing.until_ns == 99 * SECOND_NS


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 90)), max_size=80),
    st.integers(0, 300),
    st.integers(0, 400),
)
def test_no_row_is_used_before_its_outcome_was_known(
    made: list[tuple[int, int]], learned_s: int, now_s: int
) -> None:
    told = [outcome(at, at + 3 + wait) for at, wait in {at: (at, w) for at, w in made}.values()]
    learned_ns, now_ns = learned_s * SECOND_NS, now_s * SECOND_NS

    found = parts(answered(told, until_ns=now_ns), learned_until_ns=learned_ns, settings=SETTINGS)

    assert leaks(found, now_ns=now_ns, learned_until_ns=learned_ns) == 0
    require_no_leak(found, now_ns=now_ns, learned_until_ns=learned_ns)


@pytest.mark.parametrize(
    "planted",
    [
        parted_without_purge(every_second(100), learned_until_ns=0),
        parts(every_second(100), learned_until_ns=0, settings=SETTINGS),  # of a round too early
        Parts((), (Answered("i5", "ETH/USDT", 5, (replace(outcome(5, 9), known_ns=4),)),), 0),
    ],
    ids=["no purge", "known after the round", "known before it was asked"],
)
def test_a_planted_leak_is_counted_and_stops_the_round(planted: Parts) -> None:
    now_ns = 80 * SECOND_NS

    assert leaks(planted, now_ns=now_ns, learned_until_ns=0) > 0
    with pytest.raises(InvalidRequest, match="expected 0 rows used before"):
        require_no_leak(planted, now_ns=now_ns, learned_until_ns=0)


def test_a_champion_from_the_future_is_a_leak_too() -> None:
    found = parts(every_second(100), learned_until_ns=0, settings=SETTINGS)

    assert leaks(found, now_ns=10**18, learned_until_ns=0) == 0
    assert leaks(found, now_ns=10**18, learned_until_ns=75 * SECOND_NS) == 6


def test_misses_count_by_their_loss_and_hits_once() -> None:
    rows = answered(
        [outcome(1, 9), outcome(2, 9, hit=0.0), outcome(3, 9, hit=0.0), outcome(4, 9, hit=0.0)],
        until_ns=10**18,
    )
    shown = examples(rows, dict.fromkeys((row.inference_id for row in rows), None))  # type: ignore[arg-type]

    told = weighted(rows, shown, np.array([9.0, 1.0, 2.0, 90.0]))

    assert [example.weight for example in told] == [1.0, 1 / 5.5, 2 / 5.5, 3.0]
    assert [float(example.targets["unique"][0]) for example in told] == [0.25] * 4


def test_a_stored_run_is_read_as_examples_of_the_inputs_that_were_fed(
    kept_run: AnsweredRun,
) -> None:
    home, settings = Home(kept_run.home), load_settings(kept_run.home)
    history = InferenceHistory(home, settings=settings.storage)
    until_ns = FIRST_TICK_NS + 300 * SECOND_NS

    async def read() -> tuple[tuple[Outcome, ...], dict[str, object]]:
        known = await forecasts_answered(
            history, run=home.run(1).id, model=CNN.name, until_ns=until_ns
        )
        rows = answered(known, until_ns=until_ns)[:8]
        return known, await history.inputs([row.inference_id for row in rows])

    known, inputs = asyncio.run(read())
    history.close()
    shown = examples(answered(known, until_ns=until_ns)[:8], inputs)  # type: ignore[arg-type]

    assert max(o.known_ns for o in known) <= until_ns
    assert {o.level for o in known} == {2}
    assert len(shown) == 8
    for example in shown:
        assert np.isfinite(example.targets["p_high"]).any()
        assert example.input.content_hash
