"""The front door: starts, asks and stops; holds no logic.

Everything heavy is imported inside the command that needs it: `--help` answers in about 0.1 s.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from alphapulse.domain.errors import AlphaPulseError

app = typer.Typer(
    name="alphapulse",
    help="A self-improving trading cluster: it learns from its own answered predictions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # drawing help with rich takes longer than everything else together
)
history = typer.Typer(help="Ask the inference history.", no_args_is_help=True)
config = typer.Typer(help="Show and check the settings.", no_args_is_help=True)
models = typer.Typer(help="See who answers, promote a checkpoint, go back.", no_args_is_help=True)
app.add_typer(history, name="history")
app.add_typer(config, name="config")
app.add_typer(models, name="models")

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="ALPHAPULSE_HOME", help="Folder of everything that is kept."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RecordingOption = Annotated[
    Path | None,
    typer.Option(
        "--recording",
        help="Folder of a recording, or of several; else ALPHAPULSE_RECORDINGS, then HOME/market.",
    ),
]
DEFAULT_HOME = Path("user_data")
HALTED = 4  # exit code: the run ended with trading halted
SHOWN = {
    "inferences": ("id", "event_ns", "symbol", "model", "action", "confidence", "decision_reason"),
    "predictions": (
        *("event_ns", "symbol", "timeframe", "level", "kind", "price"),
        *("pivot_ns", "p_done", "confidence"),
    ),
    "outcomes": (
        *("event_ns", "known_ns", "symbol", "model", "timeframe", "level"),
        *("kind", "action", "reason", "hit", "result"),
    ),
    "recordings": ("path", "replay", "content_hash", "reason"),
    "files": (
        *("file", "rows", "first_ns", "last_ns"),
        *("gaps", "missing", "longest_gap_s", "complete_pct"),
    ),
}


class Source(StrEnum):
    """Where market events come from."""

    AUTO = "auto"
    LIVE = "live"
    RECORDING = "recording"


class ModelName(StrEnum):
    """The models of the graph."""

    CNN = "cnn"
    RL = "rl"
    MOE = "moe"


class Trained(StrEnum):
    """The models that have a training of their own after the first one."""

    CNN = "cnn"
    RL = "rl"


class CandleLength(StrEnum):
    """The candles a replay, or a training, can use."""

    S1 = "1s"
    M1 = "1m"
    H1 = "1h"
    D1 = "1d"


class Algorithm(StrEnum):
    """How the policy is trained."""

    PPO = "ppo"
    MARWIL = "marwil"


@app.command()
def up(
    source: Annotated[
        Source, typer.Option(help="auto: live if the venue answers in time, else a recording.")
    ] = Source.AUTO,
    recording: RecordingOption = None,
    exchange: Annotated[str | None, typer.Option(help="ccxt id of the live venue.")] = None,
    speed: Annotated[str, typer.Option(help="Of a replay: 1, a factor, or max.")] = "1",
    for_: Annotated[str | None, typer.Option("--for", help="End by itself: 90s, 5m, 2h.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start the next run.")] = False,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="No monitor.")] = False,
    no_training: Annotated[bool, typer.Option("--no-training", help="No training rounds.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Bring the cluster up on a source and keep it up until the source or you end it."""
    factor, for_s = _speed(speed), None if for_ is None else _duration_s(for_)
    main_job = importlib.import_module("actors.main")
    options = main_job.UpOptions(
        home=home,
        source=source.value,
        recording=recording,
        exchange=exchange,
        speed=factor,
        for_s=for_s,
        fresh=fresh,
        dashboard=not no_dashboard,
        training=not no_training,
    )
    summary = main_job.Up(options, started_at_s=_process_start_s()).run()
    _print(summary, as_json)
    if summary["is_halted"]:
        raise typer.Exit(HALTED)


@app.command()
def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """End the `up` that works in this home and wait until it has ended."""
    client = importlib.import_module("alphapulse.client")
    _print(client.end_up(home), as_json)


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Say what the `up` of this home is doing, or that none is running."""
    client = importlib.import_module("alphapulse.client")
    _print(client.read_status(home), as_json)


@app.command()
def doctor(
    recording: RecordingOption = None, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Check what `up` needs, one line a finding, with a remedy for each fault."""
    checks = importlib.import_module("alphapulse.doctor").examine(home, recording)
    faults = [check for check in checks if not check["ok"]]
    _print({"ok": not faults, "checks": checks}, as_json)
    raise typer.Exit(1 if faults else 0)


