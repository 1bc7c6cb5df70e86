"""How fast does the market get in, beside its peers in the same run?

python -m experiments.benchmarks.ingest --json
"""

from __future__ import annotations

import os
from pathlib import Path

from alphapulse.config import Market
from alphapulse.data.tape import find_recording
from experiments.benchmarks import ingest_bars, ingest_book, ingest_snapshot
from experiments.benchmarks.result import parser, show


def main() -> None:
    """Measure and print all rows."""
    options = parser(__doc__ or "")
    options.add_argument("--recording", type=Path, help="folder with trades, depth and candles")
    options.add_argument("--runs", type=int, default=7, help="counted runs a row, at least 5")
    arguments = options.parse_args()
    recording = find_recording(arguments.recording, Market().instruments, os.environ)
    rows = [  # the book first, in a heap as fresh as that of its peer
        *ingest_book.book_rows(recording, arguments.runs),
        *ingest_bars.rows(recording, runs=arguments.runs),
        *ingest_snapshot.rows(recording),
    ]
    show("ingest", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
