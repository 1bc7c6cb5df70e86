"""Ask the inference history: find, show, verify, count, and answer SQL."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from alphapulse.commands.options import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    time_ns,
)
from alphapulse.commands.printing import SHOWN, print_answer

FromOption = Annotated[str | None, typer.Option("--from", help="ISO-8601, inclusive.")]
ToOption = Annotated[str | None, typer.Option("--to", help="ISO-8601, exclusive.")]
RunOption = Annotated[str | None, typer.Option(help="Id of a run; all runs without it.")]
SymbolOption = Annotated[str | None, typer.Option(help="Such as ETH/USDT.")]


class Table(StrEnum):
    """What can be asked for."""

    INFERENCES = "inferences"
    PREDICTIONS = "predictions"
    OUTCOMES = "outcomes"
    EXAMPLES = "examples"
    ORDERS = "orders"
    TRAINING_ROUNDS = "training_rounds"
    ALERTS = "alerts"


class Said(StrEnum):
    """What a model says, and what is decided."""

    BUY = "buy"
    SELL = "sell"
    HOLD = "hold"


class Became(StrEnum):
    """What came of an inference or a forecast."""

    HIT = "hit"
    MISSED = "missed"
    PENDING = "pending"
    VOID = "void"


def query(
    symbol: SymbolOption = None,
    timeframe: Annotated[
        str | None, typer.Option(help="1s, 1m, 1h or 1d: the forecasts of that timeframe.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="cnn, rl or moe.")] = None,
    table: Annotated[Table | None, typer.Option(help="inferences, without --timeframe.")] = None,
    outcomes: Annotated[bool, typer.Option("--outcomes", help="As --table outcomes.")] = False,
    action: Annotated[Said | None, typer.Option(help="What the model said.")] = None,
    decision: Annotated[Said | None, typer.Option(help="What was decided on it.")] = None,
    outcome: Annotated[Became | None, typer.Option(help="What came of it.")] = None,
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_confidence: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    since: FromOption = None,
    until: ToOption = None,
    run: RunOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows shown.")] = 20,
    after: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Find inferences, forecasts, outcomes and what else is kept; no cluster needs to be running.

    Rows are the newest, oldest first; `next` leads to those before them.
    """
    chosen = Table.OUTCOMES if outcomes else table
    name = (chosen or (Table.PREDICTIONS if timeframe else Table.INFERENCES)).value
    pages = importlib.import_module("alphapulse.storage.asking.pages")
    asked = importlib.import_module("alphapulse.interfaces").Query(
        table=name,
        run=run,
        symbol=symbol,
        model=model,
        timeframe=timeframe,
        action=action and action.value,
        decision=decision and decision.value,
        outcome=outcome and outcome.value,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        from_ns=time_ns(since),
        to_ns=time_ns(until),
        limit=limit,
        after=pages.after_of(name, after) if after is not None else None,
    )
    answer = importlib.import_module("alphapulse.asking").query_history(home, asked)
    if not as_json:  # a screen has room for the columns people ask for first
        answer["rows"] = _shown(name, answer["rows"])
        answer = {key: value for key, value in answer.items() if value is not None}
    print_answer(answer, as_json)


def show(
    id: Annotated[str, typer.Argument(help="Of an inference: `history query --json` lists them.")],
    save: Annotated[
        Path | None, typer.Option(help="A .npz file for the arrays the model was fed.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show all that is kept of an inference, and rebuild its input: exit code 1 if that fails."""
    asking = importlib.import_module("alphapulse.asking")
    told = asking.show_inference(home, id, save=save)
    print_answer(told if as_json else _readable(told), as_json)
    if not told["input"]["is_whole"]:
        raise typer.Exit(1)


def verify(
    since: FromOption = None,
    until: ToOption = None,
    run: RunOption = None,
    symbol: SymbolOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Rebuild every input and check its hash: exit code 1 if one is damaged or missing."""
    asking = importlib.import_module("alphapulse.asking")
    with importlib.import_module("alphapulse.client").progress("inputs") as tell:
        told = asking.verify_history(
            home,
            run=run,
            symbol=symbol,
            from_ns=time_ns(since),
            to_ns=time_ns(until),
            tell=tell,
        )
    print_answer(told, as_json)
    if not told["is_whole"]:
        raise typer.Exit(1)


def stats(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show rows and bytes by table and run, the newest instant, and the room on the disk."""
    print_answer(importlib.import_module("alphapulse.asking").read_stats(home), as_json)


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT, in DuckDB's SQL.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Answer a SELECT over the tables of the history; nothing can be written."""
    answer = importlib.import_module("alphapulse.asking").answer_sql(home, statement)
    print_answer(answer, as_json)


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would leave, and touch nothing.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Archive and remove what the limits of `storage` ask for, while no `up` is running."""
    found = importlib.import_module("alphapulse.asking").prune_history(home, dry_run=dry_run)
    print_answer(found, as_json)


def _shown(table: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in SHOWN[table]} for row in rows]


def _readable(told: dict[str, Any]) -> dict[str, Any]:
    """Return what `show` tells as tables, and the rest as pairs; the hidden state is left out."""
    once = {"hidden", *told["input"]}
    pairs = {name: value for name, value in told["inference"].items() if name not in once}
    tables = {
        "forecasts": _shown("predictions", told["forecasts"]),
        "outcomes": _shown("outcomes", told["outcomes"]),
        "orders": _shown("orders", told["orders"]),
        "example": _shown("examples", [told["example"]] if told["example"] else []),
    }
    fed = {f"input {name}": value for name, value in told["input"].items()}
    return {**tables, **{n: _text(v) for n, v in (pairs | fed).items()}}


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
