"""Arrays as their bytes beside a layout, a word such as `<f4[16,64]`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import StoreError

DAMAGED = "the store is damaged, restore it from a backup"


def layout_of(array: npt.NDArray[Any]) -> str:
    """Return dtype and shape as one word, such as `<f4[16,64]`."""
    return layout_of_shape(array.dtype, array.shape)


@cache
def layout_of_shape(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """Return the layout of an array of that dtype and shape."""
    return f"{dtype.str}[{','.join(map(str, shape))}]"


def array_of(content: bytes, layout: str) -> npt.NDArray[Any]:
    """Return the read-only array of `content`; raises StoreError if it does not fill its layout."""
    dtype, shape = parsed(layout)
    if len(content) != dtype.itemsize * math.prod(shape):
        raise StoreError(f"stored array: expected {layout}, was {len(content)} bytes; {DAMAGED}")
    return np.frombuffer(content, dtype).reshape(shape)


def itemsize_of(layout: str) -> int:
    """Return the bytes of one element of an array of a layout."""
    return parsed(layout)[0].itemsize


def layout_of_part(content: bytes, layout: str) -> str:
    """Return the layout of some elements of an array of one dimension."""
    dtype, _ = parsed(layout)
    return layout_of_shape(dtype, (len(content) // dtype.itemsize,))


@cache
def parsed(layout: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype and shape a layout names; raises StoreError if it names none."""
    match = re.fullmatch(r"([<>|]\w+)\[([\d,]*)\]", layout)
    if not match:
        raise StoreError(
            f"stored array: expected a layout such as <f4[48], was {layout!r}; {DAMAGED}"
        )
    return np.dtype(match[1]), tuple(int(n) for n in match[2].split(",") if n)


def table_of(rows: Sequence[bytes], layout: str) -> npt.NDArray[Any]:
    """Return the contents of one or more rows of one layout as one array, a row each."""
    dtype, shape = parsed(layout)
    return array_of(b"".join(rows), layout_of_shape(dtype, (len(rows), *shape)))
