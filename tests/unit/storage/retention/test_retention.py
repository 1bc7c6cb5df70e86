"""What leaves the history: the laws hold for any history, and each limit does what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.storage.retention.policy import (
    DAY_NS,
    Candidates,
    Plan,
    Policy,
    Reason,
    Usage,
    audit_sample,
    keep_score,
    plan,
    protections,
)

# axes: N decision

NOW_NS = 20_000 * DAY_NS
COLUMNS = [field.name for field in dataclasses.fields(Candidates)]


def candidates(num: int, **given: Any) -> Candidates:
    """Return `num` decisions of one symbol, a day apart, all answered; the last is the newest."""
    days = np.arange(num, dtype=np.int64)
    falses = np.zeros(num, np.bool_)
    columns: dict[str, Any] = {
        "run_N": np.zeros(num, np.int64),
        "symbol_N": np.zeros(num, np.int64),
        "event_ns_N": days,
        "stored_ns_N": NOW_NS - (num - 1 - days) * DAY_NS,
        "bytes_N": np.full(num, 10, np.int64),
        "loss_N": np.full(num, np.nan),
        "stratum_N": np.full(num, -1, np.int64),
        **dict.fromkeys(("is_pending_N", "is_ordered_N", "is_audit_N", "is_held_N"), falses),
    }
    return Candidates(**columns | {k: np.array(v, columns[k].dtype) for k, v in given.items()})


def taken(rows: Any, of: Candidates) -> Candidates:
    """Return some of the candidates."""
    return Candidates(**{name: getattr(of, name)[rows] for name in COLUMNS})


@st.composite
def histories(draw: st.DrawFn) -> Candidates:
    """Any history: few runs, symbols, days and losses, so that ties are common."""
    num = draw(st.integers(0, 40))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=num, max_size=num))

    rare = st.sampled_from([False] * 7 + [True])
    return candidates(
        num,
        run_N=column(st.integers(0, 2)),
        symbol_N=column(st.integers(0, 2)),
        event_ns_N=draw(st.permutations(range(num))),
        stored_ns_N=[NOW_NS - h * DAY_NS // 4 for h in column(st.integers(0, 40))],
        bytes_N=column(st.integers(1, 50)),
        loss_N=column(st.sampled_from([np.nan, 0.1, 0.7, 0.7, 3.0, np.inf])),
        stratum_N=column(st.integers(-1, 4)),
        is_pending_N=column(rare),
        is_ordered_N=column(rare),
        is_audit_N=column(rare),
        is_held_N=column(rare),
    )


policies = st.builds(
    Policy,
    max_age_days=st.sampled_from([0.0, 0.3, 2.0, 7.0]),
    max_decisions=st.integers(0, 40),
    max_bytes=st.integers(0, 1_500),
    half_life_days=st.sampled_from([0.5, 7.0]),
)
usages = st.builds(
    Usage,
    now_ns=st.just(NOW_NS),
    other_bytes=st.integers(0, 300),
    lacking_bytes=st.one_of(st.just(0), st.integers(0, 700)),
)


def stays(history: Candidates, found: Plan) -> Any:
    """Return which rows stay."""
    return np.setdiff1d(np.arange(len(history)), found.rows)


def is_protected(history: Candidates) -> Any:
    """Return which rows no limit may take, worked out one by one."""
    h = history
    found = h.is_pending_N | h.is_ordered_N | h.is_audit_N | h.is_held_N
    for row in range(len(h)):
        of_run = h.run_N == h.run_N[row]
        of_symbol = of_run & (h.symbol_N == h.symbol_N[row])
        found[row] |= h.event_ns_N[row] == h.event_ns_N[of_symbol].max()
        found[row] |= (of_run & h.is_pending_N & (h.event_ns_N <= h.event_ns_N[row])).any()
    return found


def kept_over(history: Candidates, policy: Policy, usage: Usage, rows: Any) -> dict[Reason, int]:
    """Return by how much the limits are exceeded when `rows` are kept."""
    gone = np.setdiff1d(np.arange(len(history)), rows)
    old = NOW_NS - history.stored_ns_N[rows] > (policy.max_age_days or np.inf) * DAY_NS
    num_bytes = int(history.bytes_N[rows].sum()) + usage.other_bytes
    over = {
        Reason.AGE: int(old.sum()),
        Reason.COUNT: len(rows) - (policy.max_decisions or 10**9),
        Reason.BYTES: num_bytes - (policy.max_bytes or 10**9),
        Reason.DISK: usage.lacking_bytes - int(history.bytes_N[gone].sum()),
    }
    return {limit: excess for limit, excess in over.items() if excess > 0}


@given(histories(), policies, usages)
def test_nothing_protected_ever_leaves(history: Candidates, policy: Policy, usage: Usage) -> None:
    found = plan(history, policy, usage)

    assert not is_protected(history)[found.rows].any()
    assert len(set(found.rows.tolist())) == len(found.rows)


@given(histories(), policies, usages)
def test_no_limit_is_exceeded_but_by_what_is_protected(
    history: Candidates, policy: Policy, usage: Usage
) -> None:
    found = plan(history, policy, usage)
    kept = stays(history, found)

    over = kept_over(history, policy, usage, kept)
    assert over == found.missed
    if over.keys() - {Reason.AGE}:  # then all that could go is gone
        assert is_protected(history)[kept].all()


@given(histories(), policies, usages)
def test_a_higher_value_never_leaves_before_a_lower_one(
    history: Candidates, policy: Policy, usage: Usage
) -> None:
    found = plan(history, policy, usage)

    score_N = keep_score(history, policy, now_ns=NOW_NS)
    day_N = history.stored_ns_N // DAY_NS
    key = [(s,) if usage.is_critical else (d, s) for d, s in zip(day_N, score_N, strict=True)]
    left = [key[row] for row in found.rows]
    asked = [key[r] for r, why in zip(found.rows, found.reasons, strict=True) if why != Reason.AGE]
    kept = [key[row] for row in stays(history, found) if not is_protected(history)[row]]
    assert left == sorted(left)
    assert not asked or not kept or max(asked) <= min(kept)


@given(histories(), policies, usages)
def test_no_more_leaves_than_the_limits_ask(
    history: Candidates, policy: Policy, usage: Usage
) -> None:
    found = plan(history, policy, usage)

    asked = [r for r, why in zip(found.rows, found.reasons, strict=True) if why != Reason.AGE]
    if asked:
        kept = np.append(stays(history, found), asked[-1])
        assert kept_over(history, policy, usage, kept).keys() - {Reason.AGE}


@given(histories(), policies, usages, st.randoms(use_true_random=False))
def test_the_same_leave_whatever_order_they_come_in(
    history: Candidates, policy: Policy, usage: Usage, chance: Any
) -> None:
    shuffled = np.array(chance.sample(range(len(history)), len(history)), np.int64)

    found = plan(history, policy, usage)
    again = plan(taken(shuffled, history), policy, usage)

    assert shuffled[again.rows].tolist() == found.rows.tolist()
    assert again.reasons == found.reasons
    assert again.missed == found.missed


@given(histories(), policies, usages)
def test_planning_again_after_an_eviction_evicts_nothing_more(
    history: Candidates, policy: Policy, usage: Usage
) -> None:
    first = plan(history, policy, usage)
    freed = int(history.bytes_N[first.rows].sum())
    now = dataclasses.replace(usage, lacking_bytes=max(usage.lacking_bytes - freed, 0))

    again = plan(taken(stays(history, first), history), policy, now)

    assert again.rows.tolist() == []


def test_without_limits_nothing_leaves() -> None:
    found = plan(candidates(9), Policy(), Usage(now_ns=NOW_NS))

    assert (len(found.rows), found.missed, found.protected) == (0, {}, {"newest": 1})


def test_what_is_older_than_the_limit_leaves_oldest_first() -> None:
    found = plan(candidates(9), Policy(max_age_days=5.5), Usage(now_ns=NOW_NS))

    assert found.rows.tolist() == [0, 1, 2]
    assert found.reasons == (Reason.AGE,) * 3


def test_the_oldest_day_leaves_first_and_in_it_the_lowest_score() -> None:
    day = NOW_NS - DAY_NS
    history = candidates(
        4, stored_ns_N=[day + 1, day + 2, day + 3, NOW_NS], loss_N=[0.5, 0.1, 9.0, 0.0]
    )

    found = plan(history, Policy(max_decisions=2), Usage(now_ns=NOW_NS))

    assert found.rows.tolist() == [1, 0]
    assert found.reasons == (Reason.COUNT,) * 2


def test_a_disk_below_its_watermark_takes_the_lowest_score_whatever_its_age() -> None:
    history = candidates(5, loss_N=[9.0, 8.0, 0.1, 0.2, 0.3], stratum_N=[1, 1, 0, 0, 0])

    found = plan(history, Policy(), Usage(now_ns=NOW_NS, lacking_bytes=15))

    assert found.rows.tolist() == [2, 3]
    assert found.reasons == (Reason.DISK,) * 2


def test_bytes_beside_the_decisions_count_too() -> None:
    usage = Usage(now_ns=NOW_NS, other_bytes=25)

    found = plan(candidates(5), Policy(max_bytes=60), usage)

    assert found.rows.tolist() == [0, 1]


def test_a_pending_decision_keeps_all_after_it_and_that_is_told() -> None:
    history = candidates(6, is_pending_N=[False, False, True, False, False, False])

    found = plan(history, Policy(max_decisions=1), Usage(now_ns=NOW_NS))

    assert found.rows.tolist() == [0, 1]
    assert found.missed == {Reason.COUNT: 3}
    assert found.protected == {"pending": 1, "newest": 1, "settling": 4}


@pytest.mark.parametrize("name", ["is_ordered_N", "is_audit_N", "is_held_N"])
def test_a_protected_decision_stays_while_newer_ones_leave(name: str) -> None:
    history = candidates(4, **{name: [True, False, False, False]})

    found = plan(history, Policy(max_decisions=1), Usage(now_ns=NOW_NS))

    assert found.rows.tolist() == [1, 2]
    assert found.missed == {Reason.COUNT: 1}


def test_each_term_of_a_keep_score_is_between_0_and_1_and_counts() -> None:
    history = candidates(
        4,
        stored_ns_N=[NOW_NS - 7 * DAY_NS] * 4,
        loss_N=[np.nan, 0.1, 0.2, 0.2],
        stratum_N=[-1, 0, 0, 1],
        is_ordered_N=[False, False, False, True],
    )

    score_N = keep_score(history, Policy(half_life_days=7.0), now_ns=NOW_NS)

    rare, common = 1.0, np.log(3 / 2) / np.log(3)
    expected = [0.5, 0.5 + 1 / 3 + common, 0.5 + 1 + common, 0.5 + 1 + rare + 1]
    assert score_N == pytest.approx(expected)


def test_the_audit_sample_is_frozen_and_of_the_size_asked_for() -> None:
    key_N, event_ns_N = np.full(200_000, 7, np.uint64), np.arange(200_000) * 10**9

    small = audit_sample(key_N, event_ns_N, share=0.005)
    large = audit_sample(key_N, event_ns_N, share=0.01)
    part = audit_sample(key_N[::3], event_ns_N[::3], share=0.005)

    assert 800 < small.sum() < 1_200
    assert (large | ~small).all()
    assert part.tolist() == small[::3].tolist()
    assert audit_sample(key_N, event_ns_N, share=1.0).all()
    assert not audit_sample(key_N, event_ns_N, share=0.0).any()


def test_an_empty_history_has_a_plan() -> None:
    found = plan(candidates(0), Policy(max_decisions=1), Usage(now_ns=NOW_NS, lacking_bytes=5))

    assert (found.rows.tolist(), found.missed) == ([], {Reason.DISK: 5})
    assert all(len(held_N) == 0 for held_N in protections(candidates(0)).values())
