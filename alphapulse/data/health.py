"""Say how a live source is: how old each stream is, how far the clocks are apart, what happened."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from statistics import median
from typing import Any

from alphapulse.data.patience import Clocks
from alphapulse.domain.quality import Reason

STREAMS = ("trade", "book", "candle")
SAMPLES = 9  # newest answers about the time a skew is the median of
QUARANTINE_SIZE = 1_000  # newest refused messages kept to look at; the counter knows all of them
NS_PER_S = 1e9
NS_PER_MS = 1e6


class Skew:
    """How far the venue's clock is ahead of ours.

    The venue's answer about its time says it best: it was given between question and answer. Until
    there is one, the message that arrived fastest says the most it can be behind.
    """

    def __init__(self) -> None:
        self._asked: deque[float] = deque(maxlen=SAMPLES)
        self._seen = math.inf

    def asked(self, venue_ns: int, sent_ns: int, received_ns: int) -> None:
        """Take an answer about the venue's time and when it was asked and received [ns UTC]."""
        self._asked.append((venue_ns - (sent_ns + received_ns) / 2) / NS_PER_MS)

    def heard(self, ts_ns: int, received_ns: int) -> None:
        """Take a message of a stream: its exchange time and when it was received [ns UTC]."""
        self._seen = min(self._seen, (received_ns - ts_ns) / NS_PER_MS)

    @property
    def ms(self) -> float | None:
        """Return venue minus us [ms], None while nothing is known."""
        if self._asked:
            return median(self._asked)
        return None if math.isinf(self._seen) else -self._seen


class SymbolHealth:
    """What is known about the streams of one symbol.

    Attributes:
        counters: `reconnects`, `silences` (connections closed because nothing came), `backfilled`
            trades, `gaps` told, `book_gaps`, `snapshots`, `polls` of the fallback, `dropped`
            messages (the reader was too slow).
        is_fallback: whether the book is polled, because its stream is silent.
        is_down: whether trades are missing that cannot be had.
    """

    def __init__(self, clocks: Clocks) -> None:
        self.counters: Counter[str] = Counter()
        self.is_fallback = False
        self.is_down = False
        self._clocks = clocks
        self._heard_s: dict[str, float] = {}
        self._fastest_ms: deque[float] = deque(maxlen=100)

    def heard(self, stream: str) -> None:
        """Note that a message of `trade`, `book` or `candle` came."""
        self._heard_s[stream] = self._clocks.now_s()

    def took(self, ts_ns: int, received_ns: int) -> None:
        """Note how long a message took: exchange time and when it was received [ns UTC]."""
        self._fastest_ms.append((received_ns - ts_ns) / NS_PER_MS)

    def has_heard(self, stream: str) -> bool:
        """Return whether any message of the stream ever came."""
        return stream in self._heard_s

    def age_s(self, stream: str) -> float:
        """Return how long ago the newest message came [s], infinite before the first."""
        heard_s = self._heard_s.get(stream)
        return math.inf if heard_s is None else self._clocks.now_s() - heard_s

    def as_dict(self, skew_ms: float | None) -> dict[str, Any]:
        """Return everything as plain values; see `Live.health`."""
        ages = {s: None if math.isinf(age := self.age_s(s)) else round(age, 3) for s in STREAMS}
        delay_ms = None
        if self._fastest_ms and skew_ms is not None:
            delay_ms = round(median(self._fastest_ms) + skew_ms, 3)
        names = ("reconnects", "silences", "backfilled", "gaps", "book_gaps", "snapshots", "polls",
                 "dropped")  # fmt: skip
        return {
            "age_s": ages,
            "delay_ms": delay_ms,
            "fallback": self.is_fallback,
            "down": self.is_down,
            **{name: self.counters[name] for name in names},
        }


class Health:
    """The health of a live source.

    Attributes:
        skew: of the venue's clock.
        quarantine: (code, message) of the newest refused messages, at most 1000.
        quarantined: number of all of them, by code.
    """

    def __init__(self, symbols: Iterable[str], clocks: Clocks) -> None:
        self.skew = Skew()
        self.quarantine: deque[tuple[Reason, str]] = deque(maxlen=QUARANTINE_SIZE)
        self.quarantined: Counter[Reason] = Counter()
        self._symbols = {symbol: SymbolHealth(clocks) for symbol in symbols}

    def of(self, symbol: str) -> SymbolHealth:
        """Return the health of one symbol."""
        return self._symbols[symbol]

    def refuse(self, code: Reason, message: str) -> None:
        """Keep and count a message that cannot be an event."""
        self.quarantine.append((code, message))
        self.quarantined[code] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; see `Live.health`."""
        skew_ms = self.skew.ms
        return {
            "skew_ms": None if skew_ms is None else round(skew_ms, 3),
            "quarantined": {code.value: num for code, num in self.quarantined.items()},
            "symbols": {s: one.as_dict(skew_ms) for s, one in self._symbols.items()},
        }
