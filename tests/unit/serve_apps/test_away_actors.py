"""While an actor is away, alerts and metrics tell what the others know, and which one it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from alphapulse import cluster
from alphapulse.config import Settings
from alphapulse.storage.home import Home
from serve_apps.doors import Doors, open_doors
from serve_apps.problems import answer_faults
from serve_apps.routes import alerts, metrics
from tests.unit.serve_apps.actors import GONE, actors

TOLD = {  # code of what each actor tells, and a metric of it
    cluster.TRADER: ("TradingHalted", "alphapulse_decisions_total"),
    cluster.MARKET_DATA: ("FeedDown", ""),
    cluster.INFERENCE_HISTORY: ("LakeBehind", "alphapulse_history_appended_total"),
    cluster.FEEDBACK: ("", ""),
}
Get = Callable[[str], httpx.Response]


@pytest.fixture
def here() -> dict[str, Any]:
    return actors()


@pytest.fixture
def get(tmp_path: Path, here: dict[str, Any]) -> Iterator[Get]:
    """Return a function that asks a route of a door with the actors `here` behind it."""
    home = Home(tmp_path)
    doors: Any = Doors(
        home=home,
        token=home.token(),
        run={"id": "r"},
        settings=Settings(),
        trader=here[cluster.TRADER],
        market=here[cluster.MARKET_DATA],
        history=here[cluster.INFERENCE_HISTORY],
        feedback=here[cluster.FEEDBACK],
        **dict.fromkeys(("models", "control", "registry", "rounds")),  # type: ignore[arg-type]
    )
    api = FastAPI()
    answer_faults(api)
    api.include_router(alerts.router)
    api.include_router(metrics.router)
    open_doors(doors)

    async def request(path: str) -> httpx.Response:
        way = httpx.ASGITransport(app=api, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {home.token()}"}
        async with httpx.AsyncClient(transport=way, base_url="http://x", headers=headers) as http:
            return await http.get(path)

    return lambda path: asyncio.run(request(path))


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("away", [None, *cluster.ACTORS])
def test_alerts_of_the_others_are_told_and_who_is_away(
    here: dict[str, Any], get: Get, away: str | None
) -> None:
    if away:
        here[away].away = GONE

    answer = get("/alerts")

    told = {alert["code"]: alert for alert in answer.json()}
    expected = {code for actor, (code, _) in TOLD.items() if code and actor != away}
    is_asked = away not in (None, cluster.FEEDBACK)
    assert answer.status_code == 200
    assert set(told) == expected | ({"ActorAway"} if is_asked else set())
    if is_asked:
        assert told["ActorAway"]["message"].startswith(f"{away}: an actor does not answer")
        assert "alphapulse doctor" in told["ActorAway"]["remedy"]


@pytest.mark.parametrize("away", [None, *cluster.ACTORS])
def test_metrics_of_the_others_are_told_and_who_is_away(
    here: dict[str, Any], get: Get, away: str | None
) -> None:
    if away:
        here[away].away = GONE

    answer = get("/metrics")

    told = samples(answer.text)
    names = {name for name, *_ in told}
    assert answer.status_code == 200
    for actor, (code, metric) in TOLD.items():
        assert told["alphapulse_up", actor] == (actor != away)
        assert not metric or (metric in names) is (actor != away)
        assert not code or (("alphapulse_alert", code) in told) is (actor != away)
