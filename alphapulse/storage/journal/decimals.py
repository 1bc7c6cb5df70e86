"""Pack floats most of which are decimals, as prices and sizes are: whole numbers are shorter."""

from __future__ import annotations

import zlib

import numpy as np

from alphapulse.domain.market import Floats

MARK = b"D"  # no zlib stream begins so
PER_UNIT = 1e5  # what is counted: the finest lots and ticks of the big venues, and their sums


def packed(values_N: Floats) -> bytes:
    """Return up to 65,535 float64 values in few bytes; `unpacked` gives every bit back."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled_N = np.round(values_N * PER_UNIT)
        is_whole_N = (np.abs(scaled_N) < 2**53) & (scaled_N / PER_UNIT == values_N)
    is_whole_N &= (values_N != 0) | ~np.signbit(values_N)  # a whole number has no -0
    parts = scaled_N[is_whole_N].astype("<i8"), values_N[~is_whole_N].astype("<f8")
    content = np.packbits(is_whole_N).tobytes() + b"".join(_by_place(part) for part in parts)
    return MARK + len(values_N).to_bytes(2, "little") + zlib.compress(content, 1)


def unpacked(content: bytes) -> bytes:
    """Return the bytes of the float64 values; raises zlib.error or ValueError if damaged."""
    count = int.from_bytes(content[1:3], "little")
    given = np.frombuffer(zlib.decompress(content[3:]), np.uint8)
    begin = (count + 7) // 8
    is_whole_N = np.unpackbits(given[:begin], count=count).astype(bool)
    middle = begin + 8 * int(is_whole_N.sum())
    values_N = np.empty(count)
    values_N[is_whole_N] = given[begin:middle].reshape(8, -1).T.copy().view("<i8")[:, 0] / PER_UNIT
    values_N[~is_whole_N] = given[middle:].reshape(8, -1).T.copy().view("<f8")[:, 0]
    return values_N.tobytes()


def _by_place(values_N: np.ndarray) -> bytes:
    """Return the lowest bytes of all values, then the next: the high ones are mostly the same."""
    return values_N.view(np.uint8).reshape(-1, 8).T.tobytes()
