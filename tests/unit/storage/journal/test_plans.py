"""What a journal is often asked is found by a number or an index, however much it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphapulse.storage.journal import following, reader
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake import batch_report, forming
from tests.unit.storage.records import RUN, record

SPAN, RANGE = "event_ns BETWEEN 1 AND 2", "number > 1 AND number <= 2"
ROWS = "symbol = 'ETH/USDT' AND stream = '1s' AND ts_ns BETWEEN 1 AND 2"
ASKED = {
    **{
        f"{table} {what}": f"SELECT * FROM {table} WHERE {where} AND symbol = 'ETH/USDT'"
        for table in ("inferences", "predictions", "packages")
        for what, where in (("span", SPAN), ("range", RANGE), ("instant", "event_ns IN (1, 2)"))
    },
    **{
        f"{table} in order": f"SELECT * FROM {table} WHERE {RANGE} ORDER BY number, position"
        for table in ("inferences", "predictions", "packages", "rows")
    },
    "rows of a stream": f"SELECT * FROM rows WHERE {ROWS}",
    "forming": forming.SHOWN_SQL,
    "decisions followed": following.DECISIONS_SQL,
    "outputs followed": following.OUTPUTS_SQL,
    "forecasts followed": following.FORECASTS_SQL,
    "reported": batch_report.DECISIONS_SQL,
    "inferences waiting": reader.NUM_OUTPUTS_SQL,
}
LARGE = ("decisions", "outputs", "forecasts", "closed_rows", "d", "o", "f", "c", "pieces", "piece")


@pytest.mark.parametrize("sql", ASKED.values(), ids=ASKED.keys())
def test_nothing_large_is_read_from_end_to_end(tmp_path: Path, sql: str) -> None:
    journal = Journal(tmp_path / "journal.sqlite", run=RUN)
    journal.append([record(0)])
    values = {"after": 1, "to": 2, "limit": 1}

    plan = [step for *_, step in journal.fetch(f"EXPLAIN QUERY PLAN {sql}", values)]

    assert plan
    for step in plan:
        assert "AUTOMATIC" not in step
        assert not any(f"SCAN {name} " in f"{step} " for name in LARGE), plan
