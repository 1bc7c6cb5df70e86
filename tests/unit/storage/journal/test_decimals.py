"""Floats packed as decimals keep every bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.storage.journal import decimals

AWKWARD = (
    -0.0,
    0.0,
    math.nan,
    math.inf,
    -math.inf,
    5e-324,
    1.7e308,
    0.1,
    2684.39,
    90071992547.40993,
)


@given(
    st.lists(
        st.one_of(
            st.floats(), st.sampled_from(AWKWARD), st.decimals(-(10**7), 10**7, places=5).map(float)
        ),
        max_size=60,
    )
)
def test_every_float_comes_back_bit_for_bit(values: list[float]) -> None:
    values_N = np.array(values, np.float64)

    packed = decimals.packed(values_N)

    assert decimals.unpacked(packed) == values_N.tobytes()


def test_decimals_take_fewer_bytes_than_floats() -> None:
    sizes_N = np.round(np.linspace(0.1, 40, 50), 4)

    assert len(decimals.packed(sizes_N)) < sizes_N.nbytes / 2


def test_decimals_of_an_older_journal_are_read() -> None:
    packed = bytes.fromhex("44030078015b109070781d0317031c48e8ba84fc56e47400004977050e")

    assert np.frombuffer(decimals.unpacked(packed)).tolist() == [0.5, math.pi, 7.0]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-4], lambda c: c[:3], lambda c: c[:1] + b"\x09\x00" + c[3:]]
)
def test_damaged_content_is_refused(damage: object) -> None:
    packed = decimals.packed(np.array([0.5, math.pi, 7.0]))

    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        decimals.unpacked(damage(packed))  # type: ignore[operator]
