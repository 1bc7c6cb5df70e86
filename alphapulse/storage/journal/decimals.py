"""Pack floats most of which are decimals, as prices and sizes are: whole numbers are shorter."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from alphapulse.domain.market import Floats
from alphapulse.storage.journal import packing

MARK, _OLD_MARK = b"E", b"D"  # nothing of `packing` begins so
MARKS = (MARK, _OLD_MARK)
PER_UNIT = 1e5  # what is counted: the finest lots and ticks of the big venues, and their sums
_HEAD = struct.Struct("<cHB")  # mark, number of values, bytes of the largest whole number


def packed(values_N: Floats) -> bytes:
    """Return up to 65,535 float64 values in few bytes; `unpacked` gives every bit back."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled_N = np.rint(values_N * PER_UNIT) + 0.0  # a whole number has no -0
        is_whole_N = (scaled_N / PER_UNIT).view("<i8") == values_N.view("<i8")
        is_whole_N &= np.abs(scaled_N) < 2**53
    by_place = scaled_N[is_whole_N].astype("<i8").view(np.uint8).reshape(-1, 8).T
    num_places = int(by_place.any(axis=1).nonzero()[0].max(initial=-1)) + 1
    parts = (np.packbits(is_whole_N), by_place[:num_places], values_N[~is_whole_N])
    content = b"".join(part.tobytes() for part in parts)
    return _HEAD.pack(MARK, len(values_N), num_places) + packing.packed(content)


def unpacked(content: bytes) -> bytes:
    """Return the bytes of the float64 values; raises ValueError if damaged."""
    if content[:1] == _OLD_MARK:  # of a journal of layout 3
        return _unpacked_old(content)
    if len(content) < _HEAD.size:
        raise ValueError("decimals end too early")
    _, count, num_places = _HEAD.unpack_from(content)
    given = np.frombuffer(packing.joined(content[_HEAD.size :]), np.uint8)
    begin = (count + 7) // 8
    is_whole_N = np.unpackbits(given[:begin], count=count).astype(np.bool_)
    num_whole = int(is_whole_N.sum())
    middle = begin + num_places * num_whole
    places = np.zeros((num_whole, 8), np.uint8)
    places[:, :num_places] = given[begin:middle].reshape(num_places, num_whole).T
    return _values(is_whole_N, places, given[middle:])


def _unpacked_old(content: bytes) -> bytes:
    try:
        given = np.frombuffer(zlib.decompress(content[3:]), np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    count = int.from_bytes(content[1:3], "little")
    begin = (count + 7) // 8
    is_whole_N = np.unpackbits(given[:begin], count=count).astype(np.bool_)
    middle = begin + 8 * int(is_whole_N.sum())
    rest = given[middle:].reshape(8, -1).T.copy()
    return _values(is_whole_N, given[begin:middle].reshape(8, -1).T.copy(), rest)


def _values(is_whole_N: np.ndarray, places: np.ndarray, rest: np.ndarray) -> bytes:
    values_N = np.empty(len(is_whole_N))
    values_N[is_whole_N] = places.view("<i8")[:, 0] / PER_UNIT
    values_N[~is_whole_N] = rest.reshape(-1).view("<f8")
    return values_N.tobytes()
