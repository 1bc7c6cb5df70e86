"""How fast, how small and how sure is the inference history, beside peers in the same run?

python -m experiments.benchmarks.history --json
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from alphapulse.config import Market
from alphapulse.data.tape import find_recording
from experiments.benchmarks import (
    history_actor,
    history_packages,
    history_query,
    history_rebuild,
    history_records,
)
from experiments.benchmarks.result import parser, show


def main() -> None:
    """Measure and print all rows."""
    options = parser(__doc__ or "")
    options.add_argument("--recording", type=Path, help="folder with trades, depth and candles")
    options.add_argument("--runs", type=int, default=7, help="counted runs a row, at least 5")
    options.add_argument(
        "--inferences", type=int, default=1_000_000, help="that the queries look through"
    )
    options.add_argument(
        "--keep", type=Path, help="folder that keeps the decisions and what is looked through"
    )
    arguments = options.parse_args()
    recording = find_recording(arguments.recording, Market().instruments, os.environ)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kept = arguments.keep or folder / "kept"
        collected = history_records.collect(recording, kept)
        rows = [
            *history_packages.rows(collected, folder, runs=arguments.runs),
            *history_rebuild.rows(collected, folder, runs=arguments.runs),
            *history_query.rows(
                collected, kept, inferences=arguments.inferences, runs=arguments.runs
            ),
            *history_actor.rows(collected, recording, folder),
        ]
    show("history", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
