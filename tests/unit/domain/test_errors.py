"""Check that every error survives a pickle, carries its code, and stands in the drawn tree."""

from __future__ import annotations

import pickle

import pytest

from alphapulse.domain import errors
from alphapulse.domain.errors import AlphaPulseError

ALL = AlphaPulseError.__subclasses__()


@pytest.mark.parametrize("kind", ALL)
def test_error_crosses_a_process_border(kind: type[AlphaPulseError]) -> None:
    error = kind("what: expected 1, was 2; do 3")

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is kind
    assert str(back) == str(error)
    assert back.code == kind.__name__


@pytest.mark.parametrize("kind", ALL)
def test_error_is_drawn_in_the_tree(kind: type[AlphaPulseError]) -> None:
    mixed_in = kind.__mro__[2].__name__

    line = next(x for x in (errors.__doc__ or "").splitlines() if f"── {kind.__name__} " in x)

    assert f"({mixed_in})" in line
    assert ("exit" not in line) or line.endswith(f"exit {kind.exit_code}")


@pytest.mark.parametrize("kind", ALL)
def test_error_is_caught_as_its_standard_kind(kind: type[AlphaPulseError]) -> None:
    assert issubclass(kind, ValueError | LookupError | OSError | RuntimeError)
