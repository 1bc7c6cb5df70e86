"""What is wrong with the feed is told once a reason, with what to do, as long as it holds."""

from __future__ import annotations

from typing import Any

import pytest

from alphapulse.config import Feed
from alphapulse.data.alerts import feed_alerts
from alphapulse.data.refusals import RECENT_NS, Refusals
from alphapulse.domain.market import SECOND_NS
from alphapulse.domain.quality import EXPLAINED, Reason
from alphapulse.domain.status import Alert

NOW_NS = 1_723_161_600 * SECOND_NS
ETH, BTC = "ETH/USDT", "BTC/USDT"


def snapshot(**changes: Any) -> dict[str, Any]:
    well: dict[str, Any] = {
        "symbols": {ETH: {"is_down": False}, BTC: {"is_down": False}},
        "health": {"skew_ms": None, "symbols": {}},
        "refused": {},
        "substituted": {ETH: [], BTC: []},
    }
    return well | changes


def told(**changes: Any) -> list[Alert]:
    return feed_alerts(snapshot(**changes), Feed(), event_ns=NOW_NS)


def test_feed_that_is_well_tells_nothing() -> None:
    assert told(health={"skew_ms": 499.0, "symbols": {ETH: {"fallback": False}}}) == []


@pytest.mark.parametrize(
    ("reason", "changes", "message"),
    [
        (Reason.FEED_DOWN, {"symbols": {ETH: {"is_down": False}, BTC: {"is_down": True}}},
         "BTC/USDT: no events from the venue"),
        (Reason.NO_SECONDS, {"substituted": {ETH: ["no_seconds"], BTC: ["no_seconds"]}},
         "ETH/USDT, BTC/USDT: no one-second bar"),
        (Reason.BOOK_UNKNOWN, {"substituted": {ETH: ["book_unknown"], BTC: []}},
         "ETH/USDT: no order book"),
        (Reason.FALLBACK_BOOK,
         {"health": {"skew_ms": None, "symbols": {BTC: {"fallback": True}}}},
         "BTC/USDT: the stream of book changes fell silent"),
        (Reason.CLOCK_SKEW, {"health": {"skew_ms": -1234.4, "symbols": {}}},
         "the venue's clock is 1234 ms behind"),
        (Reason.CLOCK_SKEW, {"health": {"skew_ms": 501.0, "symbols": {}}}, "501 ms ahead"),
        (Reason.PRICE_JUMP, {"refused": {"price_jump": 3}}, "3 refused in the last 5 min: a trade"),
        (Reason.UNREADABLE, {"refused": {"InvalidEvent": 1}}, "1 refused in the last 5 min"),
    ],
)  # fmt: skip
def test_what_holds_is_told_with_its_remedy(
    reason: Reason, changes: dict[str, Any], message: str
) -> None:
    (alert,) = told(**changes)

    assert message in alert.message
    assert (alert.code, alert.remedy) == (reason.alert_code, EXPLAINED[reason].remedy)
    assert alert.event_ns == NOW_NS


def test_refusals_are_told_for_five_minutes_of_event_time_and_then_no_more() -> None:
    refusals = Refusals()

    refusals.note(NOW_NS, {"stale": 2})
    refusals.note(NOW_NS + 60 * SECOND_NS, {"stale": 5, "crossed": 1})
    assert refusals.recent == {"stale": 5, "crossed": 1}

    refusals.note(NOW_NS + RECENT_NS, {"stale": 5, "crossed": 1})
    assert refusals.recent == {"stale": 3, "crossed": 1}
    refusals.note(NOW_NS + RECENT_NS + 60 * SECOND_NS, {"stale": 5, "crossed": 1})
    assert refusals.recent == {}
