"""Say how the monitor's page is started: a child process that serves HTTP and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

APP = Path(__file__).with_name("app.py")
OPTIONS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # a fault of ours is logged, not printed on the page
    "theme.base": "dark",
    "theme.primaryColor": "#6ea8fe",
    "theme.backgroundColor": "#10151d",
    "theme.secondaryBackgroundColor": "#171d27",
    "theme.textColor": "#d7dce5",
    "theme.borderColor": "#252d3a",
    "theme.baseRadius": "6px",
    "theme.showWidgetBorder": "true",
}


def command(home: Path, api_url: str, host: str, port: int) -> list[str]:
    """Return the command line that serves the page on `host` and `port` until it is ended.

    `home` and `api_url` reach it by the environment, as `environment` says; the token by the file
    HOME/token, so that no list of processes shows it.
    """
    options = {"server.address": host, "server.port": str(port), **OPTIONS}
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(APP), *flags]


def environment(home: Path, api_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the page: that of the parent, and where the API and home are."""
    return {**environ, "ALPHAPULSE_HOME": str(home), "ALPHAPULSE_API": api_url}
