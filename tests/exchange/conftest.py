"""Recordings for the tests of the exchange, and the real client connected to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.exchange.columns import SECOND
from tests.exchange.connecting import open_at
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
FROM_NS = MIDNIGHT - 310 * SECOND  # 23:54:50
UNTIL_NS = MIDNIGHT - 290 * SECOND  # 23:55:10


@pytest.fixture(scope="session")
def whole(recordings: Path) -> Recording:
    """Return the whole recording."""
    return Recording(recordings)


@pytest.fixture(scope="session")
def stretch(recordings: Path) -> Recording:
    """Return twenty seconds of it with the end of a minute in the middle."""
    return Recording(recordings, from_ns=FROM_NS, until_ns=UNTIL_NS)


@asynccontextmanager
async def client_of(exchange: Exchange) -> AsyncIterator[Any]:
    """Open the exchange, and the product's client connected to it."""
    async with opened(exchange):
        venue = open_at(exchange.url)
        try:
            yield venue
        finally:
            await venue.close()


@asynccontextmanager
async def watching(
    exchange: Exchange, stream: str, watch: Callable[[], Awaitable[Any]]
) -> AsyncIterator[list[Any]]:
    """Call `watch` over and over and collect what it returns, and the error that ends it."""
    seen: list[Any] = []

    async def read() -> None:
        try:
            while True:
                seen.append(await watch())
        except Exception as error:
            seen.append(error)

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(5):
            await exchange.wait_for(stream)
        yield seen
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def until(is_so: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait until the claim holds; fails after `within_s` seconds."""
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.01)
