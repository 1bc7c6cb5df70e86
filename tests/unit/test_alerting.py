"""An alert is logged and kept once, when it begins, also where the history is away meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alphapulse import alerting, cluster
from alphapulse.alerting import Watch
from alphapulse.config import Settings
from alphapulse.domain.errors import Unavailable
from tests.unit.serve_apps.actors import EVENT_NS, GONE, HUNG, actors


def watch_of(here: dict[str, Any]) -> Watch:
    return Watch(
        "r",
        Settings(),
        trader=here[cluster.TRADER],
        market=here[cluster.MARKET_DATA],
        history=here[cluster.INFERENCE_HISTORY],
    )


def test_what_began_while_the_history_was_away_is_kept_when_it_is_back() -> None:
    here = actors()
    history, watch = here[cluster.INFERENCE_HISTORY], watch_of(here)
    asyncio.run(watch.look())
    before = [row["code"] for row in history.noted]
    history.away = GONE

    with pytest.raises(Unavailable):
        asyncio.run(watch.look())
    history.away = ""
    again = asyncio.run(watch.look())

    assert before == ["TradingHalted", "FeedDown", "LakeBehind"]
    assert again == [], "the lake was behind all the time"
    assert [row["code"] for row in history.noted[3:]] == ["ActorAway"]
    assert {row["event_ns"] for row in history.noted} == {EVENT_NS}


def test_an_alert_while_the_trader_is_away_bears_the_newest_instant_known() -> None:
    here = actors()
    watch = watch_of(here)
    asyncio.run(watch.look())
    here[cluster.TRADER].away = GONE

    (alert,) = asyncio.run(watch.look())

    assert (alert.code, alert.event_ns) == ("ActorAway", EVENT_NS)


def test_actors_that_have_not_begun_are_not_away() -> None:
    here = actors()
    watch = watch_of(here)
    here[cluster.TRADER].away = GONE

    begun = asyncio.run(watch.look())

    assert [alert.code for alert in begun] == ["FeedDown", "LakeBehind"]


def test_an_actor_that_hangs_is_away() -> None:
    here = actors()
    here[cluster.MARKET_DATA].away = HUNG
    market = here[cluster.MARKET_DATA]

    answer = asyncio.run(alerting.ask(market, market.view("snapshot"), patience_s=0.01))

    assert answer == alerting.Away(
        cluster.MARKET_DATA, "expected an answer within 0.01 s, was none"
    )
