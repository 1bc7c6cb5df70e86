"""Keep once, in a journal, what decisions share, and what is nearly the same as a difference."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from alphapulse.storage.journal import packing

NUM_ON_ANCHOR = 16  # pieces that lean on one other: bounds what goes with it


@dataclass(slots=True)
class _Newest:
    """The newest piece of a kind and the one it leans on, both whole."""

    content: bytes
    number: int
    anchor: bytes
    anchor_number: int
    num_on_anchor: int = 0

    def may_bear(self, content: bytes, width: int) -> bool:
        """Return whether `content` can lean on the anchor."""
        is_like = len(content) == len(self.anchor) if width else True
        return bool(self.anchor) and is_like and self.num_on_anchor < NUM_ON_ANCHOR


class Sharing:
    """What the writer of a journal knows of what is shared; a new one begins knowing nothing.

    What it does not know is stored again, so that nothing is ever assumed to be there.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._newest: dict[str, _Newest] = {}

    def forget(self) -> None:
        """Know nothing: what was about to be stored was not."""
        self._rows.clear()
        self._names.clear()
        self._newest.clear()

    def row(self, db: sqlite3.Connection, table: str, values: tuple[Any, ...]) -> int:
        """Return the number of a row of `alike`, `shown` or `made`."""
        key = repr((table, values))  # tells 0.0 from -0.0
        if key not in self._rows:
            into = f"INSERT INTO {table} VALUES (NULL{', ?' * len(values)})"
            self._rows[key] = db.execute(into, values).lastrowid or 0
        return self._rows[key]

    def name(self, db: sqlite3.Connection, name: str) -> int:
        """Return the number of a symbol or stream, the same for all rows of a journal."""
        if name not in self._names:
            db.execute("INSERT INTO names VALUES (NULL, ?) ON CONFLICT DO NOTHING", (name,))
            found = db.execute("SELECT number FROM names WHERE name = ?", (name,))
            self._names[name] = found.fetchone()[0]
        return self._names[name]

    def piece(self, db: sqlite3.Connection, kind: str, content: bytes, *, width: int) -> int:
        """Return the number of a row of `pieces` that gives `content`.

        A piece is packed alone, or as what differs from an earlier one of its kind.

        Args:
            db: the journal, in a transaction.
            kind: pieces of one kind are nearly alike.
            content: to be kept.
            width: of the words it consists of [bytes], 0 for text.
        """
        newest = self._newest.get(kind)
        if newest is not None and newest.content == content:
            return newest.number
        if newest is None or not newest.may_bear(content, width):
            alone = packing.packed(content) if width else packing.text_on(content, b"")
            number = _stored(db, alone, None)
            self._newest[kind] = _Newest(content, number, content, number)
            return number
        if width:
            less = packing.difference(content, newest.anchor, width=width)
        else:
            less = packing.text_on(content, newest.anchor)
        newest.number = _stored(db, less, newest.anchor_number)
        newest.content = content
        newest.num_on_anchor += 1
        return newest.number


def _stored(db: sqlite3.Connection, content: bytes, anchor: int | None) -> int:
    return db.execute("INSERT INTO pieces VALUES (NULL, ?, ?)", (anchor, content)).lastrowid or 0
