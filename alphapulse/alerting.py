"""Collect what a person must know now from every room, and keep each alert when it begins."""

from __future__ import annotations

import asyncio

from alphapulse import cluster
from alphapulse.config import Settings
from alphapulse.data.alerts import feed_alerts
from alphapulse.domain.status import Alert
from alphapulse.logs import get_logger
from alphapulse.risk.alerts import trading_alerts
from alphapulse.storage.alerts import record_alerts, store_alerts
from alphapulse.storage.notes import alert_row

log = get_logger("alerts")


async def standing(
    trader: cluster.Trader,
    market: cluster.MarketData,
    history: cluster.History,
    settings: Settings,
) -> list[Alert]:
    """Return what a person must know now, each with what to do about it.

    Raises Unavailable if an actor does not answer.
    """
    risk, snapshot, store, records = await asyncio.gather(
        trader.view("risk"), market.view("snapshot"), history.counters(), trader.view("records")
    )
    event_ns = risk["event_ns"]
    return [
        *trading_alerts(risk),
        *feed_alerts(snapshot, settings.feed, event_ns=event_ns),
        *store_alerts(store, event_ns=event_ns),
        *record_alerts(records, event_ns=event_ns),
    ]


class Watch:
    """Logs and keeps each alert once, when it begins; one that ended may begin again."""

    def __init__(self, run: str, settings: Settings) -> None:
        self._run = run
        self._settings = settings
        self._standing: set[str] = set()  # codes

    async def look(self) -> list[Alert]:
        """Return the alerts that began since the last look, kept in the history.

        Raises AlphaPulseError if an actor or the store does not answer: the next look tells them.
        """
        trader, market, history = cluster.Trader(), cluster.MarketData(), cluster.History()
        found = {a.code: a for a in await standing(trader, market, history, self._settings)}
        begun = [alert for code, alert in found.items() if code not in self._standing]
        if begun:
            await history.note("alerts", [alert_row(alert, self._run) for alert in begun])
        for alert in begun:
            log.warning("alert", code=alert.code, reason=alert.message, remedy=alert.remedy)
        self._standing = set(found)
        return begun
