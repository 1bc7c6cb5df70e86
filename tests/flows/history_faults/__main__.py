"""Kill writers of a history over and over, and print what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.flows.history_faults.killing import Killer


def main() -> None:
    """Read the command line, kill, print, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.flows.history_faults", description=__doc__
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), seed=given.seed)
        killer.kill(given.kills)
    figures = killer.tally.as_dict()
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        print(*(f"{name:36} {value}" for name, value in figures.items()), sep="\n")
    sys.exit(not killer.tally.is_clean)


if __name__ == "__main__":
    main()
