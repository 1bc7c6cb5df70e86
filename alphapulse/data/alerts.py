"""Turn the state of the market's feed into what a person must know, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alphapulse.config import Feed
from alphapulse.data.refusals import RECENT_NS
from alphapulse.domain.market import SECOND_NS
from alphapulse.domain.quality import EXPLAINED, Reason, reason_of
from alphapulse.domain.status import Alert

MINUTES = RECENT_NS // SECOND_NS // 60


def feed_alerts(snapshot: Mapping[str, Any], settings: Feed, *, event_ns: int) -> list[Alert]:
    """Return one alert a reason that holds now, what lasts before what was refused.

    Args:
        snapshot: of the feed, see `PointFeed.view`.
        settings: from which difference of the clocks on people are told.
        event_ns: newest decision instant [ns UTC].
    """
    states, health = snapshot["symbols"], snapshot["health"]
    sources = health["symbols"]
    lasting = {
        Reason.FEED_DOWN: [s for s, state in states.items() if state["is_down"]],
        Reason.FALLBACK_BOOK: [s for s, source in sources.items() if source["fallback"]],
        **{
            reason: [s for s, codes in snapshot["substituted"].items() if reason in codes]
            for reason in (Reason.NO_SECONDS, Reason.BOOK_UNKNOWN)
        },
    }
    found = [
        _alert(reason, f"{', '.join(symbols)}: {EXPLAINED[reason].cause}", event_ns)
        for reason, symbols in lasting.items()
        if symbols
    ]
    skew_ms = health["skew_ms"]
    if skew_ms is not None and abs(skew_ms) > settings.skew_ms:
        told = f"the venue's clock is {abs(skew_ms):.0f} ms {'ahead' if skew_ms > 0 else 'behind'}"
        found.append(_alert(Reason.CLOCK_SKEW, told, event_ns))
    return found + [_refused(code, count, event_ns) for code, count in snapshot["refused"].items()]


def _refused(code: str, count: int, event_ns: int) -> Alert:
    reason = reason_of(code)
    told = f"{count} refused in the last {MINUTES} min: {EXPLAINED[reason].cause}"
    return _alert(reason, told, event_ns)


def _alert(reason: Reason, message: str, event_ns: int) -> Alert:
    return Alert(reason.alert_code, message, EXPLAINED[reason].remedy, event_ns)
