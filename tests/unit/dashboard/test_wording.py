"""Are numbers and times said as people read them, and is what is missing never a number?"""

from __future__ import annotations

import doctest

import pytest

from alphapulse.dashboard import wording


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(wording)

    assert result.failed == 0
    assert result.attempted >= 12


@pytest.mark.parametrize(
    "say",
    [
        wording.price, wording.signed, wording.quantity, wording.share, wording.percent,
        wording.number, wording.moment, wording.time_of_day, wording.duration, wording.weights,
        wording.words,
    ],
)  # fmt: skip
def test_nothing_is_said_in_words_and_never_as_a_number(say: object) -> None:
    assert callable(say)

    assert say(None) in (wording.UNKNOWN, wording.NONE)


@pytest.mark.parametrize(
    ("say", "zero"),
    [(wording.price, "0.00"), (wording.share, "0 %"), (wording.number, "0")],
)
def test_zero_is_a_number(say: object, zero: str) -> None:
    assert callable(say)

    assert say(0) == zero


def test_money_as_text_keeps_every_cent() -> None:
    assert wording.price("123456789012345678.10") == "123,456,789,012,345,678.10"


def test_instants_survive_the_way_there_and_back() -> None:
    at = wording.iso(1_723_161_317_572_987_125)

    assert wording.nanoseconds(at) == 1_723_161_317_572_000_000
