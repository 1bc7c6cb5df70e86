"""Rounds begin on the pivots the CNN learns: one at a time, not too often, none twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from alphapulse.config import Learning
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.domain.market import SECOND_NS, Pivot, PivotKind, Timeframe
from alphapulse.learning.rounds import RoundScheduler, Start

LEVELS = {Timeframe.S1: 2, Timeframe.M1: 2, Timeframe.H1: 1, Timeframe.D1: 1}
SETTINGS = Learning(debounce_s=60.0, min_examples=64)
ENOUGH = 64


def pivot(
    at_s: int,
    *,
    symbol: str = "ETH/USDT",
    timeframe: Timeframe = Timeframe.S1,
    level: int = 2,
    kind: PivotKind = PivotKind.HIGH,
) -> Pivot:
    pivot_ns, confirm_ns = (at_s - 9) * SECOND_NS, at_s * SECOND_NS
    return Pivot(symbol, timeframe, level, kind, pivot_ns, 2_300.0, confirm_ns, segment_id=0)


def scheduler(*had_s: int) -> RoundScheduler:
    rounds = [
        TrainingRound(
            run="r",
            model="cnn",
            confirm_ns=at_s * SECOND_NS,
            trigger="",
            state=RoundState.REJECTED,
            champion="c",
        )
        for at_s in had_s
    ]
    return RoundScheduler(SETTINGS, levels=LEVELS, rounds=rounds)


def test_a_confirmed_pivot_begins_a_round_once() -> None:
    rounds = scheduler()

    rounds.offer([pivot(100)])
    first = rounds.next(is_running=False, num_examples=ENOUGH)
    rounds.offer([pivot(100)])
    second = rounds.next(is_running=False, num_examples=ENOUGH)

    assert first == Start(100 * SECOND_NS, "ETH/USDT 1s L2 H")
    assert second is None
    assert rounds.counters() == {"started": 1, "coalesced": 0, "debounced": 0}


def test_two_symbols_confirmed_by_the_same_second_are_one_round() -> None:
    rounds = scheduler()

    rounds.offer([pivot(100), pivot(100, symbol="BTC/USDT", kind=PivotKind.LOW)])

    assert rounds.next(is_running=False, num_examples=ENOUGH) is not None
    assert rounds.next(is_running=False, num_examples=ENOUGH) is None
    assert rounds.counters()["coalesced"] == 1


def test_only_the_level_learned_on_a_timeframe_begins_one() -> None:
    rounds = scheduler()

    rounds.offer([pivot(100, level=1), pivot(101, level=3), pivot(102, timeframe=Timeframe.H1)])
    nothing = rounds.next(is_running=False, num_examples=ENOUGH)
    rounds.offer([pivot(103, timeframe=Timeframe.D1, level=1)])

    assert nothing is None
    assert rounds.next(is_running=False, num_examples=ENOUGH) == Start(
        103 * SECOND_NS, "ETH/USDT 1d L1 H"
    )


def test_pivots_while_one_runs_coalesce_into_the_newest() -> None:
    rounds = scheduler(10)

    for at_s in (100, 130, 120):
        rounds.offer([pivot(at_s)])
        assert rounds.next(is_running=True, num_examples=ENOUGH) is None
    begun = rounds.next(is_running=False, num_examples=ENOUGH)

    assert begun is not None
    assert begun.confirm_ns == 130 * SECOND_NS
    assert rounds.counters() == {"started": 1, "coalesced": 2, "debounced": 0}


def test_too_few_examples_wait_for_more() -> None:
    rounds = scheduler()
    rounds.offer([pivot(100)])

    assert rounds.next(is_running=False, num_examples=ENOUGH - 1) is None
    assert rounds.next(is_running=False, num_examples=ENOUGH) == Start.of(pivot(100))


def test_a_pivot_too_soon_after_the_last_round_is_dropped() -> None:
    rounds = scheduler()
    rounds.offer([pivot(100)])
    rounds.next(is_running=False, num_examples=ENOUGH)

    rounds.offer([pivot(159)])
    too_soon = rounds.next(is_running=False, num_examples=ENOUGH)
    rounds.offer([pivot(160)])

    assert too_soon is None
    assert rounds.next(is_running=False, num_examples=ENOUGH) == Start.of(pivot(160))
    assert rounds.counters() == {"started": 2, "coalesced": 0, "debounced": 1}


def test_a_restarted_one_begins_nothing_it_has_begun_before() -> None:
    rounds = scheduler(100, 40)

    rounds.offer([pivot(40), pivot(70), pivot(100), pivot(130)])
    nothing = rounds.next(is_running=False, num_examples=ENOUGH)
    rounds.offer([pivot(161)])

    assert nothing is None
    assert rounds.next(is_running=False, num_examples=ENOUGH) == Start.of(pivot(161))


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=60),
    st.integers(0, 60),
)
def test_whatever_comes_and_wherever_it_restarts_rounds_keep_their_distance(
    steps: list[tuple[int, bool]], restart_at: int
) -> None:
    rounds, begun = scheduler(), list[int]()
    for step, (at_s, is_running) in enumerate(steps):
        if step == restart_at:
            rounds = scheduler(*begun)
        rounds.offer([pivot(at_s)])
        start = rounds.next(is_running=is_running, num_examples=ENOUGH)
        if start is not None:
            begun.append(start.confirm_ns // SECOND_NS)

    assert all(later - earlier >= 60 for earlier, later in pairwise(begun))
