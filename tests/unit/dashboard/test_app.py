"""Does the whole page draw, tell gone from stale from live, and send what a person asks for?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from alphapulse.dashboard.client import STILL_S
from alphapulse.dashboard.launch import APP
from tests.unit.dashboard.api import TOKEN, Api
from tests.unit.dashboard.canvas import as_seen


@pytest.fixture
def page(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("ALPHAPULSE_API", api.url)
    monkeypatch.setenv("ALPHAPULSE_HOME", str(tmp_path))
    yield AppTest.from_file(str(APP), default_timeout=30)
    st.cache_resource.clear()


def texts(page: AppTest, kind: str) -> list[str]:
    return [as_seen(element.value) for element in page.get(kind)]


def test_page_shows_every_part_of_a_running_cluster(page: AppTest) -> None:
    page.run()

    assert not page.exception
    assert {metric.label for metric in page.metric} == {
        "ETH/USDT", "BTC/USDT", "equity", "net result", "drawdown", "exposure",
    }  # fmt: skip
    heads = [text for text in texts(page, "markdown") if text.startswith("#")]
    for title in ("Thresholds", "Trading", "Processes", "Order book", "Decisions", "Equity",
                  "Risk", "Orders", "Fills", "Training", "Accuracy", "Errors"):  # fmt: skip
        assert f"##### {title}" in heads
    assert len(page.get("plotly_chart")) == 4 + 1 + 2 + 1
    assert [slider.label for slider in page.slider] == ["entry threshold", "exit threshold"]
    assert texts(page, "error") == []


def test_unreachable_api_is_said_with_since_when(page: AppTest, api: Api) -> None:
    api.stop()

    page.run()

    assert not page.exception
    (banner,) = texts(page, "error")
    assert "API unreachable since 2" in banner
    assert "nothing was ever received" in banner
    assert len(page.metric) == 0


def test_data_of_an_api_that_went_away_stays_and_is_marked(page: AppTest, api: Api) -> None:
    page.run()
    api.stop()
    time.sleep(1.05)  # until the page asks again

    page.run()

    (banner,) = texts(page, "error")
    assert "unreachable since" in banner
    assert "stale" in banner
    assert page.metric[0].label == "ETH/USDT · stale"
    assert page.metric[0].value == "2,683.00"


def test_standstill_of_a_running_feed_is_marked(page: AppTest, api: Api) -> None:
    page.run()
    time.sleep(STILL_S + 0.1)

    page.run()

    assert any(re.search(r"no progress for \d+ s", text) for text in texts(page, "warning"))
    assert page.metric[0].label.endswith("· stale")


def test_empty_cluster_shows_honest_empty_states(page: AppTest, api: Api) -> None:
    for path in ("/equity", "/orders", "/fills", "/decisions", "/candles"):
        api.answers[path] = lambda **_: []
    api.answers["/inferences"] = lambda **_: {"rows": [], "next": None}
    for path in ("/positions", "/accuracy", "/errors", "/alerts"):
        api.answers[path] = []
    api.answers["/training"] = {"rounds": []}

    page.run()

    assert not page.exception
    said = texts(page, "caption")
    for text in ("no decisions yet", "no equity yet", "no open positions", "no orders yet",
                 "no fills yet", "no training rounds yet", "no answered forecasts yet",
                 "no errors logged", "1d: no candles yet"):  # fmt: skip
        assert text in said


def test_cluster_that_is_starting_shows_what_is_there(page: AppTest, api: Api) -> None:
    api.failures = dict.fromkeys(
        ("/status", "/risk", "/decisions", "/training", "/equity", "/orders", "/thresholds"), 503
    )

    page.run()

    assert not page.exception
    assert page.metric[0].value == "2,683.00"
    assert ":orange[risk: answered 503 Unavailable: /risk is not there]" in texts(page, "caption")


def test_slider_that_is_moved_reaches_the_api(page: AppTest, api: Api) -> None:
    page.run()

    page.slider(key="entry threshold").set_value(0.7).run()

    assert api.commands == [("PUT", "/thresholds", {"entry": 0.7, "exit": 0.5})]
    assert "in force: enter at 0.70, exit at 0.50" in texts(page, "caption")
    assert texts(page, "success") == ["thresholds: done (entry 0.7, exit 0.5)"]


def test_slider_that_is_refused_goes_back_and_says_why(page: AppTest, api: Api) -> None:
    page.run()

    page.slider(key="exit threshold").set_value(0.9).run()

    assert page.slider(key="exit threshold").value == 0.5
    assert texts(page, "error") == [
        "thresholds: answered 422 InvalidRequest: expected exit <= entry"
    ]


def test_page_left_alone_asks_for_nothing(page: AppTest, api: Api) -> None:
    for _ in range(3):
        page.run()

    assert api.commands == []


def test_process_is_stopped_and_started_again(page: AppTest, api: Api) -> None:
    page.run()

    page.button(key="switch training").click().run()
    assert page.button(key="switch training").label == "start training"

    page.button(key="switch training").click().run()
    assert [path for _, path, _ in api.commands] == [
        "/processes/training/stop",
        "/processes/training/start",
    ]


def test_trading_is_halted_with_a_reason_and_resumed(page: AppTest, api: Api) -> None:
    page.run()

    page.text_input(key="halt reason").set_value("bad news")
    next(button for button in page.button if button.label == "halt trading").click().run()
    assert any("Trading is halted" in text for text in texts(page, "error"))

    next(button for button in page.button if button.label == "resume trading").click().run()
    assert api.commands == [
        ("POST", "/halt", {"reason": "bad news"}),
        ("POST", "/resume", {"reason": "asked for on the monitor"}),
    ]


def test_other_symbol_is_chosen(page: AppTest, api: Api) -> None:
    page.run()
    api.requests.clear()

    page.segmented_control(key="symbol").set_value("BTC/USDT").run()

    assert {r.parameters["symbol"] for r in api.asked("/candles")} == {"BTC/USDT"}


def test_page_without_its_environment_says_how_to_start_it(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALPHAPULSE_API")

    page.run()

    (said,) = texts(page, "error")
    assert said.startswith("ALPHAPULSE_API: expected the address of the API")


def test_home_without_a_token_is_no_fault_of_the_page(
    page: AppTest, api: Api, tmp_path: Path
) -> None:
    (tmp_path / "token").unlink()

    page.run()

    assert not page.exception
    assert any("401 Unauthorized" in text for text in texts(page, "caption"))
