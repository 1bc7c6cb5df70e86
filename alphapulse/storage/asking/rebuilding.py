"""Rebuild many inputs of a run at once: what they share is read once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage, StreamRef
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import Flags, Floats, Ints
from alphapulse.domain.windows import Shown
from alphapulse.storage.asking.conditions import Span, Where
from alphapulse.storage.journal.arrays import table_of
from alphapulse.storage.journal.decoding import package_of

# axes: T row, oldest first · C column

# What reading bytes that mean nothing ends in.
UNREADABLE = (StoreError, ValueError, LookupError, TypeError, ArithmeticError)
# Ids of inferences by symbol and instant of their decision.
Decisions = dict[tuple[str, int], list[str]]
NUM_HASHING = 2  # threads: a hash takes longer than all the rest; trading has the other cores
# Finds rows of a table by what they must be like.
Fetch = Callable[[str, Where], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Stored rows of one stream, oldest first, with the instant each was first shown at.

    Attributes:
        times_ns: the same as `ts_ns_T`.
        known_ns: from when on a row and all before it were there.
        seen: what models see of the rows, made once for all inputs.
    """

    ts_ns_T: Ints
    times_ns: list[int]
    shown_ns_T: Ints
    known_ns: list[int]
    flags_T: Flags
    rows_TC: Floats
    seen: Shown

    def kept(self, ref: StreamRef, event_ns: int) -> slice | Ints:
        """Return which rows an input showed; one that arrived after it is not among them."""
        # numpy's search lets other threads go first
        first = bisect_left(self.times_ns, ref.first_ns)
        end = bisect_right(self.times_ns, ref.last_ns, lo=first)
        if end > first and self.known_ns[end - 1] > event_ns:
            return first + np.flatnonzero(self.shown_ns_T[first:end] <= event_ns)
        return slice(first, end)


Shared = dict[tuple[str, str], Stream]


def rebuilt(run: str, decisions: Decisions, fetch: Fetch) -> dict[str, ModelInput]:
    """Return the inputs of the decisions of a run whose packages `fetch` finds, by inference.

    Raises StoreError if a row of one is missing, or what is stored does not give its bits.
    """
    packages = _packages(run, decisions, fetch)
    shared = shared_rows(run, packages, fetch)
    if len(packages) == 1:
        inputs = [rebuilt_package(packages[0], shared)]
    else:
        inputs = _rebuilt_together(packages, shared)
    return {
        id_: input
        for package, input in zip(packages, inputs, strict=True)
        for id_ in decisions[package.symbol, package.event_ns]
    }


def _rebuilt_together(packages: Sequence[InputPackage], shared: Shared) -> list[ModelInput]:
    """Return the inputs of packages; their hashes are made on several cores."""
    from alphapulse.features.inputs import require_same

    inputs = [_laid(package, shared) for package in packages]
    with ThreadPoolExecutor(NUM_HASHING) as hashing:  # not while they are laid: threads would wait
        for _ in hashing.map(require_same, packages, inputs):
            pass  # raises what is wrong with the first one that is
    return inputs


def rebuilt_package(package: InputPackage, shared: Shared) -> ModelInput:
    """Return the input that was packed, bit for bit; raises StoreError as `rebuilt` does."""
    # brings TA-Lib, which finding rows does not need
    from alphapulse.features.inputs import require_same

    input = _laid(package, shared)
    require_same(package, input)
    return input


def _laid(package: InputPackage, shared: Shared) -> ModelInput:
    from alphapulse.features.inputs import relaid, shown_part

    rows: dict[tuple[str, str], tuple[Ints, Flags, Floats]] = {}
    seen: dict[tuple[str, str], tuple[Ints, Shown]] = {}
    for ref in package.streams:
        key = ref.symbol, ref.stream
        if ref.count and (stream := shared.get(key)):
            kept = stream.kept(ref, package.event_ns)
            ts_ns_T = stream.ts_ns_T[kept]
            rows[key] = ts_ns_T, stream.flags_T[kept], stream.rows_TC[kept]
            seen[key] = ts_ns_T, shown_part(stream.seen, kept)
    return relaid(package, rows, seen=seen)


def _packages(run: str, decisions: Decisions, fetch: Fetch) -> list[InputPackage]:
    times = [event_ns for _, event_ns in decisions]
    rows = fetch("packages", {"run": run, "event_ns": times})
    return [package_of(row) for row in rows if (row["symbol"], row["event_ns"]) in decisions]


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
            found[symbol, stream] = _stream(stream, sorted(rows, key=lambda row: int(row["ts_ns"])))
    return found


def _stream(stream: str, rows: Sequence[dict[str, Any]]) -> Stream:
    # brings TA-Lib, which finding rows does not need
    from alphapulse.features.inputs import seen_of

    times_ns = [row["ts_ns"] for row in rows]
    shown_ns = [row["event_ns"] for row in rows]
    rows_TC = table_of([row["cells"] for row in rows], rows[0]["cells_layout"])
    return Stream(
        ts_ns_T=_locked(np.array(times_ns, np.int64)),
        times_ns=times_ns,
        shown_ns_T=np.array(shown_ns, np.int64),
        known_ns=list(accumulate(shown_ns, max)),
        flags_T=_locked(np.array([row["flags"] for row in rows], np.uint8)),
        rows_TC=rows_TC,
        seen=Shown(*map(_locked, seen_of(stream, rows_TC))),
    )


def _locked(array: Any) -> Any:
    array.flags.writeable = False
    return array
