"""How long until the front door answers, and until the first decision stands?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.result import Row, parser, show

HELP_RATIO = 15  # TARGETS.md, start: --help within 15 bare interpreters
FIRST_DECISION_S = 25.0
ALPHAPULSE = str(Path(sys.executable).with_name("alphapulse"))


def wall_ms(command: Sequence[str]) -> float:
    """Return the wall time of one run of `command` [ms]; raises CalledProcessError if it fails."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begin) * 1e3


def help_row(runs: int) -> Row:
    """Return `alphapulse --help` beside a bare interpreter, in turn."""
    pairs = [
        (wall_ms([ALPHAPULSE, "--help"]), wall_ms([sys.executable, "-c", "pass"]))
        for _ in range(runs + 1)
    ][1:]  # the first fills the page cache
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(
        name="help_ms",
        value=ours,
        unit="ms",
        peer=f"python {sys.version.split()[0]} -c pass",
        peer_value=bare,
        ratio=bare / ours,
        goal=f"<= {HELP_RATIO} x the peer",
        met=ours <= HELP_RATIO * bare,
        runs=[ours for ours, _ in pairs],
    )


def first_decision_row(runs: int, home: Path) -> Row:
    """Return the seconds from the command to the first decision, checkpoints trained before."""
    up = [ALPHAPULSE, "up", "--source", "recording", "--speed", "1", "--for", "3s", "--fresh"]
    up += ["--no-dashboard", "--json", "--home", str(home)]
    seconds = []
    for _ in range(runs + 1):
        answer = subprocess.run(up, capture_output=True, text=True, check=True, env=os.environ)
        seconds.append(json.loads(answer.stdout)["first_decision_s"])
    counted = seconds[1:]  # the first trains and fills the page cache
    median = statistics.median(counted)
    return Row(
        name="first_decision_s",
        value=median,
        unit="s",
        goal=f"<= {FIRST_DECISION_S:g} s warm",
        met=median <= FIRST_DECISION_S,
        runs=counted,
    )


def main() -> None:
    """Measure and print both rows."""
    options = parser(__doc__ or "")
    options.add_argument("--runs", type=int, default=5, help="counted runs a row")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as home:
        rows = [help_row(arguments.runs), first_decision_row(arguments.runs, Path(home))]
    show("start", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
