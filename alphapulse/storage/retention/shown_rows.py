"""Say which stored rows input packages show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Bools, Ints
from alphapulse.storage.lake.forming import STREAM as FORMING
from alphapulse.storage.retention.database import cursor

# axes: K span, oldest first · 2 first and last instant, both inside

Spans = Mapping[tuple[str, str], Ints]  # by (symbol, stream), int64 (K, 2), none overlaps another

# A StreamRef is stored as [symbol, stream, first_ns, last_ns, count, ...].
_SHOWN = """
SELECT ref->>0 AS symbol, ref->>1 AS stream,
  CAST(ref->>2 AS BIGINT) AS first_ns, CAST(ref->>3 AS BIGINT) AS last_ns
FROM (SELECT unnest(CAST(streams AS JSON[])) AS ref FROM packages WHERE {where})
WHERE CAST(ref->>4 AS BIGINT) > 0 AND CAST(ref->>2 AS BIGINT) <= {until_ns}
GROUP BY ALL"""
_SHOWN_FORMING = f"""
SELECT DISTINCT shown AS symbol, '{FORMING}' AS stream, event_ns AS first_ns, event_ns AS last_ns
FROM (SELECT unnest([symbol, reference]) AS shown, event_ns FROM packages
  WHERE forming IS NULL AND event_ns <= {{until_ns}} AND {{where}})"""


def spans_of(packages: Any, where: str = "TRUE", *, until_ns: int = 2**62) -> Spans:
    """Return what packages show of each stream, joined.

    Args:
        packages: a table or dataset with the column `streams`, and those `where` names; where they
            are of a lake, with `symbol`, `reference`, `event_ns` and `forming`.
        where: SQL condition on them.
        until_ns: what begins after it is left out [ns UTC].

    Raises StoreError if the packages cannot be read.
    """
    with cursor() as database:
        database.register("packages", packages)
        parts = [_SHOWN, *([_SHOWN_FORMING] if "forming" in packages.schema.names else [])]
        sql = " UNION ALL ".join(part.format(where=where, until_ns=until_ns) for part in parts)
        try:
            found = database.sql(f"{sql} ORDER BY ALL").fetchall()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"streams of packages: {error}; check that the lake can be read"
            ) from error
    each: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for symbol, stream, first_ns, last_ns in found:
        each.setdefault((symbol, stream), []).append((first_ns, last_ns))
    return {key: _joined(np.array(spans, np.int64)) for key, spans in each.items()}


def union(one: Spans, other: Spans) -> Spans:
    """Return what either shows."""
    found = {}
    for key in one.keys() | other.keys():
        both = np.concatenate([spans[key] for spans in (one, other) if key in spans])
        found[key] = _joined(both[np.argsort(both[:, 0], kind="stable")])
    return found


def is_shown(ts_ns_T: Ints, spans_K2: Ints | None) -> Bools:
    """Return whether each instant is inside a span, (T,)."""
    if spans_K2 is None:
        return np.zeros(len(ts_ns_T), np.bool_)
    place_T = np.searchsorted(spans_K2[:, 0], ts_ns_T, side="right") - 1
    return np.asarray((place_T >= 0) & (ts_ns_T <= spans_K2[np.maximum(place_T, 0), 1]))


def _joined(spans_K2: Ints) -> Ints:
    """Return spans, ordered by their first instant, with those that overlap made one."""
    reach_K = np.maximum.accumulate(spans_K2[:, 1])
    begins_K = np.ones(len(spans_K2), np.bool_)
    begins_K[1:] = spans_K2[1:, 0] > reach_K[:-1]
    ends_K = np.append(begins_K[1:], True)
    return np.stack([spans_K2[begins_K, 0], reach_K[ends_K]], axis=1)
