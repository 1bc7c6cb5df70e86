"""Find the recordings for every test, and name and count the tests left out without them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # machines are shared and noisy
settings.load_profile("shared")
# A run in the background may be deaf to interrupts; what tests start and interrupt must not be.
signal.signal(signal.SIGINT, signal.default_int_handler)

SPOT_2024 = "binance-spot-2024-08"
_NO_RECORDINGS = "needs the recordings (ALPHAPULSE_RECORDINGS)"
_left_out: list[str] = []


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Return the folder binance-spot-2024-08; without it the test is left out by name, or fails.

    It fails where recordings are promised: ALPHAPULSE_RECORDINGS names a folder, or
    ALPHAPULSE_REQUIRE_RECORDINGS=1 (as in .ci/run).
    """
    parent = os.environ.get("ALPHAPULSE_RECORDINGS", "")
    folder = Path(parent) / SPOT_2024
    if parent and folder.is_dir():
        return folder
    if parent or os.environ.get("ALPHAPULSE_REQUIRE_RECORDINGS") == "1":
        pytest.fail(
            f"recordings: expected a folder {SPOT_2024} in ALPHAPULSE_RECORDINGS, was "
            f"{parent or 'not set'!r}; put the recordings there or unset the variable"
        )
    pytest.skip(_NO_RECORDINGS)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember each test that was left out for lack of recordings."""
    if report.skipped and _NO_RECORDINGS in str(report.longrepr):
        _left_out.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name and count the tests left out for lack of recordings."""
    if _left_out:
        terminalreporter.section(f"{len(_left_out)} tests left out: no recordings")
        for name in _left_out:
            terminalreporter.write_line(name)
        terminalreporter.write_line(
            "Set ALPHAPULSE_RECORDINGS to the folder that holds " + SPOT_2024 + " to run them."
        )
