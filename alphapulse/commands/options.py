"""What the commands are asked with: options they share, choices, speeds, spans and times."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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


def speed_of(text: str) -> float:
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


def duration_s(text: str) -> float:
    """Return a span such as 90s, 5m, 2h or 1d [s]."""
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal() or float(number) <= 0:
        raise typer.BadParameter(f"expected 90s, 5m, 2h or 1d, was {text!r}", param_hint="--for")
    return float(number) * units[unit]


def time_ns(text: str | None) -> int | None:
    """Return an ISO-8601 time, UTC where it names no zone [ns UTC]; None stays None."""
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
