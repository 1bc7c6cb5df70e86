"""Check that a seed always means the same faults, and that all kinds are drawn."""

from __future__ import annotations

import inspect

import pytest

from tests.exchange import faults
from tests.exchange.columns import SECOND
from tests.exchange.schedules import MOST_FAULTS, VARIABLE, schedule, seeds, written

SYMBOLS = ("ETHUSDT", "BTCUSDT")
FROM_NS = 1_723_161_290 * SECOND


def test_the_same_seed_is_the_same_schedule() -> None:
    assert [written(schedule(seed, FROM_NS, SYMBOLS), FROM_NS) for seed in range(50)] == [
        written(schedule(seed, FROM_NS, SYMBOLS), FROM_NS) for seed in range(50)
    ]


def test_two_hundred_seeds_have_every_kind_of_fault_and_every_number_of_them() -> None:
    schedules = [schedule(seed, FROM_NS, SYMBOLS) for seed in range(200)]

    kinds = {kind for _, kind in inspect.getmembers(faults, inspect.isclass)} - {faults.Fault}
    assert {type(fault) for drawn in schedules for fault in drawn} == {
        kind for kind in kinds if kind.__module__ == faults.__name__
    }
    assert {len(drawn) for drawn in schedules} == set(range(1, MOST_FAULTS + 1))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("3", [0, 1, 2]), ("50-52", [50, 51, 52]), ("seed:17", [17]), (None, list(range(10)))],
)
def test_seeds_are_a_number_a_range_or_one(asked: str | None, expected: list[int]) -> None:
    assert seeds({} if asked is None else {VARIABLE: asked}) == expected