@app.command()
def errors(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the errors table: code, how often, first and last time, trace id, remedy."""
    from dataclasses import asdict

    logs = importlib.import_module("alphapulse.logs")
    _print({"errors": [asdict(row) for row in logs.read_errors(home / "logs")]}, as_json)


@app.command()
def backtest(
    recording: RecordingOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Write every inference to this file, one JSON a line.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Run the same decisions as `up` over a recording, in this process, without Ray."""
    job = importlib.import_module("experiments.backtest")
    answer = job.run(home, recording=recording, out=out)
    _print(answer, as_json)
    if answer["is_halted"]:
        raise typer.Exit(HALTED)


@app.command()
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
    _print(answer, as_json)


@app.command()
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
    asked = exchange, symbol, timeframe.value, _ns(since), _ns(until)
    _print(client.download(home, *asked), as_json)


@app.command()
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
    for_s = None if for_ is None else _duration_s(for_)
    collecting = importlib.import_module("alphapulse.collecting")
    asked = exchange, symbol or (), for_s, to
    _print(collecting.record_venue(home, *asked, url=exchange_url), as_json)


@app.command()
def train(
    model: Annotated[Trained, typer.Argument(help="Which model to train.")],
    algorithm: Annotated[Algorithm, typer.Option(help="Of rl only.")] = Algorithm.PPO,
    recording: RecordingOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Train a challenger now and compare it: a job of the running cluster, else in this process."""
    client = importlib.import_module("alphapulse.client")
    _print(client.train(home, model.value, algorithm.value, recording), as_json)


@app.command()
def sweep(
    model: Annotated[Trained, typer.Argument(help="Which model's training to search.")],
    trials: Annotated[int, typer.Option(min=1, help="How many configurations.")] = 4,
    recording: RecordingOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Search training settings with Tune: a job of the running cluster, else a small one here."""
    client = importlib.import_module("alphapulse.client")
    _print(client.sweep(home, model.value, trials, recording), as_json)


@app.command()
def halt(
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Halt trading in the running `up`: what is open is closed, nothing is opened."""
    client = importlib.import_module("alphapulse.client")
    _print(client.halt(home, reason), as_json)


@app.command()
def resume(
    reason: Annotated[str, typer.Option(help="Why it is safe to go on; it is kept.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Clear the halt of the running `up`, or of the newest run if none is running."""
    client = importlib.import_module("alphapulse.client")
    _print(client.resume(home, reason), as_json)


@app.command()
def orders(
    limit: Annotated[int, typer.Option(min=1, help="Newest rows shown.")] = 20,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Show the orders of the newest run with their fills, refused ones with the reason."""
    _print(importlib.import_module("alphapulse.client").read_orders(home, limit), as_json)


@app.command()
def positions(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show what is open in the running `up`, at current prices."""
    client = importlib.import_module("alphapulse.client")
    _print({"positions": client.ask(home, "positions")}, as_json)


@models.command("list")
def list_models(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show every checkpoint with its role, and which one answers in the running `up`."""
    _print(importlib.import_module("alphapulse.client").read_models(home), as_json)


@models.command("promote")
def promote(
    checkpoint: Annotated[str, typer.Argument(help="Id of a registered checkpoint.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "promoted by hand",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let a checkpoint answer: from the next decision of the running `up` on."""
    client = importlib.import_module("alphapulse.client")
    _print(client.promote(home, checkpoint, reason), as_json)


@models.command("rollback")
def rollback(
    model: Annotated[ModelName, typer.Argument(help="Which model.")] = ModelName.CNN,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "rolled back by hand",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let the checkpoint before answer again, from the next decision of the running `up` on."""
    client = importlib.import_module("alphapulse.client")
    _print(client.rollback(home, model.value, reason), as_json)


@history.command("query")
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
        from_ns=_ns(since),
        to_ns=_ns(until),
        limit=limit,
    )
    rows = importlib.import_module("alphapulse.client").query_history(home, asked)
    if not as_json:  # a screen has room for the columns people ask for first
        rows = [{name: row[name] for name in SHOWN[asked.table]} for row in rows]
    _print({"rows": rows}, as_json)


@config.command("show")
def show(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Print every setting in force."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    _print(settings.as_dict(), as_json)


@config.command("validate")
def validate(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Check HOME/config.toml and the environment; exit code 2 names what is wrong."""
    settings = importlib.import_module("alphapulse.config").load_settings(home)
    _print({"valid": True, "hash": settings.hash}, as_json)


def main() -> NoReturn:
    """Run the command line; an error of ours is one sentence on stderr and its own exit code."""
    try:
        app(standalone_mode=True)
    except AlphaPulseError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.code, "message": str(error)}))
        print(f"{error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _print(answer: dict[str, Any], as_json: bool) -> None:
    """Print `answer` as JSON, or for people: a list of rows as a table, the rest as pairs."""
    if as_json:
        print(json.dumps(answer))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    pairs = Table(show_header=False)
    for key, value in answer.items():
        if not isinstance(value, list):
            text = json.dumps(value, indent=1) if isinstance(value, dict) else str(value)
            pairs.add_row(key, text)
            continue
        rows = Table(title=key)
        for name in value[0] if value else ["nothing"]:
            rows.add_column(name, overflow="fold")  # a path or a hash is of no use cut short
        for row in value:
            rows.add_row(*(_cell(name, cell) for name, cell in row.items()))
        console.print(rows, markup=False)
    if pairs.row_count:
        console.print(pairs, markup=False)


def _cell(name: str, value: Any) -> str:
    """Return `value` for a table: times as ISO-8601 Z, prices and shares to six digits."""
    if name.endswith("_ns") and isinstance(value, int):
        from datetime import UTC, datetime

        when = datetime.fromtimestamp(value // 1_000_000 / 1e3, UTC)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _speed(text: str) -> float:
    """Return the factor of event time over wall time; 0 for max."""
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(
            f"expected 1, a positive factor or max, was {text!r}", param_hint="--speed"
        )
    return speed


def _duration_s(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal() or float(number) <= 0:
        raise typer.BadParameter(f"expected 90s, 5m, 2h or 1d, was {text!r}", param_hint="--for")
    return float(number) * units[unit]


def _ns(text: str | None) -> int | None:
    if text is None:
        return None
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"expected ISO-8601 such as 2024-08-09T00:00:00Z, was {text!r}"
        ) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1_000


def _process_start_s() -> float:
    """Return when this process was started [s since the epoch], imports included."""
    with open(f"/proc/{os.getpid()}/stat", encoding="ascii") as file:
        ticks = float(file.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="ascii") as file:
        uptime_s = float(file.read().split()[0])
    return time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
