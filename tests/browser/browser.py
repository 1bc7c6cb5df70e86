"""Look at the monitor's page as a person does: a browser without a screen, and what it shows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import ConsoleMessage, Page, Request, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WIDTH, HEIGHT = 1400, 900  # [px]
SHOWN_MS = 60_000  # how long a part may take to be there on a busy machine


@contextmanager
def open_page(url: str) -> Iterator[Page]:
    """Yield the page at `url`; fail if it loaded anything from elsewhere or wrote an error."""
    elsewhere: list[str] = []
    errors: list[str] = []

    def on_request(request: Request) -> None:
        if not request.url.startswith((url, url.replace("http", "ws"), "data:", "blob:")):
            elsewhere.append(request.url)

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(SHOWN_MS)
        page.goto(url)
        yield page
        browser.close()
    assert elsewhere == [], "the page loads nothing from elsewhere"
    assert errors == []


def wait_until_drawn(page: Page) -> None:
    """Return once the charts of four timeframes are there."""
    expect(page.locator(".js-plotly-plot").nth(3)).to_be_visible(timeout=SHOWN_MS)


def wait_until_served(url: str, child: subprocess.Popen[bytes], limit_s: float = 60.0) -> None:
    """Return once the page's process answers; fail if it ends or takes too long."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        assert child.poll() is None, f"the page ended with {child.returncode}"
        try:
            if httpx.get(f"{url}/_stcore/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{url}: expected an answer within {limit_s:.0f} s")


def press(page: Page, slider: str, key: str) -> None:
    """Press a key on the slider with this label."""
    page.get_by_role("slider", name=slider).press(key)


def text_of(page: Page) -> str:
    """Return everything that is written on the page."""
    return page.locator("body").inner_text()
