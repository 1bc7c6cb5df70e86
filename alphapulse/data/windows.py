"""Give out what is cached of several symbols as it is at one moment."""

from __future__ import annotations

from collections.abc import Mapping

from alphapulse.config import Feed
from alphapulse.data.symbol_cache import SymbolCache
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.market import TIMEFRAMES, Timeframe
from alphapulse.domain.windows import BookWindow, CacheView, MarketWindow, StreamWindow

NUM_SLOTS = INPUT_SPEC.num_rows
Caches = Mapping[str, SymbolCache]


def window(caches: Caches, event_ns: int, *, version: int, received_ns: int) -> MarketWindow:
    """Return what a decision at `event_ns` may see: as many rows as an input has slots."""
    return MarketWindow(
        event_ns=event_ns,
        version=version,
        streams=_streams(caches, event_ns, count=NUM_SLOTS),
        books=_books(caches, event_ns, count=NUM_SLOTS),
        last_trade_id={s: cache.last_trade_id for s, cache in caches.items()},
        last_book_id={s: cache.last_book_id for s, cache in caches.items()},
        received_ns=received_ns,
        down=_down(caches, event_ns),
        own=next((cache.own for cache in caches.values()), ()),
    )


def view(
    caches: Caches,
    settings: Feed,
    *,
    closed_ns: int,
    at_ns: int,
    version: int,
    received_ns: int,
) -> CacheView:
    """Return all that is kept, at `at_ns`, the newest second closed being `closed_ns`.

    The models' outputs are kept elsewhere: `PointFeed.cached` adds them.
    """
    return CacheView(
        version=version,
        at_ns=at_ns,
        streams=_streams(caches, closed_ns, count=settings.cache_bars),
        books=_books(caches, closed_ns, count=settings.cache_s),
        buckets={s: now for s, cache in caches.items() if (now := cache.buckets) is not None},
        bucket_seconds={s: cache.bucket_seconds for s, cache in caches.items() if cache.has_book},
        trades={s: cache.trades for s, cache in caches.items()},
        peers={},
        last_trade_id={s: cache.last_trade_id for s, cache in caches.items()},
        last_book_id={s: cache.last_book_id for s, cache in caches.items()},
        received_ns=received_ns,
        down=_down(caches, closed_ns),
    )


def _streams(
    caches: Caches, event_ns: int, *, count: int
) -> dict[tuple[str, Timeframe], StreamWindow]:
    return {
        (symbol, timeframe): stream
        for symbol, cache in caches.items()
        for timeframe in TIMEFRAMES
        if (stream := cache.stream(timeframe, event_ns, count=count)) is not None
    }


def _books(caches: Caches, event_ns: int, *, count: int) -> dict[str, BookWindow]:
    return {
        symbol: cache.book_window(event_ns, count=count)
        for symbol, cache in caches.items()
        if cache.has_book
    }


def _down(caches: Caches, event_ns: int) -> frozenset[str]:
    return frozenset(s for s, cache in caches.items() if cache.bars.is_down(event_ns))
