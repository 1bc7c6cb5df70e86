"""No kernel is left to be compiled while events wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from alphapulse.config import Feed, Market
from alphapulse.data import bar_kernel, book_kernel, book_view_kernel
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape

def compiled():
    return {
        f"{module.__name__}.{name}": len(found.signatures)
        for module in (bar_kernel, book_kernel, book_view_kernel)
        for name, found in vars(module).items()
        if isinstance(found, Dispatcher)
    }

async def lead():
    instruments = Market().instruments
    feed = MarketFeed(Tape(Path(sys.argv[1]), instruments), instruments, Feed())
    await feed.open()
    before = compiled()
    for _ in range(20):
        await feed.advance()
    for instrument in instruments:
        feed.cache.view([instrument.symbol])
        feed.cache.book(instrument.symbol)
        feed.cache.quote(instrument.symbol, 0)
    return before, compiled()

print(json.dumps(asyncio.run(lead())))
"""


def test_nothing_is_compiled_once_the_feed_is_open(recordings: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(recordings)], check=True, capture_output=True, text=True
    )

    before, after = json.loads(found.stdout.splitlines()[-1])
    assert sum(before.values()) >= 8
    assert after == before
