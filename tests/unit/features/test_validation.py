"""What no model may be fed is named by code, axis and place; what is masked may hold anything."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alphapulse.domain.errors import InvalidInput, ShapeMismatch
from alphapulse.domain.inputs import CHANNEL, DTYPES, INPUT_PROBLEMS, INPUT_SPEC, InputSpec
from alphapulse.domain.market import BarFlag
from alphapulse.features.validation import problems, require_valid
from alphapulse.models.cnn import CNN
from tests.contracts.inputs import an_input


def changed(name: str, place: tuple[Any, ...], value: float) -> Any:
    input = an_input()
    array = getattr(input, name).copy()
    array[place] = value
    return replace(input, **{name: array})


def test_a_whole_input_has_no_problem() -> None:
    assert problems(an_input(), INPUT_SPEC) == ()


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "place", "told"),
    [
        (
            "bars_SFTC",
            (1, 2, 7, CHANNEL["rsi"]),
            "axis S (symbol) 1, axis F (timeframe) 1h, axis T (row) 7, axis C (channel) rsi",
        ),
        ("book_STB", (0, 299, 40), "axis S (symbol) 0, axis T (row) 299, axis B (book column) mid"),
        ("account_A", (3,), "axis A (account field) 3"),
    ],
)
def test_a_value_without_end_is_named_with_its_place(
    name: str, place: tuple[int, ...], told: str, garbage: float
) -> None:
    (problem,) = problems(changed(name, place, garbage), INPUT_SPEC)

    assert problem.code == "not_finite"
    assert f"ETH/USDT {name}: {told}: expected a finite number, was {garbage}" in problem.message


def test_what_is_masked_may_hold_anything() -> None:
    input = changed("flags_SFT", (0, 0, 5), 0)
    bars_SFTC, book_STB, known_STB = (
        array.copy() for array in (input.bars_SFTC, input.book_STB, input.known_STB)
    )
    bars_SFTC[0, 0, 5] = book_STB[1, 7] = np.nan
    known_STB[1, 7] = 0
    input = replace(input, bars_SFTC=bars_SFTC, book_STB=book_STB, known_STB=known_STB)

    assert problems(input, INPUT_SPEC) == ()
    said = CNN.fresh(seed=1, cost_bps=10.0).predict(input, upstream={})
    assert np.isfinite([said.confidence, *said.hidden_H]).all()


def test_a_channel_of_a_valid_row_must_be_a_number_known_or_not() -> None:
    input = changed("known_SFTC", (0, 0, 5, 9), 0)
    bars_SFTC = input.bars_SFTC.copy()
    bars_SFTC[0, 0, 5, 9] = np.nan

    (problem,) = problems(replace(input, bars_SFTC=bars_SFTC), INPUT_SPEC)

    assert problem.code == "not_finite"


@pytest.mark.parametrize("flag", [0, BarFlag.VALID | BarFlag.WARMUP])
def test_a_row_of_a_required_timeframe_that_is_not_whole_is_counted(flag: int) -> None:
    input = changed("flags_SFT", (1, 3, slice(40, 43)), flag)

    (problem,) = problems(input, INPUT_SPEC)

    assert problem.code == "missing_bars"
    assert (
        "BTC/USDT 1d flags_SFT: axis T (row): expected 300 whole rows, was 297, the first missing "
        "is 40" in problem.message
    )


def test_seconds_may_be_missing() -> None:
    assert problems(changed("flags_SFT", (0, 0), 0), INPUT_SPEC) == ()


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (3.0, 2.0), (0.0, 1.0), (np.nan, 1.0)])
def test_a_scale_without_width_is_named(low: float, high: float) -> None:
    scale_S2 = np.array([[1.0, 2.0], [low, high]])

    (problem,) = problems(replace(an_input(), scale_S2=scale_S2), INPUT_SPEC)

    assert problem.code == "flat_scale"
    told = "BTC/USDT scale_S2: axis 2 (low, high): expected 0 < low < high, was "
    assert f"{told}{low} and {high}" in problem.message


def test_a_foreign_layout_is_a_shape_mismatch_with_both_hashes() -> None:
    other = replace(INPUT_SPEC, version=99)

    with pytest.raises(ShapeMismatch, match="foreign_spec: cnn: ETH/USDT: expected input spec 99"):
        require_valid("cnn", an_input(), other)

    (problem,) = problems(an_input(), other)
    assert INPUT_SPEC.content_hash in problem.message
    assert other.content_hash in problem.message


def test_all_problems_are_told_at_once_and_the_error_crosses_processes() -> None:
    input = replace(changed("account_A", (0,), np.nan), scale_S2=np.ones((2, 2)))

    with pytest.raises(InvalidInput) as caught:
        require_valid("cnn", input, INPUT_SPEC)

    told = str(pickle.loads(pickle.dumps(caught.value)))
    assert told.startswith("not_finite: cnn: ")
    assert told.count("flat_scale: cnn: ") == 2


def test_a_type_that_differs_is_refused() -> None:
    for name in DTYPES:
        with pytest.raises(InvalidInput, match=f"^wrong_dtype: ETH/USDT {name}: expected "):
            replace(an_input(), **{name: getattr(an_input(), name).astype(np.int32)})


def test_every_code_is_explained() -> None:
    told = {"foreign_spec", "not_finite", "missing_bars", "flat_scale"}

    assert set(INPUT_PROBLEMS) == told | {"wrong_shape", "wrong_dtype"}


LAYOUTS: list[Callable[[], InputSpec]] = [
    lambda: replace(INPUT_SPEC, version=3),
    lambda: replace(INPUT_SPEC, num_rows=301),
    lambda: replace(INPUT_SPEC, channels=INPUT_SPEC.channels[::-1]),
    lambda: replace(INPUT_SPEC, channels=(*INPUT_SPEC.channels[:-1], "other")),
    lambda: replace(INPUT_SPEC, book_columns=INPUT_SPEC.book_columns[::-1]),
    lambda: replace(INPUT_SPEC, peer_fields=INPUT_SPEC.peer_fields[::-1]),
    lambda: replace(INPUT_SPEC, own=("mine",)),
    lambda: replace(INPUT_SPEC, required=("1m", "1h")),
]


def test_another_name_size_or_order_is_another_content_hash() -> None:
    hashes = {make().content_hash for make in LAYOUTS} | {INPUT_SPEC.content_hash}

    assert len(hashes) == len(LAYOUTS) + 1
    assert InputSpec().content_hash == INPUT_SPEC.content_hash
