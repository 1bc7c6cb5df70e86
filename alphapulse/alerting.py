"""Collect what a person must know now from every room, and keep each alert when it begins."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from alphapulse import cluster
from alphapulse.config import Settings
from alphapulse.data.alerts import feed_alerts
from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.quality import Explanation
from alphapulse.domain.status import Alert
from alphapulse.logs import get_logger
from alphapulse.risk.alerts import trading_alerts
from alphapulse.storage.alerts import record_alerts, store_alerts
from alphapulse.storage.notes import alert_row

PATIENCE_S = 5.0  # how long an actor may take to say how it is
MAX_UNKEPT = 1000  # alerts that wait for the history; the oldest are in the log alone beyond that
log = get_logger("alerts")
_T = TypeVar("_T")


class ActorCode(StrEnum):
    """What `GET /alerts` and the table `alerts` call it."""

    ACTOR_AWAY = "ActorAway"


EXPLAINED: Mapping[ActorCode, Explanation] = {
    ActorCode.ACTOR_AWAY: Explanation(
        "an actor does not answer, so that what it knows is not told here",
        "nothing, if it is back within a minute: Ray starts it again and it goes on; else see its "
        "log in HOME/logs and `alphapulse doctor`",
    ),
}


@dataclass(frozen=True, slots=True)
class Away:
    """That an actor did not answer: instead of its answer.

    Attributes:
        actor: its name.
        reason: what came instead.
    """

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person must know now.

    Attributes:
        alerts: each with what to do about it; that an actor is away is one of them.
        away: names of the actors of which nothing else is told, for they did not answer.
    """

    alerts: tuple[Alert, ...]
    away: frozenset[str]


async def ask(
    actor: cluster.ActorProxy, answer: Awaitable[_T], *, patience_s: float = PATIENCE_S
) -> _T | Away:
    """Return the answer of an actor, or that it is away: failing, being replaced or hung."""
    try:
        return await asyncio.wait_for(answer, patience_s)
    except TimeoutError:
        return Away(actor.name, f"expected an answer within {patience_s:g} s, was none")
    except AlphaPulseError as error:
        return Away(actor.name, str(error))


async def standing(
    trader: cluster.Trader,
    market: cluster.MarketData,
    history: cluster.History,
    settings: Settings,
) -> Standing:
    """Return what the actors that answer say, and which do not.

    Alerts bear the newest decision instant [ns UTC], 0 while the trader does not say it.
    """
    risk, snapshot, store, records = await asyncio.gather(
        ask(trader, trader.view("risk")),
        ask(market, market.view("snapshot")),
        ask(history, history.counters()),
        ask(trader, trader.view("records")),
    )
    event_ns: int = 0 if isinstance(risk, Away) else risk["event_ns"]
    silent = [answer for answer in (risk, snapshot, store, records) if isinstance(answer, Away)]
    away = {answer.actor: answer.reason for answer in silent}
    return Standing(
        (
            *([] if isinstance(risk, Away) else trading_alerts(risk)),
            *_of_feed(snapshot, settings, event_ns),
            *([] if isinstance(store, Away) else store_alerts(store, event_ns=event_ns)),
            *([] if isinstance(records, Away) else record_alerts(records, event_ns=event_ns)),
            *_of_away(away, event_ns),
        ),
        frozenset(away),
    )


def _of_feed(snapshot: Any, settings: Settings, event_ns: int) -> list[Alert]:
    if isinstance(snapshot, Away):
        return []
    return feed_alerts(snapshot, settings.feed, event_ns=event_ns)


def _of_away(away: Mapping[str, str], event_ns: int) -> list[Alert]:
    if not away:
        return []
    code = ActorCode.ACTOR_AWAY
    reasons = "; ".join(f"{actor}: {reason}" for actor, reason in sorted(away.items()))
    told = f"{', '.join(sorted(away))}: {EXPLAINED[code].cause} ({reasons})"
    return [Alert(code, told, EXPLAINED[code].remedy, event_ns)]


class Watch:
    """Logs and keeps each alert once, when it begins; one that ended may begin again.

    That an actor is away is told from when all have answered: until then they are being started.
    """

    def __init__(
        self,
        run: str,
        settings: Settings,
        *,
        trader: cluster.Trader,
        market: cluster.MarketData,
        history: cluster.History,
    ) -> None:
        self._run = run
        self._settings = settings
        self._trader, self._market, self._history = trader, market, history
        self._standing: set[str] = set()  # codes
        self._unkept: deque[dict[str, Any]] = deque(maxlen=MAX_UNKEPT)
        self._event_ns = 0  # newest decision instant that was told
        self._has_begun = False

    async def look(self) -> list[Alert]:
        """Return the alerts that began since the last look, logged and kept in the history.

        Raises AlphaPulseError if the history does not keep them: the next look does.
        """
        now = await standing(self._trader, self._market, self._history, self._settings)
        self._has_begun = self._has_begun or not now.away
        self._event_ns = max([self._event_ns, *(alert.event_ns for alert in now.alerts)])
        found = {
            alert.code: alert if alert.event_ns else replace(alert, event_ns=self._event_ns)
            for alert in now.alerts
            if self._has_begun or alert.code != ActorCode.ACTOR_AWAY
        }
        begun = [alert for code, alert in found.items() if code not in self._standing]
        # what an actor told that is away now may hold still
        self._standing = set(found) | (self._standing if now.away else set())
        for alert in begun:
            log.warning("alert", code=alert.code, reason=alert.message, remedy=alert.remedy)
            self._unkept.append(alert_row(alert, self._run))
        if self._unkept:
            await self._history.note("alerts", list(self._unkept))
            self._unkept.clear()
        return begun
