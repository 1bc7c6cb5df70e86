"""Say of a batch how much is in it, how complete its inputs were, and how late it is (R11.1)."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from alphapulse.storage.journal.reader import Batch, JournalReader
from alphapulse.storage.journal.schema import numbers_sql
from alphapulse.storage.tables import COLUMNS

DECISIONS_SQL = """
  SELECT completeness, validation, decided_at_ns FROM decided
  WHERE number > :after AND number <= :to AND completeness IS NOT NULL"""
_SAID = {
    table: f"SELECT count(*) FROM {kept} WHERE {numbers_sql(kept)}"
    for table, kept in (("inferences", "outputs"), ("predictions", "forecasts"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What went to the lake in one piece.

    Attributes:
        number: of the batch in its journal.
        rows: by table.
        completeness: by stream, mean share of an input's rows that were there.
        validation: how many inputs had a code of the column `validation`.
        lag_s: from the oldest decision inside to now [s, wall clock], 0 without one.
    """

    number: int
    rows: Mapping[str, int]
    completeness: Mapping[str, float]
    validation: Mapping[str, int]
    lag_s: float

    def plain(self) -> dict[str, Any]:
        """Return it as the fields of a log line."""
        return asdict(self)


class BatchTotals:
    """Adds up the batches of one process; of completeness and lag it keeps the newest."""

    def __init__(self) -> None:
        self._num = 0
        self._rows: Counter[str] = Counter()
        self._validation: Counter[str] = Counter()
        self._completeness: Mapping[str, float] = {}
        self._lag_s = 0.0

    def take(self, report: BatchReport) -> None:
        """Take one more batch."""
        self._num += 1
        self._rows.update(report.rows)
        self._validation.update(report.validation)
        self._completeness = report.completeness or self._completeness
        self._lag_s = report.lag_s

    def plain(self) -> dict[str, Any]:
        """Return the totals as plain values, named as in BatchReport."""
        return {
            "num": self._num,
            "rows": dict(self._rows),
            "validation": dict(self._validation),
            "completeness": dict(self._completeness),
            "lag_s": self._lag_s,
        }


def report_of(journal: JournalReader, batch: Batch) -> BatchReport:
    """Return what is in a batch of `journal`; raises StoreError if it cannot be read."""
    after, to = batch.span("inferences")
    span = {"after": after, "to": to}
    decisions = journal.fetch(DECISIONS_SQL, span)
    shares: dict[str, list[float]] = defaultdict(list)
    codes: Counter[str] = Counter()
    for completeness, validation, _ in decisions:
        codes.update(json.loads(validation))
        for stream, share in json.loads(completeness).items():
            shares[stream].append(share)
    oldest_ns = min((decided_ns for *_, decided_ns in decisions), default=time.time_ns())
    rows = {table: batch.span(table)[1] - batch.span(table)[0] for table in COLUMNS}
    rows |= {table: journal.fetch(sql, span)[0][0] for table, sql in _SAID.items()}
    return BatchReport(
        number=batch.number,
        rows={table: count for table, count in rows.items() if count},
        completeness={s: round(sum(found) / len(found), 4) for s, found in shares.items()},
        validation=dict(codes),
        lag_s=round((time.time_ns() - oldest_ns) / 1e9, 3),
    )
