"""One row of a benchmark, and the JSON object every benchmark prints."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        value: median of the counted runs, in `unit`.
        peer: what it stands beside, with version and settings; empty for a figure without a peer.
        peer_value: the peer's median in the same run and unit.
        ratio: oriented so that above 1 is better than the peer.
        goal: what is to be shown, in words.
        met: whether it was; a missing peer is not met.
    """

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool = False
    runs: Sequence[float] = ()


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the option every benchmark has."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--json", action="store_true", help="print one JSON object")
    return found


def in_turn_us(
    ours: Callable[[], float], peer: Callable[[], float], *, runs: int
) -> tuple[list[float], list[float]]:
    """Run both in turn, once before the first counted run; each returns its microseconds."""
    pairs = [(ours(), peer()) for _ in range(runs + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def us_row(
    name: str, ours_us: Sequence[float], peer: str, peer_us: Sequence[float], *, goal: float
) -> Row:
    """Return the time of both [us], and whether the peer takes `goal` times ours."""
    value, peer_value = statistics.median(ours_us), statistics.median(peer_us)
    ratio = peer_value / value
    return Row(
        name=name,
        value=value,
        unit="us",
        peer=peer,
        peer_value=peer_value,
        ratio=ratio,
        goal=f">= {goal:g} x the peer",
        met=ratio >= goal,
        runs=list(ours_us),
    )


def show(benchmark: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows with machine and commit."""
    report: dict[str, Any] = {
        "benchmark": benchmark,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "commit": _commit(),
        "rows": [asdict(row) for row in rows],
    }
    if as_json:
        print(json.dumps(report))
        return
    print(f"{report['benchmark']} on {report['machine']}, commit {report['commit']}")
    for row in rows:
        beside = f"{row.peer} {row.peer_value:.4g}, ratio {row.ratio:.2f}" if row.peer_value else ""
        print(f"{row.name:24} {row.value:.4g} {row.unit:6} {beside:60} {row.goal} met={row.met}")


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"
