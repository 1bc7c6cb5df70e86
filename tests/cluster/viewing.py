"""Put a view of the cache into Ray's object store and read it twice: nobody may have a copy.

python -m tests.cluster.viewing RECORDING
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alphapulse.domain.windows import CacheView
from experiments.benchmarks.ingest_bars import recorded_events, seeded_cache
from experiments.benchmarks.ingest_snapshot import SYMBOLS, batches
from experiments.small_cluster import cluster


def arrays(view: CacheView) -> Iterator[np.ndarray]:
    for trades in view.trades.values():
        yield from trades.columns
    for stream in view.streams.values():
        yield from (stream.open_ns_T, stream.rows_TC, stream.flags_T)
    for book in view.books.values():
        yield from (book.second_ns_T, book.rows_TC)
    for seconds in view.bucket_seconds.values():
        yield from (seconds.second_ns_R, seconds.price_R, seconds.rows_RC, seconds.known_RC)


def main(recording: Path) -> None:
    history, events = recorded_events(recording)
    cache = seeded_cache(history)
    for batch in batches(events[:20_000]):
        for event in batch:
            cache.apply(event)
    view = cache.view(SYMBOLS)
    with cluster():
        import ray

        reference = ray.put(view)
        first, second = ray.get(reference), ray.get(reference)

        assert sum(array.nbytes for array in arrays(view)) > 1_000_000
        for sent, mine, again in zip(arrays(view), arrays(first), arrays(second), strict=True):
            np.testing.assert_array_equal(mine, sent)
            assert not mine.flags.writeable
            assert not mine.flags.owndata
            # Two readers at one address: neither has a copy of its own.
            assert mine.ctypes.data == again.ctypes.data


if __name__ == "__main__":
    main(Path(sys.argv[1]))
