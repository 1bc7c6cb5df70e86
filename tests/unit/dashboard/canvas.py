"""A canvas that remembers what was drawn on it, and a person who presses and types."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Drawn:
    """One call: its name and what it was given."""

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]


@dataclass
class Canvas:
    """Takes the calls that panels make and refuses those that streamlit does not know.

    Attributes:
        pressed: labels of the buttons a person presses.
        typed: what a person typed, by label.
        drawn: every call so far, those on parts of the canvas too.
    """

    pressed: frozenset[str] = frozenset()
    typed: dict[str, str] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        import streamlit

        if name.startswith("_") or not hasattr(streamlit, name):
            raise AttributeError(name)
        return lambda *arguments, **named: self._draw(name, arguments, named)

    def _draw(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.drawn.append(Drawn(name, arguments, named))
        if name == "columns":
            count = arguments[0] if isinstance(arguments[0], int) else len(arguments[0])
            return [self] * count
        if "button" in name:
            return arguments[0] in self.pressed
        return self.typed.get(arguments[0], "") if name == "text_input" else self

    def of(self, *names: str) -> list[Drawn]:
        return [call for call in self.drawn if call.name in names]

    @property
    def text(self) -> str:
        """Everything a person can read, tables cell by cell and figures by title."""
        written = "\n".join(
            _readable(value)
            for call in self.drawn
            if call.name not in ("columns", "container")
            for value in _values(call)
        )
        return as_seen(written)

    def table(self, data: Any, **named: Any) -> None:
        assert all(isinstance(cell, str) for row in data.to_numpy() for cell in row)
        self._draw("table", (data,), named)


def _values(call: Drawn) -> list[Any]:
    return [*call.arguments, *(call.named[name] for name in ("text",) if name in call.named)]


def _readable(value: Any) -> str:
    if hasattr(value, "to_numpy"):
        return value.to_string(index=False, max_colwidth=200)
    if hasattr(value, "layout"):
        return str(value.layout.title.text)
    return str(value)


def as_seen(text: str) -> str:
    """Return Markdown without the strokes that keep its signs from being read as such."""
    return re.sub(r"\\([^\w\s])", r"\1", text)
