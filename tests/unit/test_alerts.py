"""Every alert has a code of its own, a cause and a remedy; each is kept as it began."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from alphapulse import alerting
from alphapulse.domain import quality
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.domain.status import Alert
from alphapulse.risk import alerts as risk_alerts
from alphapulse.storage import alerts as store_alerts
from alphapulse.storage.counting import COUNTED
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.notes import alert_row, round_row
from alphapulse.storage.tables import COLUMNS

EXPLAINED: dict[StrEnum, quality.Explanation] = {
    **quality.EXPLAINED,
    **risk_alerts.EXPLAINED,
    **store_alerts.EXPLAINED,
    **alerting.EXPLAINED,
}
CODES = [
    *quality.Reason,
    *risk_alerts.RiskCode,
    *store_alerts.StoreCode,
    *alerting.ActorCode,
]
ROUND = TrainingRound(
    run="r", model="cnn", confirm_ns=7, trigger="ETH/USDT 1s L2 H", state=RoundState.REJECTED,
    champion="c", figures={"p": 1 / 3}, reason="no better",
)  # fmt: skip


def test_every_code_has_a_cause_and_a_remedy() -> None:
    without = [c for c in CODES if c not in EXPLAINED or not all(_texts(EXPLAINED[c]))]

    assert without == []
    assert len({code.value for code in CODES}) == len(CODES)


def _texts(explanation: quality.Explanation) -> tuple[str, str]:
    return explanation.cause.strip(), explanation.remedy.strip()


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("alerts", alert_row(Alert("LakeBehind", "30 wait", "look", 7), "r")),
        ("training_rounds", round_row(ROUND)),
    ],
)
def test_rows_fit_their_tables_and_are_kept_once(
    tmp_path: Path, table: str, row: dict[str, Any]
) -> None:
    journal = Journal(tmp_path / "journal.sqlite", run="r")

    new = [journal.note(table, [row]) for _ in range(2)]

    (kept,) = journal.select(table)
    found = dict(zip(COLUMNS[table], kept, strict=True))
    journal.close()
    assert new == [1, 0]
    assert {name: found[name] for name in row} == row


def test_what_became_of_a_round_is_another_row() -> None:
    live = round_row(TrainingRound(**{**_fields(ROUND), "live_ns": 9}))

    assert live["id"] != round_row(ROUND)["id"]


def _fields(round: TrainingRound) -> dict[str, Any]:
    return {name: getattr(round, name) for name in TrainingRound.__dataclass_fields__}


@pytest.mark.parametrize(
    ("down", "code"),
    [
        ("journal_down", "StoreFailing"),
        ("lake_down", "LakeBehind"),
        ("disk_low", "DiskLow"),
        ("evicted_by_value", "EvictedByValue"),
        ("retention_blocked", "RetentionBlocked"),
        ("archive_down", "ArchiveFailed"),
    ],
)
def test_a_store_that_fails_is_told_until_it_works_again(down: str, code: str) -> None:
    well = dict.fromkeys(COUNTED, 0) | {"failures": 3, "unbatched": 30}

    (alert,) = store_alerts.store_alerts(well | {down: 1}, event_ns=7)

    assert (alert.code, alert.event_ns) == (code, 7)
    assert alert.remedy == store_alerts.EXPLAINED[store_alerts.StoreCode(code)].remedy
    assert store_alerts.store_alerts(well, event_ns=7) == []


def test_records_that_wait_or_are_lost_are_told_with_their_number() -> None:
    waiting = {"flagged": 9, "pending": 5, "spilled": 3, "recovered": 0, "lost": 4}

    alerts = store_alerts.record_alerts(waiting, event_ns=7)

    told = {str(alert.code): alert.message.rsplit(": ")[-1] for alert in alerts}
    assert told == {"RecordsPending": "2", "RecordsSpilled": "3", "RecordsLost": "4"}
    assert all(alert.remedy and alert.event_ns == 7 for alert in alerts)
    assert store_alerts.record_alerts(dict.fromkeys(waiting, 0), event_ns=7) == []
