"""Is the page started so that it listens where it was told, says nothing home, hides the token?"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit.config

from alphapulse.dashboard.launch import APP, OPTIONS, command, environment

HOME = Path("/somewhere/home")
API = "http://127.0.0.1:8000/api/v1"


def test_command_serves_the_page_on_the_address_it_was_given() -> None:
    made = command(HOME, API, "127.0.0.1", 8501)

    assert made[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert made[4] == str(APP)
    assert APP.is_file()
    assert "--server.address=127.0.0.1" in made
    assert "--server.port=8501" in made


def test_command_reports_nothing_to_anybody_and_opens_no_browser() -> None:
    made = command(HOME, API, "127.0.0.1", 8501)

    assert "--browser.gatherUsageStats=false" in made
    assert "--server.headless=true" in made


def test_every_option_is_one_streamlit_knows() -> None:
    assert set(OPTIONS) <= set(streamlit.config.get_config_options())


def test_token_is_in_neither_command_nor_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-of-the-home")

    said = [*command(tmp_path, API, "::1", 1), *environment(tmp_path, API, {}).values()]

    assert not any("secret-of-the-home" in word for word in said)


def test_environment_adds_api_and_home_to_that_of_the_parent() -> None:
    made = environment(HOME, API, {"PATH": "/bin"})

    assert made == {"PATH": "/bin", "ALPHAPULSE_HOME": str(HOME), "ALPHAPULSE_API": API}
