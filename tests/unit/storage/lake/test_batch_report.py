"""A batch says how much is in it, how complete its inputs were, and how late it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.batch_report import report_of
from tests.unit.storage.records import RUN, SYMBOLS, note, outcome, record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite", run=RUN)
    yield journal
    journal.close()


def test_rows_completeness_codes_and_lag_are_those_of_the_batch(journal: Journal) -> None:
    decided_ns = time.time_ns() - 90 * 10**9
    journal.append([replace(record(n), decided_at_ns=decided_ns) for n in range(4)])
    journal.append([replace(record(9, symbol=SYMBOLS[1]), decided_at_ns=1)])
    journal.settle([outcome(0)])
    journal.note("examples", [note("examples", 0)])
    batch = journal.name_batch(max_decisions=4)
    assert batch is not None

    report = report_of(journal, batch)

    assert report.rows == {
        "inferences": 12, "predictions": 16, "packages": 4, "rows": 10, "outcomes": 1,
        "examples": 1,
    }  # fmt: skip
    assert report.completeness == {"1s": 0.0, "1m": 0.0, "1h": 0.0, "book": 0.0}
    assert report.validation == {f"masked_{stream}": 4 for stream in ("1s", "1m", "1h", "book")}
    assert 90 <= report.lag_s < 150
    assert report.plain()["number"] == 1


def test_a_batch_without_decisions_has_no_lag(journal: Journal) -> None:
    journal.settle([outcome(0)])
    batch = journal.name_batch(max_decisions=4)
    assert batch is not None

    report = report_of(journal, batch)

    assert (report.rows, report.completeness, report.validation) == ({"outcomes": 1}, {}, {})
    assert report.lag_s == pytest.approx(0, abs=1)
