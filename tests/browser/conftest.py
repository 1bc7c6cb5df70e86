"""Serve the page to a real browser, from an API on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse.dashboard.launch import command, environment
from tests.browser.browser import CHROMIUM, wait_until_served
from tests.unit.dashboard.api import TOKEN, Api, running_api


@pytest.fixture(autouse=True)
def _chromium() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM}")


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api() as running:
        yield running


@pytest.fixture
def page_url(api: Api, tmp_path: Path) -> Iterator[str]:
    """Yield the address of a page that runs as a child, as `alphapulse up` starts it."""
    (tmp_path / "token").write_text(TOKEN)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "monitor.log").open("wb") as out:
        child = subprocess.Popen(
            command(tmp_path, api.url, "127.0.0.1", port),
            env=environment(tmp_path, api.url, os.environ),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_served(f"http://127.0.0.1:{port}", child)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(10)
    assert "Traceback" not in (tmp_path / "monitor.log").read_text()
