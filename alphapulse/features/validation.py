"""Check an input before a model is fed it, and say what is wrong by code, axis and place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import InvalidInput, ShapeMismatch
from alphapulse.domain.inputs import AXES, InputSpec, ModelInput
from alphapulse.domain.market import TIMEFRAMES, BarFlag, Timeframe

# axes: S symbol · F timeframe · T row, oldest first · C channel · B book column · K peer slot
VALID, WARMUP = int(BarFlag.VALID), int(BarFlag.WARMUP)
REMEDY = "build the input with features.inputs.build"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why no model may be fed an input.

    Attributes:
        code: one of the keys of `domain.inputs.INPUT_PROBLEMS`.
        message: which axis and place, what was expected, what was there.
    """

    code: str
    message: str


def problems(input: ModelInput, spec: InputSpec) -> tuple[Problem, ...]:
    """Return everything that is wrong with an input for a model of `spec`, nothing if it is whole.

    Rows without VALID and what is not known of the book may hold anything, and the users' channels
    may be others than the model knows: it hears none of them.
    """
    known, fed = (replace(s, own=()) for s in (spec, input.spec))
    if fed != known:
        message = (
            f"{input.symbol}: expected input spec {known.version} ({known.content_hash}), was "
            f"{fed.version} ({fed.content_hash}); build the input for this one"
        )
        return (Problem("foreign_spec", message),)
    return (*_not_finite(input), *_missing(input, spec), *_flat(input))


def require_valid(model: str, input: ModelInput, spec: InputSpec) -> None:
    """Raise InvalidInput with every problem's code and message, unless there is none.

    A foreign spec is a ShapeMismatch.
    """
    found = problems(input, spec)
    if found:
        error = ShapeMismatch if found[0].code == "foreign_spec" else InvalidInput
        raise error("; ".join(f"{p.code}: {model}: {p.message}" for p in found))


def _not_finite(input: ModelInput) -> list[Problem]:
    found = []
    masks: dict[str, Any] = {
        "bars_SFTC": (input.flags_SFT & VALID != 0)[..., None],
        "book_STB": input.known_STB != 0,
        "account_A": True,
    }
    for name, heard in masks.items():
        array = getattr(input, name)
        wrong = ~np.isfinite(array) & heard
        if wrong.any():
            value = array[tuple(np.argwhere(wrong)[0])]
            message = f"{input.symbol} {name}: {_place(name, wrong, input.spec)}: expected a "
            found.append(Problem("not_finite", f"{message}finite number, was {value}; {REMEDY}"))
    return found


def _missing(input: ModelInput, spec: InputSpec) -> list[Problem]:
    found = []
    for timeframe in spec.required:
        flags_ST = input.flags_SFT[:, TIMEFRAMES.index(Timeframe(timeframe))]
        usable_ST = (flags_ST & (VALID | WARMUP)) == VALID
        for symbol, usable_T in zip((input.symbol, input.reference), usable_ST, strict=True):
            if not usable_T.all():
                message = (
                    f"{symbol} {timeframe} flags_SFT: axis T (row): expected {len(usable_T)} whole "
                    f"rows, was {usable_T.sum()}, the first missing is {np.argmin(usable_T)}"
                )
                found.append(Problem("missing_bars", f"{message}; {REMEDY}"))
    return found


def _flat(input: ModelInput) -> list[Problem]:
    return [
        Problem(
            "flat_scale",
            f"{symbol} scale_S2: axis 2 (low, high): expected 0 < low < high, was {low} and "
            f"{high}; {REMEDY}",
        )
        for symbol, (low, high) in zip(
            (input.symbol, input.reference), input.scale_S2.tolist(), strict=True
        )
        if not 0 < low < high
    ]


def _place(name: str, wrong: npt.NDArray[np.bool_], spec: InputSpec) -> str:
    """Return where the first wrong value is, such as `symbol 0, timeframe 1m, channel rsi`."""
    labels: dict[str, Any] = {
        "F": [timeframe.value for timeframe in TIMEFRAMES],
        "C": spec.channels,
        "B": spec.book_columns,
    }
    return ", ".join(
        f"axis {letter} ({AXES[letter]}) {labels[letter][i] if letter in labels else i}"
        for letter, i in zip(name.rsplit("_", 1)[-1], np.argwhere(wrong)[0].tolist(), strict=True)
    )
