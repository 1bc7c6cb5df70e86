"""Record a venue from the command line: which one, which symbols, where to, until when."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alphapulse.client import progress
from alphapulse.config import load_settings
from alphapulse.data.live import Live, first_reachable
from alphapulse.data.pieces import finish_all
from alphapulse.data.record import Recorded, Tell, new_refusals, record
from alphapulse.domain.errors import InvalidRequest, NoData, Unavailable
from alphapulse.domain.market import Instrument
from alphapulse.storage.home import Home


def record_venue(
    home: Path,
    exchange: str | None,
    symbols: Sequence[str],
    for_s: float | None,
    to: Path | None,
    *,
    url: str | None = None,
    venue: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Record a venue until `for_s` seconds have passed or somebody ends it with Ctrl-C.

    Args:
        home: whose settings; what killed recordings left in its `market` is finished first.
        exchange: ccxt id; None is the first configured one that answers.
        symbols: some of the configured ones; none is all of them.
        for_s: how long [s]; None is until it is ended.
        to: folder of the recording; None is a new one in HOME/market.
        url: address that stands in for the venue's API; None is the configured one.
        venue: makes the exchange, in place of ccxt.pro's.

    Raises InvalidRequest if a symbol is not configured or the folder exists, NoData if the venue
    does not answer or ends the feed: what came until then is kept.
    """
    settings = load_settings(home)
    market, feed = settings.market, settings.feed
    instruments = _chosen(market.instruments, symbols)
    names = (exchange,) if exchange else market.exchanges
    url = market.exchange_url if url is None else url
    ask = first_reachable(names, timeout_s=feed.probe_s, url=url, exchange=venue)
    name = asyncio.run(ask)
    if name is None:
        raise NoData(
            f"{', '.join(names)}: expected an answer within {feed.probe_s:g} s, was none; check "
            "the network, or record another exchange"
        )
    place = Home(home).path / "market"
    finished = finish_all(place)
    begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = to or place / f"{name}-{begun}"
    live = Live(name, instruments, feed, url=url, exchange=venue)
    with progress(f"recording {name}") as tell:
        try:
            done = asyncio.run(_until_ended(live, instruments, folder, for_s, tell))
        except Unavailable as error:
            raise NoData(f"{error}; what came until then is kept in {folder}") from None
    row = {**asdict(done), "folder": None if done.folder is None else str(done.folder)}
    return {"recorded": [row], "finished": [str(one) for one in finished]}


def _chosen(instruments: Sequence[Instrument], symbols: Sequence[str]) -> tuple[Instrument, ...]:
    known = [instrument.symbol for instrument in instruments]
    for symbol in symbols:
        if symbol not in known:
            raise InvalidRequest(
                f"--symbol {symbol}: expected one of {', '.join(known)}; set market.symbols first"
            )
    return tuple(i for i in instruments if not symbols or i.symbol in symbols)


async def _until_ended(
    live: Live,
    instruments: Sequence[Instrument],
    folder: Path,
    for_s: float | None,
    tell: Tell,
) -> Recorded:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        return await record(
            live,
            instruments,
            folder,
            for_s=for_s,
            ended=ended,
            refusals=new_refusals(live),
            tell=tell,
        )
    finally:
        await live.close()
