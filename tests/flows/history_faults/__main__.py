"""Kill writers of a history over and over, on a disk that may fail, and print what came of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.flows.history_faults import faulting
from tests.flows.history_faults.killing import Faults, Killer
from tests.flows.history_faults.planted import PLANTS

_APART = "HISTORY_FAULTS_APART"


def main() -> None:
    """Read the command line, kill, print, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.flows.history_faults", description=__doc__
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--disk",
        choices=("sound", "enospc", "eio", "full"),
        default="sound",
        help="calls that fail with an error, or a small file system without room",
    )
    parser.add_argument("--plant", choices=PLANTS, help="damage the history; ends once it is seen")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--folder", type=Path, help="where to work; empty: a temporary one")
    given = parser.parse_args()
    if given.folder:
        sys.exit(work(given, given.folder.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(work(given, Path(folder).resolve()))


def work(given: argparse.Namespace, folder: Path) -> int:
    """Do what was asked for in `folder` and return the exit code."""
    again = [sys.executable, "-m", "tests.flows.history_faults", *sys.argv[1:]]
    faults: Faults | None = None
    if given.disk in faulting.FAILING:
        if not faulting.is_preloaded():
            return faulting.run_preloaded([*again, "--folder", str(folder)], folder)
        faults = faulting.FailingCalls(given.disk)
    elif given.disk == "full":
        if _APART not in os.environ:
            os.environ[_APART] = "1"
            faulting.run_apart(again)
        faults = faulting.FullDisk(folder)
    plant = PLANTS[given.plant][0] if given.plant else None
    killer = Killer(folder, seed=given.seed, faults=faults, plant=plant)
    try:
        killer.kill(given.kills, until_wrong=plant is not None)
    finally:
        if isinstance(faults, faulting.FullDisk):
            faults.unmount()
    figures = killer.tally.as_dict()
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        print(*(f"{name:36} {value}" for name, value in figures.items()), sep="\n")
    return not killer.tally.is_clean


if __name__ == "__main__":
    main()
