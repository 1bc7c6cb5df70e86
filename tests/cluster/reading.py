"""Read the cache of a running cluster from a job: what it holds of a symbol, as JSON.

ray job submit --address http://HOST:PORT -- python -m tests.cluster.reading SYMBOL
"""

from __future__ import annotations

import asyncio
import json
import sys

from alphapulse import cluster
from alphapulse.domain.market import TIMEFRAMES
from alphapulse.features.peers import SLOTS


def main(symbol: str) -> None:
    cluster.connect("auto")
    view = asyncio.run(cluster.MarketData().cached(symbol))
    outputs_KP, awake_K = view.peers[symbol]
    told = {
        "at_ns": view.at_ns,
        "version": view.version,
        "bars": {tf.value: len(view.streams[symbol, tf].open_ns_T) for tf in TIMEFRAMES},
        "trades": len(view.trades[symbol].ts_ns_N),
        "bucket_seconds": len(set(view.bucket_seconds[symbol].second_ns_R.tolist())),
        "awake": [name for name, slot in SLOTS.items() if awake_K[slot]],
        "is_shared": not outputs_KP.flags.owndata and not outputs_KP.flags.writeable,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
