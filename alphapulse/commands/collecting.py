"""List, download and record market data."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from alphapulse.commands.options import (
    DEFAULT_HOME,
    CandleLength,
    HomeOption,
    JsonOption,
    RecordingOption,
    duration_s,
    time_ns,
)
from alphapulse.commands.printing import SHOWN, print_answer


def recordings(
    recording: RecordingOption = None, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Say which recordings there are: ranges, gaps, completeness, and whether `up` replays them."""
    answer = importlib.import_module("alphapulse.client").read_recordings(home, recording)
    if not as_json:  # one narrow table a recording; what is wrong with a file needs its own line
        files, columns = answer.pop("files"), SHOWN["files"]
        for name in dict.fromkeys(row["recording"] for row in files):
            mine = [row for row in files if row["recording"] == name]
            answer[name] = [{column: row[column] for column in columns} for row in mine]
        wrong = [{"file": row["file"], "error": row["error"]} for row in files if row["error"]]
        answer |= {"errors": wrong} if wrong else {}
        answer["recordings"] = [
            {column: row[column] for column in SHOWN["recordings"]} for row in answer["recordings"]
        ]
    print_answer(answer, as_json)


def download(
    exchange: Annotated[str, typer.Option(help="ccxt id of the venue.")],
    symbol: Annotated[str, typer.Option(help="Such as ETH/USDT.")],
    timeframe: Annotated[CandleLength, typer.Option(help="Length of a candle.")],
    since: Annotated[str, typer.Option(help="ISO-8601, inclusive.")],
    until: Annotated[
        str | None, typer.Option(help="ISO-8601, exclusive; else the newest closed candle.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Download candles into HOME/market; again, it goes on where the file ends."""
    client = importlib.import_module("alphapulse.client")
    asked = exchange, symbol, timeframe.value, time_ns(since), time_ns(until)
    print_answer(client.download(home, *asked), as_json)


def record(
    for_: Annotated[
        str | None, typer.Option("--for", help="90s, 5m, 2h; else until Ctrl-C.")
    ] = None,
    exchange: Annotated[str | None, typer.Option(help="ccxt id; else the configured one.")] = None,
    exchange_url: Annotated[
        str | None, typer.Option(help="Stands in for the API of binance; else as configured.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="Again for each; else all configured ones.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The recording's folder; else a new one in HOME/market.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Record trades, book changes and candles of a venue: a recording that `up` replays."""
    for_s = None if for_ is None else duration_s(for_)
    collecting = importlib.import_module("alphapulse.collecting")
    asked = exchange, symbol or (), for_s, to
    print_answer(collecting.record_venue(home, *asked, url=exchange_url), as_json)
