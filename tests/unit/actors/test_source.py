"""A run takes the first venue that answers, and keeps it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.source import Asked, _choose
from alphapulse.config import Feed, Market, Settings
from alphapulse.domain.errors import ConfigError, NoData
from alphapulse.storage.home import Home
from tests.exchange.columns import SECOND
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange

MIDNIGHT = 1_723_161_600 * SECOND  # 2024-08-09
LIVE = Asked(source="live", recording=None, fresh=False)


@pytest.fixture(scope="module")
def url(recordings: Path) -> Iterator[str]:
    """Return the address of an exchange that answers, played by a thread of its own."""
    stretch = Recording(recordings, from_ns=MIDNIGHT - 10 * SECOND, until_ns=MIDNIGHT)
    exchange, loop = Exchange(stretch), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(exchange.start(), loop).result(10)
    yield exchange.url
    asyncio.run_coroutine_threadsafe(exchange.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def settings_of(url: str, *exchanges: str) -> Settings:
    """Return settings in which `url` stands in for Binance."""
    return Settings(market=Market(exchanges=exchanges, exchange_url=url), feed=Feed(probe_s=2.0))


def test_the_address_that_stands_in_for_the_venue_is_asked(tmp_path: Path, url: str) -> None:
    assert _choose(Home(tmp_path), settings_of(url, "binance", "kraken"), LIVE) == ("binance", None)


def test_without_an_answer_every_venue_that_was_tried_is_named(tmp_path: Path) -> None:
    settings = settings_of("http://127.0.0.1:9", "binance")  # the discard port: nobody answers

    with pytest.raises(NoData, match="binance: expected an answer within 2 s"):
        _choose(Home(tmp_path), settings, LIVE)


def test_a_run_that_goes_on_keeps_its_venue_and_a_fresh_one_does_not(
    tmp_path: Path, url: str
) -> None:
    """The venue of the run cannot be moved to the address, which shows that it was the one."""
    home, settings = Home(tmp_path), settings_of(url, "binance")
    home.open_run(
        source="live",
        recording="nowhere",
        content_hash="0" * 64,
        settings=settings,
        checkpoints={},
        fresh=False,
    )

    with pytest.raises(ConfigError, match="'nowhere'"):
        _choose(home, settings, LIVE)
    assert _choose(home, settings, replace(LIVE, fresh=True)) == ("binance", None)
