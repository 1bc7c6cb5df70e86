"""What people do to a running cluster: promote and go back, stop and start, look, submit jobs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from alphapulse.config import load_settings
from alphapulse.domain.market import SECOND_NS
from alphapulse.models.checkpoints import Entry, Registry, directory_of
from alphapulse.models.cnn import CNN
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.browser.browser import open_page, press, wait_until_drawn
from tests.cluster.conftest import UpProcess, num_decisions
from tests.cluster.rows import rows_of

SYMBOLS = ("BTC/USDT", "ETH/USDT")
ROUTES = (
    *("health", "ready", "status", "snapshot", "thresholds", "processes", "processes/audit"),
    *("orders", "fills", "equity", "positions", "risk", "alerts", "errors", "config"),
    *("models", "training", "outcomes", "accuracy", "decisions", "inferences", "metrics"),
)
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def live(
    new_home: Callable[[str], Path], start_up: Callable[..., UpProcess]
) -> Iterator[UpProcess]:
    """A run at the pace of the market, with its page; it ends without an error."""
    up = start_up(new_home("live"), "--speed", "1.5", dashboard=True)
    up.wait_until(lambda trader: num_decisions(trader) >= 4)
    yield up
    assert up.alphapulse("down")["ended"] is True
    code, summary, err = up.end()
    assert (code, summary["errors"]) == (0, 0), err
    assert up.alphapulse("status")["state"] == "stopped"


class Callers:
    """People who keep asking for decisions, and what they were answered."""

    def __init__(self, up: UpProcess) -> None:
        self._up = up
        self._done = threading.Event()
        self.answered: list[int] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._done.is_set():
            answer = self._up.request("POST", "decide", json={"symbol": "ETH/USDT"})
            self.answered.append(answer.status_code)

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def planted_challenger(home: Path) -> str:
    """Save and register a CNN that was never trained; return its id."""
    model = CNN.fresh(seed=3, cost_bps=10.0)
    id = model.save(directory_of(home, model="cnn", id=model.version))
    Registry(home / "registry.sqlite").register(
        Entry(id, "cnn", "challenger", "planted", "planted", 0, {})
    )
    return id


async def rebuilt(home: Path, inference_id: str) -> Any:
    history = InferenceHistory(Home(home), settings=load_settings(home, environ={}).storage)
    try:
        return await history.rebuild(inference_id)
    finally:
        history.close()


def test_people_use_the_api_with_the_token_and_are_told_what_is_wrong(live: UpProcess) -> None:
    assert live.get("ping", token=False).json() == {"status": "ok"}
    for path in ROUTES:
        assert live.get(path, token=False).status_code == 401, path
        assert live.get(path).status_code == 200, (path, live.get(path).text)
    for symbol in SYMBOLS:
        for timeframe in ("1s", "1m", "1h", "1d"):
            asked = f"symbol={symbol}&timeframe={timeframe}"
            assert live.get(f"candles?{asked}&count=10").status_code == 200
            pivots = live.get(f"pivots?{asked}&count=5")
            assert pivots.status_code == 200
            assert len(pivots.json()) <= 5
        assert live.get(f"book?symbol={symbol}").status_code == 200
        decided = live.request("POST", "decide", json={"symbol": symbol})
        assert decided.json()["action"] in ("buy", "sell", "hold"), decided.text
    assert len(live.get("decisions?symbol=ETH/USDT&limit=2").json()) == 2
    page = live.get("inferences?model=cnn&timeframe=1m&limit=3").json()
    assert len(page["rows"]) == 3
    before = live.get(f"inferences?model=cnn&timeframe=1m&limit=3&after={page['next']}").json()
    assert before["rows"][-1]["event_ns"] <= page["rows"][0]["event_ns"]
    said = live.get("inferences/last?model=moe&symbol=ETH/USDT")
    assert said.status_code == 200, said.text
    (last,) = said.json()
    shown = live.get(f"inferences/{last['id']}").json()
    assert (shown["inference"]["id"], shown["input"]["is_whole"]) == (last["id"], True)
    assert shown["input"]["shapes"]["bars_SFTC"] == [2, 4, 300, 32]
    assert live.get("inferences/00").status_code == 404

    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(live.get("metrics").text)
        for sample in family.samples
    }
    stored = live.get("status").json()["store"]
    assert told["alphapulse_decisions_total", "hold", "ETH/USDT"] > 0
    assert 0 < told["alphapulse_history_appended_total",] <= stored["appended"]
    assert told["alphapulse_history_journal_bytes",] > 0
    assert told["alphapulse_records_lost_total",] == 0

    refused = live.get("candles?symbol=DOGE/USDT&timeframe=1m")
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert {"code", "expected", "came", "remedy"} <= set(refused.json())
    assert live.request("PUT", "thresholds", json={"entry": 0.1, "exit": 0.9}).status_code == 422
    assert live.request("POST", "resume", json={"reason": "nothing"}).status_code == 422

    new = live.request("PUT", "thresholds", json={"entry": 0.0, "exit": 0.0})
    assert new.json() == {"entry": 0.0, "exit": 0.0}
    made = num_decisions(live.get("status").json()["trader"])
    live.wait_until(lambda trader: num_decisions(trader) >= made + 4)
    newest = live.get("decisions?limit=2").json()
    assert all(row["entry_threshold"] == 0.0 for row in newest)

    again = UpProcess(live.home, Path(live.command[3]))
    code, answer, err = again.end()
    assert code == 1
    assert "HomeInUse" in err
    assert answer["error"] == "HomeInUse"
    assert live.alphapulse("status")["state"] == "running"


def test_promotion_answers_the_next_decision_and_the_way_back_is_bit_identical(
    live: UpProcess,
) -> None:
    challenger = planted_challenger(live.home)
    champion = live.get("models").json()["live"]["cnn"]
    callers = Callers(live)
    promoted = live.alphapulse("models", "promote", challenger, "--reason", "planted by a test")
    live.wait_until(lambda trader: trader["to_ns"] > promoted["event_ns"] + 3 * SECOND_NS)
    back = live.alphapulse("models", "rollback", "cnn", "--reason", "it was planted")
    live.wait_until(lambda trader: trader["to_ns"] > back["event_ns"] + 3 * SECOND_NS)
    callers.stop()

    assert len(callers.answered) >= 10
    assert set(callers.answered) == {200}
    rows = rows_of(live.home)
    cnn = rows[rows["model"] == "cnn"]
    between = (cnn["event_ns"] >= promoted["event_ns"]) & (cnn["event_ns"] < back["event_ns"])
    assert between.sum() >= 4
    assert (cnn["version"] == np.where(between, challenger, champion)).all()
    assert (back["checkpoint"], back["before"]) == (champion, challenger)
    steps = np.diff(np.unique(cnn["event_ns"]))
    assert (steps == SECOND_NS).all(), "a decision was lost"
    model = CNN.load(directory_of(live.home, model="cnn", id=champion))
    for _, row in cnn[cnn["event_ns"] >= back["event_ns"]].head(3).iterrows():
        again = model.predict(asyncio.run(rebuilt(live.home, row["id"])), upstream={})
        assert again.hidden_H.tobytes() == row["hidden"]
        assert (again.p_buy, again.p_sell, again.confidence) == tuple(
            row[["p_buy", "p_sell", "confidence"]]
        )
    listed = {m["id"]: m for m in live.alphapulse("models", "list")["models"]}
    assert (listed[champion]["answers"], listed[challenger]["answers"]) == (True, False)


def test_checkpoint_that_does_not_exist_is_refused_and_decisions_go_on(live: UpProcess) -> None:
    body = {"model": "cnn", "reason": "a typo"}

    refused = live.request("POST", "models/0123456789abcdef/promote", json=body)
    rl = live.get("models").json()["live"]["rl"]
    foreign = live.request("POST", f"models/{rl}/promote", json=body)

    assert refused.status_code == 422, refused.text
    assert foreign.status_code == 422, foreign.text
    made = num_decisions(live.get("status").json()["trader"])
    live.wait_until(lambda trader: num_decisions(trader) >= made + 2)


def test_processes_stop_and_start_once_however_often_asked(live: UpProcess) -> None:
    def wish(name: str, action: str) -> dict[str, Any]:
        answer: dict[str, Any] = live.request("POST", f"processes/{name}/{action}").json()
        return answer

    stopped = [wish("feed", "stop")["changed"] for _ in range(2)]
    time.sleep(2)  # the decision in flight
    made = num_decisions(live.get("status").json()["trader"])
    time.sleep(3)
    assert num_decisions(live.get("status").json()["trader"]) == made
    started = [wish("feed", "start")["changed"] for _ in range(2)]
    live.wait_until(lambda trader: num_decisions(trader) > made)

    assert (stopped, started) == ([True, False], [True, False])
    audit = [(r["action"], r["changed"]) for r in live.get("processes/audit?limit=4").json()]
    assert audit == [("start", False), ("start", True), ("stop", False), ("stop", True)]
    assert live.request("POST", "processes/tradr/stop").status_code == 422
    assert live.request("POST", "processes/training/start").status_code == 422, "--no-training"
    states = {r["name"]: r["state"] for r in live.get("processes").json() if r["kind"] == "process"}
    assert states == {
        **dict.fromkeys(("feed", "trader", "settlement", "dashboard"), "running"),
        "training": "off",
    }
    wish("dashboard", "stop")
    wait_for(lambda: not live.pages)
    wish("dashboard", "start")
    wait_for(lambda: len(live.pages) == 1)


def test_slider_moved_in_the_browser_changes_the_next_decision(live: UpProcess) -> None:
    before = live.get("thresholds").json()["entry"]

    with open_page(f"http://127.0.0.1:{live.page_port}") as page:
        wait_until_drawn(page)
        for _ in range(3):
            press(page, "entry threshold", "ArrowRight")
        wait_for(lambda: live.get("thresholds").json()["entry"] > before)

    entry = live.get("thresholds").json()["entry"]
    made = num_decisions(live.get("status").json()["trader"])
    live.wait_until(lambda trader: num_decisions(trader) >= made + 4)
    newest = live.get("decisions?limit=2").json()
    assert [row["entry_threshold"] for row in newest] == [entry, entry]


def test_killed_replica_leaves_the_others_and_comes_back(live: UpProcess) -> None:
    def pids() -> dict[str, int]:
        rows = live.get("processes").json()
        return {row["name"]: row["pid"] for row in rows if row["kind"] != "process"}

    before = pids()
    assert len({before["cnn"], before["rl"], before["moe"]}) == 3

    os.kill(before["cnn"], 9)
    made = num_decisions(live.get("status").json()["trader"])
    live.wait_until(lambda trader: num_decisions(trader) >= made + 6)

    after = pids()
    assert after["cnn"] != before["cnn"]
    assert {n: p for n, p in after.items() if n != "cnn"} == {
        n: p for n, p in before.items() if n != "cnn"
    }


def test_training_and_sweep_run_as_jobs_of_the_cluster(live: UpProcess) -> None:
    live.wait_for(lambda status: status["settlement"]["examples"] >= 70, within_s=300)

    trained = live.alphapulse("train", "cnn")
    swept = live.alphapulse("sweep", "cnn", "--trials", "4")

    assert trained["state"] in ("promoted", "rejected"), trained
    assert len(swept["trials"]) == 4, swept


def wait_for(claim: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)
