"""Bring the inference history of a stopped home within its limits."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from alphapulse.commands.options import DEFAULT_HOME, HomeOption, JsonOption
from alphapulse.commands.printing import print_answer


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would leave, and touch nothing.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Archive and remove what the limits of `storage` ask for, while no `up` is running."""
    found = importlib.import_module("alphapulse.client").prune_history(home, dry_run=dry_run)
    print_answer(found, as_json)
