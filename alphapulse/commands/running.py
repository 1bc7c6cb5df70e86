"""Bring the cluster up, end it, say how it is; run the same decisions without it."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from alphapulse.commands.options import (
    DEFAULT_HOME,
    HALTED,
    HomeOption,
    JsonOption,
    RecordingOption,
    Source,
    duration_s,
    speed_of,
)
from alphapulse.commands.printing import print_answer


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
    factor, for_s = speed_of(speed), None if for_ is None else duration_s(for_)
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
    print_answer(summary, as_json)
    if summary["is_halted"]:
        raise typer.Exit(HALTED)


def down(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """End the `up` that works in this home and wait until it has ended."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.end_up(home), as_json)


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Say what the `up` of this home is doing, or that none is running."""
    client = importlib.import_module("alphapulse.client")
    print_answer(client.read_status(home), as_json)


def doctor(
    recording: RecordingOption = None, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Check what `up` needs, one line a finding, with a remedy for each fault."""
    checks = importlib.import_module("alphapulse.doctor").examine(home, recording)
    faults = [check for check in checks if not check["ok"]]
    print_answer({"ok": not faults, "checks": checks}, as_json)
    raise typer.Exit(1 if faults else 0)


def errors(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the errors table: code, how often, first and last time, trace id, remedy."""
    from dataclasses import asdict

    logs = importlib.import_module("alphapulse.logs")
    print_answer({"errors": [asdict(row) for row in logs.read_errors(home / "logs")]}, as_json)


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
    print_answer(answer, as_json)
    if answer["is_halted"]:
        raise typer.Exit(HALTED)


def _process_start_s() -> float:
    """Return when this process was started [s since the epoch], imports included."""
    with open(f"/proc/{os.getpid()}/stat", encoding="ascii") as file:
        ticks = float(file.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="ascii") as file:
        uptime_s = float(file.read().split()[0])
    return time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")
