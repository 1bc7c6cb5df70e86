"""Halt and resume trading; show orders and positions."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from alphapulse.commands.options import DEFAULT_HOME, HomeOption, JsonOption
from alphapulse.commands.printing import print_answer


def halt(
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Halt trading in the running `up`: what is open is closed, nothing is opened."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.halt(home, reason), as_json)


def resume(
    reason: Annotated[str, typer.Option(help="Why it is safe to go on; it is kept.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Clear the halt of the running `up`, or of the newest run if none is running."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.resume(home, reason), as_json)


def orders(
    limit: Annotated[int, typer.Option(min=1, help="Newest rows shown.")] = 20,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show the orders of the newest run with their fills, refused ones with the reason."""
    print_answer(importlib.import_module("alphapulse.client").read_orders(home, limit), as_json)


def positions(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show what is open in the running `up`, at current prices."""
    client = importlib.import_module("alphapulse.client")
    print_answer({"positions": client.ask(home, "positions")}, as_json)
