"""Ask the inference history and the settings."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from alphapulse.commands.options import DEFAULT_HOME, HomeOption, JsonOption, time_ns
from alphapulse.commands.printing import SHOWN, print_answer


def query(
    symbol: Annotated[str | None, typer.Option(help="Such as ETH/USDT.")] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="1s, 1m, 1h or 1d: the forecasts of that timeframe.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="cnn, rl or moe.")] = None,
    outcomes: Annotated[bool, typer.Option("--outcomes", help="What came of them.")] = False,
    since: Annotated[str | None, typer.Option("--from", help="ISO-8601, inclusive.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="ISO-8601, exclusive.")] = None,
    run: Annotated[str | None, typer.Option(help="Id of a run; all runs without it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows shown.")] = 20,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Find inferences, forecasts of a timeframe, or outcomes; no cluster needs to be running."""
    asked = importlib.import_module("alphapulse.interfaces").Query(
        table="outcomes" if outcomes else "predictions" if timeframe else "inferences",
        run=run,
        symbol=symbol,
        model=model,
        timeframe=timeframe,
        from_ns=time_ns(since),
        to_ns=time_ns(until),
        limit=limit,
    )
    rows = importlib.import_module("alphapulse.client").query_history(home, asked)
    if not as_json:  # a screen has room for the columns people ask for first
        rows = [{name: row[name] for name in SHOWN[asked.table]} for row in rows]
    print_answer({"rows": rows}, as_json)


def show(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Print every setting in force."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    print_answer(settings.as_dict(), as_json)


def validate(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Check HOME/config.toml and the environment; exit code 2 names what is wrong."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    print_answer({"valid": True, "hash": settings.hash}, as_json)
