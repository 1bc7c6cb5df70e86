"""Read a section of a snapshot for a panel, or say on its canvas why there is nothing to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from alphapulse.dashboard import wording
from alphapulse.domain.status import Snapshot

Row = Mapping[str, Any]

NUM_ROWS, BOX_HEIGHT = 8, 300  # of a table, before it scrolls [rows, px]


def connection(snapshot: Snapshot) -> Row:
    """Return what is known about the connection to the API; empty if nothing is."""
    known: Row = snapshot.sections.get("connection") or {}
    return known


def trader(snapshot: Snapshot) -> Row:
    """Return the trader's part of the status; empty if nothing is known."""
    known: Row = (snapshot.sections.get("status") or {}).get("trader") or {}
    return known


def section(snapshot: Snapshot, canvas: Any, name: str, *, empty: str) -> Any:
    """Return the section `name`; None, after saying so, if it is not known or `empty`."""
    found = snapshot.sections.get(name)
    problem = connection(snapshot).get("problems", {}).get(name)
    if problem:
        canvas.caption(coloured(wording.literal(f"{name}: {problem}"), "orange"))
    if found:
        return found
    if found is not None:
        canvas.caption(empty)
    elif not problem:
        canvas.caption(f"{name} not known yet")
    return None


def is_cut_off(snapshot: Snapshot) -> bool:
    """Return whether the API is unreachable, so that everything is only what was last known."""
    return bool(connection(snapshot).get("unreachable_since"))


def label(snapshot: Snapshot, text: str) -> str:
    """Return the label of a number, marked if the number is stale."""
    return f"{text} · stale" if connection(snapshot).get("is_stale") else text


def newest_first(rows: Sequence[Row]) -> list[Row]:
    """Return rows by event time, the newest first."""
    return sorted(rows, key=lambda row: -row["event_ns"])


def table(canvas: Any, rows: Sequence[Row]) -> None:
    """Draw rows of text with their keys as the head; many of them in a box that scrolls."""
    box = canvas.container(height=BOX_HEIGHT, border=False) if len(rows) > NUM_ROWS else canvas
    box.table(pd.DataFrame(rows), border="horizontal", hide_index=True)


def coloured(text: str, colour: str) -> str:
    """Return text in one of the page's named colours."""
    return f":{colour}[{text}]"


def action(name: str | None) -> str:
    """Return an action in the colour of its direction."""
    colours = {"buy": "green", "sell": "red", "hold": "gray"}
    return "–" if not name else coloured(name, colours.get(name, "gray"))
