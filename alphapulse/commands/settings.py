"""Show the settings and check them."""

from __future__ import annotations

import importlib

from alphapulse.commands.options import DEFAULT_HOME, HomeOption, JsonOption
from alphapulse.commands.printing import print_answer


def show(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Print every setting in force."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    print_answer(settings.as_dict(), as_json)


def validate(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Check HOME/config.toml and the environment; exit code 2 names what is wrong."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    print_answer({"valid": True, "hash": settings.hash}, as_json)
