"""Answer a benchmark run by run: it asks by a line on stdin, a peer measures and prints seconds."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable


def serve(version: str, run: Callable[[], object]) -> None:
    """Say the version, then measure `run` once a line until stdin ends; the first is not counted.

    Args:
        version: printed first, such as `polars 2.1.0`.
        run: what is timed; whatever it needs is there before the first line.
    """
    gc.collect()
    gc.freeze()  # what it read is not walked by a collection in a run
    run()  # what is done once, such as filling caches, is not the peer's speed
    print(version, flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, flush=True)
