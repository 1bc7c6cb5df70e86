"""How fast do bars become rows, and rows what a model sees, beside peers in the same run?

python -m experiments.benchmarks.features --json
"""

from __future__ import annotations

import os
from pathlib import Path

from alphapulse.config import Market
from alphapulse.data.tape import find_recording
from experiments.benchmarks import features_input, features_rows
from experiments.benchmarks.result import parser, show


def main() -> None:
    """Measure and print all rows."""
    options = parser(__doc__ or "")
    options.add_argument("--recording", type=Path, help="folder with trades, depth and candles")
    options.add_argument("--runs", type=int, default=15, help="counted runs a row, at least 5")
    arguments = options.parse_args()
    recording = find_recording(arguments.recording, Market().instruments, os.environ)
    rows = [
        *features_rows.rows(recording, runs=arguments.runs),
        *features_input.rows(recording, runs=arguments.runs),
    ]
    show("features", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
