"""Every reason says what happened and what to do, and every word counted today is one."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from alphapulse.data.book import BookChange
from alphapulse.domain.errors import InvalidEvent
from alphapulse.domain.quality import EXPLAINED, Explanation, Reason, reason_of


def unexplained(explained: Collection[Reason]) -> list[Reason]:
    return [reason for reason in Reason if reason not in explained]


def test_every_reason_has_a_cause_and_a_remedy() -> None:
    assert unexplained(EXPLAINED) == []
    for told in EXPLAINED.values():
        assert isinstance(told, Explanation)
        assert len(told.cause.split()) >= 3
        assert told.remedy


def test_reason_without_an_explanation_is_found() -> None:
    assert unexplained(set(Reason) - {Reason.CROSSED}) == [Reason.CROSSED]


@pytest.mark.parametrize("change", [BookChange.GAP, BookChange.CROSSED, BookChange.STALE])
def test_what_a_book_refuses_is_a_reason(change: BookChange) -> None:
    assert Reason(change.value).value == change.value


def test_error_of_an_event_that_could_not_be_built_reads_as_unreadable() -> None:
    assert reason_of(InvalidEvent("no price").code) is Reason.UNREADABLE
    assert reason_of("late_book") is Reason.LATE_BOOK


def test_alert_code_is_the_reason_in_one_word() -> None:
    assert Reason.PRICE_JUMP.alert_code == "PriceJump"
    assert len({reason.alert_code for reason in Reason}) == len(Reason)
