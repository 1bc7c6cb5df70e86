"""The routes of the history answer in pages, and say of every wrong question what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from alphapulse.config import Settings, Storage
from alphapulse.domain.inference import Prediction
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from serve_apps.doors import Doors, open_doors
from serve_apps.problems import answer_faults
from serve_apps.routes import inference
from tests.unit.storage.records import SYMBOLS, instant, note, outcome, record
from tests.unit.storage.test_history import start

NUM = 12  # seconds
Get = Callable[..., Any]


class HistoryHere:
    """The history of a run as its actor answers for it, in this process."""

    def __init__(self, history: InferenceHistory) -> None:
        self._history = history

    async def query(self, query: Query) -> Any:
        """Return the rows asked for."""
        return await self._history.query(query)

    async def last(self, model: str | None = None) -> Mapping[str, tuple[Prediction, ...]]:
        """Return by symbol what was said last."""
        return {symbol: await self._history.last(symbol, model=model) for symbol in SYMBOLS}

    async def show(self, id: str) -> Mapping[str, Any] | None:
        """Return all about an inference."""
        shown = await self._history.show(id)
        return None if shown is None else shown.as_dict()


@pytest.fixture
def get(tmp_path: Path) -> Iterator[Get]:
    """Return a function that asks a route and returns its answer, of the status expected."""
    home, settings = Home(tmp_path), Settings()
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())
    for second in range(NUM):
        asyncio.run(history.append([record(second, symbol=s, run=run.id) for s in SYMBOLS]))
    asyncio.run(history.settle([outcome(second, "1m", run=run.id) for second in range(NUM)]))
    asyncio.run(history.note("examples", [note("examples", 0, run=run.id)]))
    doors: Any = Doors(
        home=home,
        token=home.token(),
        run={"id": run.id},
        settings=settings,
        history=HistoryHere(history),  # type: ignore[arg-type]
        **dict.fromkeys(
            ("models", "market", "trader", "feedback", "control", "registry", "rounds")
        ),  # type: ignore[arg-type]
    )
    api = FastAPI()
    answer_faults(api)
    api.include_router(inference.router)
    open_doors(doors)
    headers = {"Authorization": f"Bearer {home.token()}"}

    async def request(path: str, asked: dict[str, Any]) -> httpx.Response:
        way = httpx.ASGITransport(app=api, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=way, base_url="http://here", headers=headers
        ) as http:
            return await http.get(path, params=asked)

    def ask(path: str, *, status: int = 200, **asked: Any) -> Any:
        answer = asyncio.run(request(path, asked))
        assert answer.status_code == status, answer.text
        return answer.json()

    yield ask
    history.close()


def test_pages_lead_from_the_newest_rows_to_the_oldest(get: Get) -> None:
    page = get("/inferences", limit=20)
    ids, num_pages = [row["id"] for row in page["rows"]], 1
    assert page["rows"][-1]["event_ns"] == instant(NUM - 1)
    while page["next"] and num_pages < NUM:
        page = get("/inferences", limit=20, after=page["next"])
        ids, num_pages = [row["id"] for row in page["rows"]] + ids, num_pages + 1

    assert len(set(ids)) == len(ids) == NUM * 6
    assert num_pages == 4
    assert get("/inferences", limit=1000)["next"] is None


@pytest.mark.parametrize(
    ("path", "asked", "num"),
    [
        ("/inferences", {"model": "cnn", "symbol": "BTC/USDT"}, NUM),
        ("/inferences", {"action": "hold", "model": "moe"}, 2 * NUM),
        ("/inferences", {"decision": "sell"}, 0),
        ("/inferences", {"timeframe": "1m"}, 2 * NUM),
        ("/inferences", {"run": "another"}, 0),
        ("/inferences", {"min_confidence": 0.3, "model": "rl"}, 0),
        ("/inferences", {"from_ns": instant(3), "to_ns": instant(5)}, 12),
        ("/predictions", {"timeframe": "1h", "max_confidence": 0.5}, 2 * NUM),
        ("/predictions", {"outcome": "hit", "timeframe": "1m"}, NUM),
        ("/outcomes", {"timeframe": "1m"}, NUM),
        ("/outcomes", {"action": "buy"}, 0),
        ("/examples", {"symbol": "ETH/USDT"}, 1),
    ],
)
def test_routes_find_what_is_asked_for(
    get: Get, path: str, asked: dict[str, Any], num: int
) -> None:
    page = get(path, limit=1000, **asked)

    assert (len(page["rows"]), page["next"]) == (num, None)


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/inferences", {"sybol": "ETH/USDT"}, "sybol"),
        ("/inferences", {"symbol": "DOGE/USDT"}, "symbol: expected one of ETH/USDT, BTC/USDT"),
        ("/inferences", {"model": "gpt"}, "model"),
        ("/inferences", {"action": "short"}, "action"),
        ("/inferences", {"limit": 0}, "limit"),
        ("/inferences", {"limit": 10_001}, "limit"),
        ("/inferences", {"min_confidence": 2}, "min_confidence"),
        ("/inferences", {"min_confidence": 0.9, "max_confidence": 0.1}, "swap or widen them"),
        ("/inferences", {"timeframe": "1m", "action": "buy"}, "predictions have none"),
        ("/inferences", {"after": "word"}, "expected the `next` of a page of inferences"),
        ("/inferences", {"from_ns": 5, "to_ns": 4}, "expected at most to_ns"),
        ("/outcomes", {"outcome": "hit"}, "outcome"),
        ("/inferences/last", {"symbol": "DOGE/USDT"}, "symbol: expected one of"),
    ],
)
def test_wrong_question_is_a_problem_that_says_what_was_expected(
    get: Get, path: str, asked: dict[str, Any], said: str
) -> None:
    problem = get(path, status=422, **asked)

    assert {"code", "expected", "came", "remedy"} <= set(problem)
    assert problem["code"] == "InvalidRequest"
    assert said in problem["detail"]


def test_page_of_another_table_is_refused(get: Get) -> None:
    cursor = get("/predictions", limit=1)["next"]

    problem = get("/outcomes", status=422, after=cursor)

    assert "expected the `next` of a page of outcomes" in problem["came"]


def test_last_is_what_every_model_said_last(get: Get) -> None:
    every = get("/inferences/last")
    (one,) = get("/inferences/last", symbol="ETH/USDT", model="cnn")

    assert [(row["symbol"], row["model"]) for row in every] == [
        (symbol, model) for symbol in SYMBOLS for model in ("rl", "cnn", "moe")
    ]
    assert {row["event_ns"] for row in every} == {instant(NUM - 1)}
    assert [f["timeframe"] for f in one["forecasts"]] == ["1s", "1m", "1h", "1d"]
    assert one["id"] in [row["id"] for row in get("/inferences", model="cnn", limit=2)["rows"]]


def test_one_inference_is_told_as_a_whole(get: Get) -> None:
    id_ = get("/inferences", symbol="ETH/USDT", model="cnn", outcome="pending")["rows"][-1]["id"]

    shown = get(f"/inferences/{id_}")

    assert shown["inference"]["id"] == id_
    assert len(shown["inference"]["hidden"]) == 48
    assert len(shown["forecasts"]) == 4
    assert [row["timeframe"] for row in shown["outcomes"]] == ["1m"]
    assert (shown["example"], shown["orders"]) == (None, [])
    assert not shown["input"]["is_whole"]  # records made by hand refer to rows that are not there
    assert "expected input layout 2, was 1" in shown["input"]["problem"]


def test_unknown_inference_is_not_found(get: Get) -> None:
    problem = get("/inferences/" + "ab" * 16, status=404)

    assert (problem["code"], problem["expected"]) == ("NotFound", "the id of a stored inference")
