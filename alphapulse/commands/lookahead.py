"""Check features, labels and models for look-ahead."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from alphapulse.commands.options import (
    DEFAULT_HOME,
    CandleLength,
    HomeOption,
    JsonOption,
    RecordingOption,
)
from alphapulse.commands.printing import print_answer
from alphapulse.domain.errors import AlphaPulseError

OWN_LABELS = tuple(
    f"experiments.known_labels:{name}" for name in ("next_pivots", "entries", "settled")
)


def lookahead(
    feature: Annotated[
        list[str] | None,
        typer.Option(help="module:function or file.py:function of a frame of closed bars."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="The same, of a frame of closed bars and the time they are known at."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a checkpoint, or module:Class; each hears those before it."),
    ] = None,
    timeframe: Annotated[
        list[CandleLength] | None, typer.Option(help="Again for each; else all there are.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Such as ETH/USDT; else the first.")] = None,
    bars: Annotated[int, typer.Option(min=200, help="Newest bars of a stream looked at.")] = 3_000,
    recording: RecordingOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Say which features, labels and models look ahead, and where; exit code 1 if one does.

    Without --feature, --labels or --model: all that is built in.
    """
    run = importlib.import_module("alphapulse.analysing.run")
    wish = run.Wish(
        features=feature or (),
        labels=labels or (),
        models=model or (),
        own_labels=OWN_LABELS,
        timeframes=[length.value for length in timeframe or ()],
        symbol=symbol,
        num_bars=bars,
    )
    try:
        answer = run.analyse(home, recording, wish)
    except AlphaPulseError as error:
        if error.exit_code != 1:
            raise
        raise typer.BadParameter(str(error)) from None  # 1 is a leak, and nothing else
    if not as_json:
        shown = importlib.import_module("alphapulse.analysing.telling").for_people(answer)
        print_answer(shown, as_json)
    else:
        print_answer(answer, as_json)
    raise typer.Exit(0 if answer["clean"] else 1)
