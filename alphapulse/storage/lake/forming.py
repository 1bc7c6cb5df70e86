"""Forming rows go to the lake once an instant and symbol, however many inputs show them.

There they are rows of the stream `forming`, at the decision instant: the forming rows of a symbol,
one after the other. The packages that show them have none of their own: `forming` is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.arrays import itemsize_of, layout_of_part
from alphapulse.storage.journal.decoding import unpacked_column
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.tables import COLUMNS

STREAM = "forming"
_SYMBOL, _LENGTH = 0, 7  # of the fields of a StreamRef, see `packages.streams`
_EVENT_NS, _DECIDED, _FORMING = map(
    list(COLUMNS["packages"]).index, ("event_ns", "symbol", "forming")
)
_READ = ("number", "symbol", "event_ns", "streams", "forming", "forming_layout")
# Every decision of the instants inside: the first of an instant brings what several show.
SHOWN_SQL = f"""
  SELECT {", ".join(_READ)} FROM decided
  WHERE number <= :to AND event_ns IN (
    SELECT event_ns FROM decisions WHERE number > :after AND number <= :to)
  ORDER BY number"""


class Forming:
    """What the forming rows of a journal's decisions become in the lake.

    Attributes:
        rows: rows of the table `rows`, one a symbol and instant that no earlier decision showed.
        apart: instant and symbol of the decisions that showed something else than an earlier one of
            the same instant: their packages keep their own.
    """

    def __init__(self, journal: JournalReader, *, after: int, to: int) -> None:
        """Read the decisions with numbers in (after, to] and those of the same instants before."""
        self.rows: list[tuple[Any, ...]] = []
        self.apart: set[tuple[int, str]] = set()
        run, version = journal.meta("run"), int(journal.meta("schema_version") or 0)
        seen: dict[tuple[int, str], bytes] = {}
        for number, decided, event_ns, *shown in _read(journal, after=after, to=to):
            parts = split(*shown)
            if any(seen.get((event_ns, symbol), part) != part for symbol, part in parts.items()):
                self.apart.add((event_ns, decided))
                continue
            for symbol, part in parts.items():
                if (event_ns, symbol) not in seen and number > after:
                    head = (run, version, symbol, STREAM, event_ns, event_ns, 0)
                    self.rows.append((*head, part, layout_of_part(part, shown[-1])))
                seen[event_ns, symbol] = part

    def without(self, packages: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return rows of `packages` as the lake keeps them."""
        return [
            row
            if (row[_EVENT_NS], row[_DECIDED]) in self.apart
            else (*row[:_FORMING], None, *row[_FORMING + 1 :])
            for row in packages
        ]


def _read(journal: JournalReader, *, after: int, to: int) -> Iterable[tuple[Any, ...]]:
    found = journal.fetch(SHOWN_SQL, {"after": after, "to": to})
    columns = dict(zip(_READ, zip(*found, strict=True), strict=True)) if found else {}
    return zip(
        *(unpacked_column("packages", name, column) for name, column in columns.items()),
        strict=True,
    )


def split(streams: str, forming: bytes, layout: str) -> dict[str, bytes]:
    """Return the forming rows of a package by symbol, one after the other."""
    parts: dict[str, bytes] = {}
    begin = 0
    for symbol, num_bytes in _lengths(streams, layout):
        part = forming[begin : begin + num_bytes]
        parts[symbol] = parts.get(symbol, b"") + part
        begin += num_bytes
    return parts


def put_together(streams: str, parts: Mapping[str, bytes], layout: str) -> bytes:
    """Return the forming rows of a package, as `split` took them apart.

    Raises StoreError if one of them is not there.
    """
    forming, taken = b"", dict.fromkeys(parts, 0)
    for symbol, num_bytes in _lengths(streams, layout):
        begin = taken.get(symbol, 0)
        part = parts.get(symbol, b"")[begin : begin + num_bytes]
        if len(part) != num_bytes:
            raise StoreError(
                f"forming rows of {symbol}: expected {num_bytes} bytes, was {len(part)}; restore "
                "the lake from a backup"
            )
        forming += part
        taken[symbol] = begin + num_bytes
    return forming


def _lengths(streams: str, layout: str) -> list[tuple[str, int]]:
    """Return the symbol and number of bytes of each forming row a package shows."""
    size = itemsize_of(layout)
    fields = json.loads(streams)
    return [(field[_SYMBOL], size * field[_LENGTH]) for field in fields if field[_LENGTH]]
