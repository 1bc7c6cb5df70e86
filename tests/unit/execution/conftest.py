"""Send the log lines of a test to its own folder, and read them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alphapulse import logs

Logged = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Return a function that gives the lines of one event logged since the test began."""
    logs.configure(tmp_path, process="test", session="test")

    def read(event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (tmp_path / "test.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    return read
