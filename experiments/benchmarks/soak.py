"""Does the live path lose anything, fall behind or grow, for an hour at many times the pace?"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from alphapulse.config import Feed, Market
from alphapulse.data.feed import MarketFeed
from alphapulse.data.live import Live
from alphapulse.domain.market import (
    SECOND_NS,
    BarSeries,
    BookDelta,
    FeedGap,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from experiments.benchmarks.result import Row, parser, show

ROOT = Path(__file__).resolve().parents[2]
EXCHANGE = "tests.exchange"  # by module name: the product does not know its tests
WARM_UP_S = 300.0  # caches fill for five minutes of event time, the allocator a little longer
FLAT = 1.05  # RSS at the end over RSS after the warm-up
SPEEDS = (5.0, 10.0, 20.0, 40.0, 80.0)
STEP_S = 20.0
LAP_GAP_NS = 5 * SECOND_NS  # the seam of a lap is a longer pause than any of the recording
LATE = "trades came after their seconds had passed"  # as data.outlet says it


@dataclass(slots=True)
class Account:
    """What came out of the live source.

    Attributes:
        num_events: trades and book messages.
        lost: trades whose number never came, but for the seams of laps.
        seams: laps that began, both symbols together.
        snapshots: how often a book began anew: at the start, at each seam, and when it was lost.
        gaps: gaps the source told, by what it said of them.
        lags_s: how much later than the earliest ones events came [s, wall clock], one of 500.
        waits_s: from received to consumed [s, wall clock], one of 500.
    """

    speed: float
    num_events: int = 0
    lost: int = 0
    seams: int = 0
    snapshots: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    lags_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    _last: dict[str, Trade] = field(default_factory=dict)
    _base_s: float = float("inf")

    def take(self, event: MarketEvent) -> None:
        """Count an event as it leaves the source."""
        if isinstance(event, FeedGap):
            self.gaps["late" if event.reason == LATE else "missing"] += 1
            return
        if not isinstance(event, Trade | BookDelta):
            return
        self.num_events += 1
        if isinstance(event, Trade):
            self._follow(event)
        else:
            self.snapshots += event.is_snapshot
        sent_s = event.ts_ns / 1e9 / self.speed
        self._base_s = min(self._base_s, event.received_ns / 1e9 - sent_s)
        if self.num_events % 500 == 0:
            self.lags_s.append(event.received_ns / 1e9 - sent_s - self._base_s)
            self.waits_s.append(time.time() - event.received_ns / 1e9)

    def _follow(self, trade: Trade) -> None:
        before = self._last.get(trade.symbol)
        self._last[trade.symbol] = trade
        if before is None or trade.trade_id == before.trade_id + 1:
            return
        missing = trade.trade_id - before.trade_id - 1
        is_seam = missing == 1 and trade.ts_ns - before.ts_ns > LAP_GAP_NS
        self.seams += is_seam
        self.lost += 0 if is_seam else abs(missing)


class Counted:
    """What a live source says, counted as it is read; it is no provider of its own."""

    def __init__(self, source: Live, account: Account) -> None:
        self._source = source
        self._account = account

    async def events(self) -> AsyncIterator[MarketEvent]:
        """Yield the events of the source."""
        async for event in self._source.events():
            self._account.take(event)
            yield event

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        """Return the bars of the source."""
        return await self._source.history(instrument, timeframe, count)

    def health(self) -> Mapping[str, Any]:
        """Return how the source is."""
        return self._source.health()

    def refresh_book(self, symbol: str, last_id: int) -> None:
        """Have the source fetch the whole book anew."""
        self._source.refresh_book(symbol, last_id)


def paced(speed: float) -> Feed:
    """Return the settings of the feed: a second of ours is `speed` seconds of event time.

    Limits in event time grow with the speed. Waiting for missed trades is of our time, and shrinks:
    at each seam one trade is missing for good, and everything waits that long for it.
    """
    usual = Feed()
    return replace(
        usual,
        watermark_ms=round(speed * usual.watermark_ms),
        stale_s=speed * usual.stale_s,
        gap_s=speed * usual.gap_s,
        backfill_s=usual.backfill_s / speed,
    )


@contextmanager
def exchange(speed: float) -> Iterator[tuple[str, psutil.Process]]:
    """Play the recording again and again in a child; yield its address and its process."""
    command = [sys.executable, "-m", EXCHANGE, "--loop", "--port", "0", "--speed", str(speed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            line = child.stdout.readline() if child.stdout else ""
            found = re.search(r"http://\S+", line)
            if found is None:
                raise SystemExit(f"{EXCHANGE}: expected its address, was {line!r}")
            yield found[0], psutil.Process(child.pid)
        finally:
            child.terminate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """What was seen: the account of the source, and samples of memory, one a second.

    Attributes:
        rss_S: resident memory of this process [MiB].
        exchange_rss_S: resident memory of the exchange [MiB].
        num_points: decision points made of it.
        counters: of the feed.
    """

    account: Account
    seconds: float
    rss_S: list[float]
    exchange_rss_S: list[float]
    num_points: int
    counters: Mapping[str, Any]


async def soaked(speed: float, seconds: float) -> Soaked:
    """Lead the live source through the feed for `seconds` of the wall clock."""
    account, rss_S, other_S, num_points = Account(speed), [], [], 0
    with exchange(speed) as (url, child):
        instruments, settings = Market().instruments, paced(speed)
        source = Live("binance", instruments, settings, url=url)
        feed = MarketFeed(Counted(source, account), instruments, settings)

        async def lead() -> None:
            nonlocal num_points
            await feed.open()
            while await feed.advance() is not None:
                num_points += 1

        leading = asyncio.create_task(lead())
        begin = time.monotonic()
        while time.monotonic() - begin < seconds and not leading.done():
            await asyncio.sleep(1)
            rss_S.append(psutil.Process().memory_info().rss / 2**20)
            other_S.append(child.memory_info().rss / 2**20)
        took = time.monotonic() - begin
        if leading.done():
            leading.result()  # what ended it
            raise SystemExit("soak: expected the source to go on, it ended")
        counters = feed.counters()
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await source.close()
    return Soaked(
        account=account, seconds=took, rss_S=rss_S, exchange_rss_S=other_S,
        num_points=num_points, counters=counters,
    )  # fmt: skip


def growth(rss_S: Sequence[float], warm_up_s: float) -> tuple[float, float]:
    """Return median memory in the minute after the warm-up and in the last one [MiB]."""
    window = max(min(60, len(rss_S) // 4), 1)
    first = min(int(warm_up_s), max(len(rss_S) - 2 * window, 0))
    return statistics.median(rss_S[first : first + window]), statistics.median(rss_S[-window:])


def rows(seen: Soaked, *, warm_up_s: float) -> list[Row]:
    """Return the figures of one soak."""
    account = seen.account
    before, after = growth(seen.rss_S, warm_up_s)
    lags, waits = (sorted(values) or [0.0] for values in (account.lags_s, account.waits_s))
    p99 = int(0.99 * (len(lags) - 1))
    refused = {**seen.counters["quarantined"], **seen.counters["late"]}
    return [
        Row(name="speed", value=account.speed, unit="x"),
        Row(name="events_per_s", value=account.num_events / seen.seconds, unit="1/s"),
        Row(name="decision_points", value=seen.num_points, unit=""),
        Row(name="lost", value=account.lost, unit="", goal="0", met=account.lost == 0),
        Row(name="seams", value=account.seams, unit=""),
        Row(name="book_snapshots", value=account.snapshots, unit="", goal="<= seams + 2",
            met=account.snapshots <= account.seams + 2),
        Row(name="gaps_missing", value=account.gaps["missing"], unit="", goal="0 but at seams",
            met=account.seams > 0 or not account.gaps["missing"]),
        Row(name="gaps_late", value=account.gaps["late"], unit=""),
        *(Row(name=code, value=count, unit="") for code, count in refused.items()),
        Row(name="lag_p50_ms", value=1e3 * statistics.median(lags), unit="ms"),
        Row(name="lag_p99_ms", value=1e3 * lags[p99], unit="ms"),
        Row(name="queue_p99_ms", value=1e3 * waits[p99], unit="ms"),
        Row(name="queue_max_ms", value=1e3 * waits[-1], unit="ms"),
        Row(name="rss_warm_mib", value=before, unit="MiB"),
        Row(name="rss_end_mib", value=after, unit="MiB", goal=f"<= {FLAT} x warm",
            ratio=before / after, met=after <= FLAT * before),
        Row(name="exchange_rss_mib", value=seen.exchange_rss_S[-1], unit="MiB"),
    ]  # fmt: skip


def find(as_json: bool) -> None:
    """Print, step by step, the highest speed at which nothing is lost."""
    best, found = 0.0, []
    for speed in SPEEDS:
        seen = asyncio.run(soaked(speed, STEP_S))
        account = seen.account
        lag_s = max(account.lags_s, default=0.0)
        keeps_up = account.lost == 0 and lag_s < 1.0 and account.num_events > 0
        best = speed if keeps_up else best
        found.append(
            Row(name=f"events_at_{speed:g}x", value=account.num_events / seen.seconds, unit="1/s",
                goal=f"none lost, was {account.lost}; lag < 1 s, was {lag_s:.2f}", met=keeps_up)
        )  # fmt: skip
        if not keeps_up:
            break
    show("soak find", [*found, Row(name="speed", value=best, unit="x")], as_json=as_json)


def main() -> None:
    """Soak, or look for the highest speed."""
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--minutes", type=float, default=60.0, help="wall clock")
    options.add_argument("--speed", type=float, default=20.0, help="times the recorded pace")
    options.add_argument("--find", action="store_true", help="step the speed, 20 s each")
    given = options.parse_args()
    if given.find:
        find(given.json)
        return
    seen = asyncio.run(soaked(given.speed, 60 * given.minutes))
    show("soak", rows(seen, warm_up_s=WARM_UP_S), as_json=given.json)


if __name__ == "__main__":
    main()
