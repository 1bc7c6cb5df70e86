"""Rebuild many inputs of a run at once: what they share is read once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage, StreamRef
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import Flags, Floats, Ints
from alphapulse.storage.asking.conditions import Span, Where
from alphapulse.storage.journal.encoding import package_of, table_of

# axes: T row, oldest first · C column

# What reading bytes that mean nothing ends in.
UNREADABLE = (StoreError, ValueError, LookupError, TypeError, ArithmeticError)
# Finds rows of a table by what they must be like.
Fetch = Callable[[str, Where], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Stored rows of one stream, oldest first, with the instant each was first shown at."""

    ts_ns_T: Ints
    shown_ns_T: Ints
    flags_T: Flags
    rows_TC: Floats

    def shown(self, ref: StreamRef, event_ns: int) -> tuple[Ints, Flags, Floats]:
        """Return the rows an input showed; one that arrived after it is not among them."""
        span = slice(*np.searchsorted(self.ts_ns_T, (ref.first_ns, ref.last_ns + 1)))
        was_there_T = self.shown_ns_T[span] <= event_ns
        kept = span if was_there_T.all() else np.arange(len(self.ts_ns_T))[span][was_there_T]
        return self.ts_ns_T[kept], self.flags_T[kept], self.rows_TC[kept]


Shared = dict[tuple[str, str], Stream]


def rebuilt(ids: Sequence[str], fetch: Fetch) -> dict[str, ModelInput]:
    """Return the inputs of those of the inferences that `fetch` finds, by id, bit for bit.

    Raises StoreError if a row of one is missing, or what is stored does not give its bits.
    """
    wanted: dict[str, dict[tuple[str, int], list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in fetch("inferences", {"id": list(ids)}):
        wanted[row["run"]][row["symbol"], row["event_ns"]].append(row["id"])
    inputs: dict[str, ModelInput] = {}
    for run, by_decision in wanted.items():
        packages = _packages(run, by_decision, fetch)
        shared = shared_rows(run, packages, fetch)
        for package in packages:
            input = rebuilt_package(package, shared)
            inputs |= dict.fromkeys(by_decision[package.symbol, package.event_ns], input)
    return inputs


def rebuilt_package(package: InputPackage, shared: Shared) -> ModelInput:
    """Return the input that was packed, bit for bit; raises StoreError as `rebuilt` does."""
    from alphapulse.features.inputs import (
        rebuild,
    )  # brings TA-Lib, which finding rows does not need

    rows = {
        key: shared[key].shown(ref, package.event_ns)
        for ref in package.streams
        if ref.count and (key := (ref.symbol, ref.stream)) in shared
    }
    return rebuild(package, rows)


def _packages(
    run: str, by_decision: dict[tuple[str, int], list[str]], fetch: Fetch
) -> list[InputPackage]:
    times = [event_ns for _, event_ns in by_decision]
    rows = fetch("packages", {"run": run, "event_ns": times})
    return [package_of(row) for row in rows if (row["symbol"], row["event_ns"]) in by_decision]


def shared_rows(run: str, packages: Sequence[InputPackage], fetch: Fetch) -> Shared:
    """Return every row that inputs of a run may show, by symbol and stream, each read once."""
    refs: dict[tuple[str, str], list[StreamRef]] = defaultdict(list)
    for package in packages:
        for ref in package.streams:
            if ref.count:
                refs[ref.symbol, ref.stream].append(ref)
    until_ns = max((package.event_ns for package in packages), default=0)
    found: Shared = {}
    for (symbol, stream), of_stream in refs.items():
        first_ns, last_ns = min(r.first_ns for r in of_stream), max(r.last_ns for r in of_stream)
        where = {
            "run": run,
            "symbol": symbol,
            "stream": stream,
            "ts_ns": Span(first_ns, None, last_ns),
            "event_ns": Span(first_ns, None, until_ns),  # no row is shown before its time
        }
        rows = fetch("rows", where)
        if rows:
            found[symbol, stream] = _stream(sorted(rows, key=lambda row: int(row["ts_ns"])))
    return found


def _stream(rows: Sequence[dict[str, Any]]) -> Stream:
    return Stream(
        ts_ns_T=np.array([row["ts_ns"] for row in rows], np.int64),
        shown_ns_T=np.array([row["event_ns"] for row in rows], np.int64),
        flags_T=np.array([row["flags"] for row in rows], np.uint8),
        rows_TC=table_of([row["cells"] for row in rows], rows[0]["cells_layout"]),
    )
