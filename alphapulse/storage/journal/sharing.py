"""Keep once, in a journal, what decisions share, and what is nearly the same as a difference."""

from __future__ import annotations

import sqlite3
import zlib
from dataclasses import dataclass
from typing import Any

from alphapulse.storage.tables import PIECES

NUM_ON_ANCHOR = 16  # pieces packed with one other as their dictionary: bounds what goes with it
LEVEL = 6


@dataclass(slots=True)
class _Newest:
    """The newest piece of a kind and the one it leans on, both whole."""

    content: bytes
    number: int
    anchor: bytes
    anchor_number: int
    num_on_anchor: int = 0


class Sharing:
    """What the writer of a journal knows of what is shared; a new one begins knowing nothing.

    What it does not know is stored again, so that nothing is ever assumed to be there.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._newest: dict[str, _Newest] = {}

    def forget(self) -> None:
        """Know nothing: what was about to be stored was not."""
        self._rows.clear()
        self._newest.clear()

    def row(self, db: sqlite3.Connection, table: str, values: tuple[Any, ...]) -> int:
        """Return the number of a row of `alike`, `shown` or `made`."""
        key = repr((table, values))  # tells 0.0 from -0.0
        if key not in self._rows:
            into = f"INSERT INTO {table} VALUES (NULL{', ?' * len(values)})"
            self._rows[key] = db.execute(into, values).lastrowid or 0
        return self._rows[key]

    def piece(self, db: sqlite3.Connection, kind: str, content: bytes) -> int:
        """Return the number of a row of `pieces` that gives `content`; `kind` says what is like it.

        A piece is packed alone, or with an earlier one of its kind as the dictionary.
        """
        newest = self._newest.get(kind)
        if newest is not None and newest.content == content:
            return newest.number
        if newest is not None and newest.anchor and newest.num_on_anchor < NUM_ON_ANCHOR:
            newest.number = _stored(db, content, newest.anchor, newest.anchor_number)
            newest.content = content
            newest.num_on_anchor += 1
            return newest.number
        number = _stored(db, content, b"", None)
        self._newest[kind] = _Newest(content, number, content, number)
        return number


def _stored(
    db: sqlite3.Connection, content: bytes, anchor: bytes, anchor_number: int | None
) -> int:
    packer = zlib.compressobj(LEVEL, zdict=anchor) if anchor else zlib.compressobj(LEVEL)
    packed = packer.compress(content) + packer.flush()
    into = "INSERT INTO pieces VALUES (NULL, ?, ?)"
    return db.execute(into, (anchor_number, packed)).lastrowid or 0


_NAMED = " UNION ".join(
    f"SELECT {name} FROM decisions WHERE {name} IS NOT NULL"
    for names in PIECES.values()
    for name in names
)
_UNNAMED = (
    f"WITH named AS ({_NAMED}) SELECT number FROM pieces WHERE number NOT IN named "
    "AND number NOT IN (SELECT anchor FROM pieces WHERE anchor IS NOT NULL AND number IN named)"
)


def sweep(db: sqlite3.Connection) -> None:
    """Remove the pieces that no decision names and none named leans on, in one transaction.

    While the newest decision of every symbol stays, so does all that a writer knows.
    """
    db.execute(f"DELETE FROM pieces WHERE number IN ({_UNNAMED})")


def unnamed(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of the pieces a sweep would remove; a writer beside it need not wait.

    None of them is ever named again, whatever it appends meanwhile: it names new pieces and those
    it knows, and these stay with the newest decision of every symbol.
    """
    return [number for (number,) in db.execute(_UNNAMED)]


def joined(content: bytes) -> bytes:
    """Return what pieces give, one after the other, each after the one it leans on, if any.

    Raises zlib.error if they are damaged.
    """
    whole: list[bytes] = []
    while content:
        leans = len(content) > 1 and content[1] & 0x20  # RFC 1950: a dictionary is needed
        if leans and not whole:
            raise zlib.error("a piece leans on none")
        unpacker = zlib.decompressobj(zdict=whole.pop()) if leans else zlib.decompressobj()
        whole.append(unpacker.decompress(content))
        if not unpacker.eof:
            raise zlib.error("a piece ends too early")
        content = unpacker.unused_data
    return b"".join(whole)
