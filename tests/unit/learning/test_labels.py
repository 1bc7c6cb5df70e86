"""Every inference is labelled once nothing more will be answered of it, and pending until then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse.domain.inference import Action
from alphapulse.domain.learning import InferenceLabel, LabelState, PastDecision, ShownBar
from alphapulse.learning.entries import VOID
from alphapulse.learning.outcomes import Settlement
from tests.unit.learning.test_outcomes import (
    COST_BPS,
    STEPS,
    Events,
    around,
    at,
    bar,
    calm,
    decided,
    forecast,
    settle,
    walk,
)


def labels_of(events: Events) -> list[InferenceLabel]:
    _, settlement = settle(events)
    return settlement.labels()


def test_an_inference_is_pending_until_its_last_part_is_answered() -> None:
    settlement = Settlement(cost_bps=COST_BPS)
    early = settlement.take([*calm(range(1)), decided(1, Action.BUY), *calm(range(1, 300))])
    before = settlement.labels()

    settlement.take(calm(range(300, 302)))

    (label,) = settlement.labels()
    assert (early, before) == ([], [])
    assert (label.inference_id, label.model, label.state) == ("rl-1", "rl", LabelState.RESOLVED)
    assert (label.event_ns, label.known_ns) == (at(1), at(301))
    assert label.stratum == "ETH/USDT|rl|buy||horizon"
    assert settlement.labels() == []


def test_its_loss_is_that_of_the_kind_that_came() -> None:
    whole = [*around(3, forecast(p_high=0.9, p_low=0.1)), *calm(range(17, 330), 10.0)]

    (label,) = labels_of(whole)

    assert label.loss == pytest.approx(-math.log(0.9))
    assert label.stratum.startswith("ETH/USDT|rl|hold|H|")


def test_what_was_sure_and_wrong_has_a_bounded_loss() -> None:
    whole = [*around(3, forecast(p_high=0.0, p_low=1.0)), *calm(range(17, 330), 10.0)]

    (label,) = labels_of(whole)

    assert label.loss == pytest.approx(-math.log(1e-6))


@pytest.mark.parametrize(
    "events",
    [
        [*calm(range(5)), decided(2), *calm(range(5, 9))],  # it came after its bars
        [*calm(range(1)), decided(1, unit=math.nan)],  # nothing to count a move in
        [*calm(range(1)), decided(1), *calm(range(3, 5))],  # the bars it needs are missing
    ],
)
def test_what_will_never_be_answered_is_void(events: Sequence[Any]) -> None:
    (label,) = labels_of(events)

    assert label.state is LabelState.VOID
    assert math.isnan(label.hit)
    assert math.isnan(label.loss)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=90), cut=st.integers(0, 200))
def test_resolved_void_and_pending_are_all_there_is(steps: list[tuple[Any, ...]], cut: int) -> None:
    events = walk(steps)
    settlement = Settlement(cost_bps=COST_BPS)

    outcomes = settlement.take(events[:cut])
    labels = settlement.labels()

    said = [i.id for e in events[:cut] if isinstance(e, PastDecision) for i in e.inferences]
    labelled = {label.inference_id for label in labels}
    seen_ns = max(
        (e.shown_ns if isinstance(e, ShownBar) else e.event_ns for e in events[:cut]), default=0
    )
    assert len(labelled) == len(labels)
    assert labelled <= set(said)
    assert len(labels) + settlement.num_unlabelled == len(said)
    assert all(label.event_ns <= label.known_ns <= seen_ns for label in labels)
    by_inference = {o.inference_id for o in outcomes if o.reason != VOID}
    resolved = {label.inference_id for label in labels if label.state is LabelState.RESOLVED}
    assert resolved == labelled & by_inference


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=90), cut=st.integers(0, 200))
def test_labels_do_not_depend_on_how_a_run_is_cut(steps: list[tuple[Any, ...]], cut: int) -> None:
    events = walk(steps)
    settlement = Settlement(cost_bps=COST_BPS)

    settlement.take(events[:cut])
    settlement.take(events[cut:])

    whole = labels_of(events)
    key = InferenceLabel.__repr__  # NaN is like NaN
    assert sorted(map(key, settlement.labels())) == sorted(map(key, whole))


def test_a_label_is_known_no_sooner_than_its_last_part() -> None:
    """The action is answered at second 4, the forecast void at 9: also if told in one slice."""
    said = decided(3, Action.BUY, price=10.0, unit=0.5, forecasts=(forecast(),))
    fall = [*calm(range(3), 10.0), said, bar(3, (10, 17, 4, 10)), bar(8, (10, 10, 10, 10))]

    (label,) = labels_of(fall)

    assert label.state is LabelState.RESOLVED
    assert (label.hit, label.known_ns) == (0.0, at(9))


def test_a_bar_that_is_missing_voids_only_what_waits_for_it() -> None:
    whole = around(3, forecast())
    without = [e for e in whole if not (isinstance(e, ShownBar) and e.open_ns == at(8))]

    _, settlement = settle([*without, bar(17, (10, 10, 10, 10))])

    (label,) = settlement.labels()
    assert label.state is LabelState.VOID
