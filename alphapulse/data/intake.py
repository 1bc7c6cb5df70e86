"""Take the events of a source: refuse what cannot be right, put the rest in order, give it out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from alphapulse.config import Feed
from alphapulse.data.merge import Merger
from alphapulse.data.validation import Touch, Validator
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import BookDelta, MarketEvent
from alphapulse.domain.quality import Reason


class Intake:
    """The way of an event from its source to the cache.

    ```python
    intake = Intake(symbols, settings, touch=touch, on_refused_book=refresh)
    intake.open(provider.events())
    while (event := await intake.next()) is not None:
        cache.apply(event)
    ```
    """

    def __init__(
        self,
        symbols: Sequence[str],
        settings: Feed,
        *,
        touch: Touch,
        on_refused_book: Callable[[BookDelta], None],
    ) -> None:
        """Prepare to take events.

        Args:
            symbols: what is watched.
            settings: watermark, and what cannot be right.
            touch: says where a book stands.
            on_refused_book: told of a whole book that was refused: another one is needed.
        """
        self._on_refused_book = on_refused_book
        self._validator = Validator(symbols, settings, touch=touch)
        self._merger = Merger(symbols, watermark_ms=settings.watermark_ms)
        self._events: AsyncIterator[MarketEvent] | None = None
        self._ready: deque[MarketEvent] = deque()
        self._has_ended = False

    def open(self, events: AsyncIterator[MarketEvent]) -> None:
        """Take events from here on from `events`."""
        self._events = events

    async def next(self) -> MarketEvent | None:
        """Return the next event in order, None at the end of the source."""
        if self._events is None:
            raise Unavailable("feed: expected open() before the first instant; call it once")
        while not self._ready and not self._has_ended:
            event = await anext(self._events, None)
            if event is None:
                self._has_ended = True
                self._validator.flush()
                self._ready.extend(self._merger.flush())
            else:
                taken = self._validator.take(event)
                for good in taken:
                    self._ready.extend(self._merger.push(good))
                if not taken and isinstance(event, BookDelta) and event.is_snapshot:
                    self._on_refused_book(event)
        return self._ready.popleft() if self._ready else None

    def put_back(self, events: Iterable[MarketEvent]) -> None:
        """Give `events`, oldest first, out again before all others."""
        self._ready.extendleft(reversed(list(events)))

    @property
    def refused(self) -> Counter[Reason]:
        """Return how many events were refused as they came, by reason."""
        return self._validator.refused

    @property
    def late(self) -> Counter[Reason]:
        """Return how many events came too late for their place, by reason."""
        return self._merger.late

    @property
    def late_candles(self) -> int:
        """Return how many venue candles were given out late."""
        return self._merger.late_candles
