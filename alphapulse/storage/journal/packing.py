"""Pack bytes small and soon, each piece so that it says how it was packed and where it ends."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pyarrow as pa

LEVEL = 6  # of text; zlib's streams begin with none of the marks below
_LZ4, _DIFFERENCE = b"L", b"X"
_LZ4_HEAD = struct.Struct("<cIHH")  # mark, CRC-32 of the content, bytes before and after
_DIFFERENCE_HEAD = struct.Struct("<cIBII")  # mark, CRC-32, width of a word, words, bytes after
_MOST = 0xFFFF
# Of numbers LZ4 leaves as few bytes as zlib's first level, and takes a tenth of its time.
_CODEC = pa.Codec("lz4_raw")


def packed(content: bytes) -> bytes:
    """Return arrays, or whatever has no text in it, in fewer bytes."""
    if len(content) <= _MOST:
        fewer: bytes = _CODEC.compress(content, asbytes=True)
        if len(fewer) <= _MOST:
            head = _LZ4_HEAD.pack(_LZ4, zlib.crc32(content), len(content), len(fewer))
            return head + fewer
    return zlib.compress(content, LEVEL)


def difference(content: bytes, base: bytes, *, width: int) -> bytes:
    """Return what differs from `base`, word by word.

    Args:
        content: an array of words.
        base: one of as many; it must come before the difference when they are `joined`.
        width: of a word [bytes]: 4 or 8.
    """
    words, before = (np.frombuffer(c, f"<u{width}") for c in (content, base))
    differs = words != before
    # Neighbours mostly have the high bytes in common: of those zeros are left.
    by_place = (words ^ before)[differs].view(np.uint8).reshape(-1, width).T
    changes = np.packbits(differs).tobytes() + by_place.tobytes()
    fewer: bytes = _CODEC.compress(changes, asbytes=True)
    head = (_DIFFERENCE, zlib.crc32(content), width, len(words), len(fewer))
    return _DIFFERENCE_HEAD.pack(*head) + fewer


def text_on(content: bytes, base: bytes) -> bytes:
    """Return text with `base`, if it is not empty, as the dictionary: it must come before."""
    packer = zlib.compressobj(LEVEL, zdict=base) if base else zlib.compressobj(LEVEL)
    return packer.compress(content) + packer.flush()


def joined(content: bytes) -> bytes:
    """Return what pieces give, one after the other; one that leans on another stands for both.

    Raises ValueError if they are damaged.
    """
    whole: list[bytes] = []
    while content:
        if content[:1] == _LZ4:
            piece, content = _unpacked(content)
        elif content[:1] == _DIFFERENCE:
            piece, content = _changed(content, _base(whole))
        else:
            leans = len(content) > 1 and content[1] & 0x20  # RFC 1950: a dictionary is needed
            piece, content = _inflated(content, _base(whole) if leans else None)
        whole.append(piece)
    return b"".join(whole)


def _base(whole: list[bytes]) -> bytes:
    if not whole:
        raise ValueError("a piece leans on none")
    return whole.pop()


def _unpacked(content: bytes) -> tuple[bytes, bytes]:
    check, num, num_packed = _head(_LZ4_HEAD, content)
    piece, rest = _decompressed(content[_LZ4_HEAD.size :], num_packed, num)
    return _checked(piece, check), rest


def _changed(content: bytes, base: bytes) -> tuple[bytes, bytes]:
    check, width, num, num_packed = _head(_DIFFERENCE_HEAD, content)
    if width not in (4, 8) or num * width != len(base):
        raise ValueError("a difference to something else")
    begin = (num + 7) // 8
    most = begin + len(base)  # if every word differs; what is beyond is not looked at
    fewer, rest = _decompressed(content[_DIFFERENCE_HEAD.size :], num_packed, most)
    changes = np.frombuffer(fewer, np.uint8)
    differs = np.unpackbits(changes[:begin], count=num).astype(np.bool_)
    by_place = changes[begin : begin + width * int(differs.sum())].reshape(width, -1)
    words = np.frombuffer(base, f"<u{width}").copy()
    words[differs] ^= by_place.T.copy().view(f"<u{width}")[:, 0]
    return _checked(words.tobytes(), check), rest


def _decompressed(content: bytes, num_packed: int, num: int) -> tuple[bytes, bytes]:
    if num_packed > len(content):
        raise ValueError("a piece ends too early")
    try:
        piece = _CODEC.decompress(content[:num_packed], num, asbytes=True)
    except OSError as error:  # Arrow's word for it
        raise ValueError(str(error)) from error
    return piece, content[num_packed:]


def _checked(piece: bytes, check: int) -> bytes:
    if zlib.crc32(piece) != check:
        raise ValueError("a piece is not what was packed")
    return piece


def _inflated(content: bytes, base: bytes | None) -> tuple[bytes, bytes]:
    unpacker = zlib.decompressobj() if base is None else zlib.decompressobj(zdict=base)
    try:
        piece = unpacker.decompress(content)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        raise ValueError("a piece ends too early")
    return piece, unpacker.unused_data


def _head(head: struct.Struct, content: bytes) -> tuple[int, ...]:
    """Return what comes after the mark."""
    if len(content) < head.size:
        raise ValueError("a piece ends too early")
    return head.unpack_from(content)[1:]
