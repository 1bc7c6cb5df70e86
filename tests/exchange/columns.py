"""Read the times of a recording's columns, and name their lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MS = 1_000_000  # nanoseconds
SECOND = 1_000 * MS
MINUTE = 60 * SECOND
LENGTHS = {"1s": SECOND, "1m": MINUTE, "1h": 60 * MINUTE, "1d": 1_440 * MINUTE}

Ints = npt.NDArray[np.int64]


def ns_of(table: Any, name: str) -> Ints:
    """Return a column of times as int64 [ns UTC]."""
    column: Ints = table[name].to_numpy().astype("datetime64[ns]").astype(np.int64)
    return column
