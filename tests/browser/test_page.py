"""Does a real browser show charts, sliders and tables, and reach the API when a person acts?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.browser import SHOWN_MS, open_page, press, text_of, wait_until_drawn
from tests.unit.dashboard.api import Api

pytestmark = pytest.mark.slow
ODD = "5 > 4 :red[x] *y* $1 and $2 <b>bold</b> `z` a_b_c ~~d~~ # e --flag"  # Markdown to be shown


def wait_for(claim: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_person_sees_the_cluster_and_steers_it(page_url: str, api: Api) -> None:
    api.answers["/errors"][0]["message"] = ODD

    with open_page(page_url) as page:
        wait_until_drawn(page)
        expect(page.locator(".js-plotly-plot")).to_have_count(8)
        for label in ("entry threshold", "exit threshold"):
            expect(page.get_by_role("slider", name=label)).to_be_visible()
        expect(page.get_by_test_id("stTable").first).to_be_visible()
        expect(page.get_by_test_id("stMetric")).to_have_count(6)
        text = text_of(page)
        for part in ("run 1", "61,828.25", "10,003.45", "high 2,691.05", "e-value 31.7 ≥ 20", ODD):
            assert part in text
        assert api.commands == [], "a command without a person"

        press(page, "entry threshold", "ArrowRight")
        wait_for(lambda: bool(api.commands))
        assert api.commands == [("PUT", "/thresholds", {"entry": 0.61, "exit": 0.5})]
        expect(page.get_by_text("in force: enter at 0.61, exit at 0.50")).to_be_visible()

        page.get_by_role("button", name="stop training").click()
        expect(page.get_by_role("button", name="start training")).to_be_visible()

        page.get_by_label("reason").fill("bad news")
        page.get_by_role("button", name="halt trading").click()
        expect(page.get_by_role("alert").filter(has_text="Trading is halted")).to_be_visible()
        assert api.commands[-1] == ("POST", "/halt", {"reason": "bad news"})


def test_live_parts_go_on_by_themselves(page_url: str, api: Api) -> None:
    with open_page(page_url) as page:
        wait_until_drawn(page)

        api.answers["/snapshot"]["symbols"]["ETH/USDT"]["price"] = 2719.5
        api.answers["/snapshot"]["event_at"] = "2024-08-08T23:57:01Z"

        expect(page.get_by_text("2,719.50")).to_be_visible(timeout=10_000)
        expect(page.get_by_text("2024-08-08 23:57:01")).to_be_visible()


def test_page_tells_when_the_api_goes_and_comes_back(page_url: str, api: Api) -> None:
    with open_page(page_url) as page:
        wait_until_drawn(page)

        api.stop()
        banner = page.get_by_role("alert").filter(
            has_text=re.compile(r"API unreachable since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
        )
        expect(banner).to_be_visible(timeout=SHOWN_MS)
        expect(page.get_by_text("equity · stale")).to_be_visible()
        expect(page.locator(".js-plotly-plot").first).to_be_visible()

        api.start()
        expect(banner).to_be_hidden(timeout=SHOWN_MS)


def test_closed_page_asks_for_nothing_any_more(page_url: str, api: Api) -> None:
    with open_page(page_url) as page:
        wait_until_drawn(page)
    time.sleep(3)  # what was under way ends
    api.requests.clear()

    time.sleep(4)

    assert api.requests == []
    assert {row["state"] for row in api.answers["/processes"]} == {"running"}
