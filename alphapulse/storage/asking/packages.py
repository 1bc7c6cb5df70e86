"""Give packages that are read from a lake the forming rows back that they share with others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alphapulse.storage.asking.conditions import Asked, Span
from alphapulse.storage.lake.forming import STREAM, put_together

NEEDED = ("run", "event_ns", "streams", "forming", "forming_layout")
Parts = Mapping[int, Mapping[str, bytes]]  # forming rows by instant and symbol


def with_forming(packages: pa.Table, find: Callable[[Asked], pa.Table]) -> pa.Table:
    """Return rows of `packages`, which have the columns `NEEDED`, as they were before the lake.

    Raises StoreError if a forming row that one of them shows is not stored.
    """
    place = packages.schema.get_field_index("forming")
    lacking = packages.filter(pc.is_null(packages["forming"]))
    if not lacking.num_rows:
        return packages
    shown = {run: _parts(run, lacking, find) for run in lacking["run"].unique().to_pylist()}
    whole = [
        row["forming"]
        if row["forming"] is not None
        else put_together(row["streams"], shown[row["run"]][row["event_ns"]], row["forming_layout"])
        for row in packages.select(NEEDED).to_pylist()
    ]
    return packages.set_column(place, "forming", pa.array(whole, pa.binary()))


def _parts(run: str, lacking: pa.Table, find: Callable[[Asked], pa.Table]) -> Parts:
    times = lacking.filter(pc.equal(lacking["run"], run))["event_ns"]
    ends = pc.min_max(times).as_py()
    span = Span(ends["min"], None, ends["max"])
    where: dict[str, Any] = {"run": run, "stream": STREAM, "ts_ns": span, "event_ns": span}
    columns = ("ts_ns", "symbol", "cells")
    parts: dict[int, dict[str, bytes]] = defaultdict(dict)
    for row in find(Asked("rows", where, columns=columns)).to_pylist():
        parts[row["ts_ns"]][row["symbol"]] = row["cells"]
    return parts
