"""Ask the history in the files of a home: no cluster needs to be running."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.config import load_settings
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inputs import DTYPES
from alphapulse.interfaces import Query
from alphapulse.storage.asking.conditions import Span
from alphapulse.storage.asking.pages import cursor_of, next_page
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home


def query_history(home: Path, query: Query) -> dict[str, Any]:
    """Return the rows asked for as plain values, and `next`, where the page after them begins."""
    with _opened(home) as history:
        page = asyncio.run(history.query(query))
    rows = _plain(page.to_dict(orient="records"))
    return {"rows": rows, "next": cursor_of(next_page(query, page))}


def show_inference(home: Path, id: str, *, save: Path | None = None) -> dict[str, Any]:
    """Return all that is kept of an inference as plain values, its input rebuilt and checked.

    Args:
        home: of the history.
        id: of the inference.
        save: a file the arrays of the input are written to, in NumPy's `.npz`.

    Raises:
        InvalidRequest: there is no such inference, or its input cannot be rebuilt to be saved.
    """
    with _opened(home) as history:
        shown = asyncio.run(history.show(id))
    if shown is None:
        raise InvalidRequest(
            f"inference {id}: expected the id of a stored one, was none such in {home}; "
            "list ids with `alphapulse history query --json`"
        )
    if save is not None:
        if shown.input is None:
            raise InvalidRequest(f"{save}: expected an input to save, was none: {shown.problem}")
        with save.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(shown.input, name) for name in DTYPES})
    told: dict[str, Any] = _plain(shown.as_dict())
    return told


def verify_history(
    home: Path,
    *,
    run: str | None = None,
    symbol: str | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    tell: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return how many inputs of a range were rebuilt, and which could not be; `tell` how far."""
    where: dict[str, Any] = {"run": run, "symbol": symbol}
    where = {name: wanted for name, wanted in where.items() if wanted is not None}
    if (from_ns, to_ns) != (None, None):
        where["event_ns"] = Span(from_ns, to_ns)
    with _opened(home) as history:
        found = asyncio.run(history.verify(where, tell=tell))
    faults = {"damaged": found.damaged, "missing": found.missing}
    told = {name: [asdict(fault) for fault in rows] for name, rows in faults.items()}
    return {"checked": found.checked, "is_whole": found.is_whole, **_plain(told)}


def read_stats(home: Path) -> dict[str, Any]:
    """Return how much history there is and where it lies."""
    with _opened(home) as history:
        return asyncio.run(history.stats())


def answer_sql(home: Path, statement: str) -> dict[str, Any]:
    """Return the rows a SELECT over the tables of the history finds."""
    with _opened(home) as history:
        frame = asyncio.run(history.sql(statement))
    return {"rows": _plain(frame.to_dict(orient="records"))}


def prune_history(home: Path, *, dry_run: bool) -> dict[str, Any]:
    """Bring the history of a stopped home within its limits and return what left.

    With `dry_run` it may run; nothing is touched. Raises HomeInUse if it runs without.
    """
    with nullcontext() if dry_run else Home(home).lock(), _opened(home) as history:
        return asdict(asyncio.run(history.prune(dry_run=dry_run)))


@contextmanager
def _opened(home: Path) -> Iterator[InferenceHistory]:
    history = InferenceHistory(Home(home), settings=load_settings(home).storage)
    try:
        yield history
    finally:
        history.close()


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it: NaN is null, bytes are hex, what JSON lacks is text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
