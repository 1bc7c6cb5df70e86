"""Wait between two attempts as long as the venue says, by a clock that a test can move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tenacity import RetryCallState
from tenacity.wait import wait_exponential_jitter

LONGEST_PAUSE_S = 30.0  # between two attempts, unless the venue asks for more
JITTER = 0.1  # of the first pause: many clients must not come back at one moment

Answer = TypeVar("Answer")
Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Everything a live source takes the time from.

    Attributes:
        sleep: waits that many seconds.
        now_s: seconds of a clock that never goes back; ages and bounds are measured on it.
        wall_ns: the time of day [ns UTC]; stamps what is received.
    """

    sleep: Sleep = asyncio.sleep
    now_s: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns


@dataclass(slots=True)
class Backoff:
    """Growing pauses between attempts: 1 s, 2 s, ... 30 s, or what Retry-After says, if longer.

    Attributes:
        first_s: the first pause [s].
        attempts: failures since the last success.
    """

    clocks: Clocks
    first_s: float
    attempts: int = 0
    _wait: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._wait = wait_exponential_jitter(
            multiplier=self.first_s, max=LONGEST_PAUSE_S, jitter=JITTER * self.first_s
        )

    def reset(self) -> None:
        """Note a success: the next pause is the first again."""
        self.attempts = 0

    async def pause(self, venue: Any, *, most_s: float | None = None) -> None:
        """Wait after a failure.

        Args:
            venue: ccxt exchange whose last answer may carry Retry-After.
            most_s: bound of the pause [s]; None is as long as it takes.
        """
        self.attempts += 1
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = self.attempts
        pause_s = max(self._wait(state), retry_after_s(venue))
        await self.clocks.sleep(pause_s if most_s is None else min(pause_s, most_s))


def retry_after_s(venue: Any) -> float:
    """Return how long the venue's newest refusals ask to wait [s], 0 if they do not.

    ccxt keeps that of REST in `last_response_headers`, and that of a refused WebSocket as the time
    of its own next attempt; both are taken away, so that each is waited for once.
    """
    headers = getattr(venue, "last_response_headers", None) or {}
    found = {str(name).lower(): value for name, value in headers.items()}.get("retry-after", "")
    seconds = float(found) if str(found).isdigit() else 0.0
    if seconds:
        venue.last_response_headers = {}
    dials = getattr(venue, "ws_dial_backoff", None) or {}
    if dials:
        newest_ms = max(state["until"] for state in dials.values())
        seconds = max(seconds, newest_ms / 1_000 - time.time())
        dials.clear()
    return max(seconds, 0.0)


async def within(
    clocks: Clocks, seconds: float, ask: Callable[[], Awaitable[Answer]]
) -> Answer | None:
    """Return what `ask` gives, None if it takes longer than `seconds` by the clock."""
    asking = asyncio.ensure_future(ask())
    waiting = asyncio.ensure_future(clocks.sleep(seconds))
    try:
        await asyncio.wait((asking, waiting), return_when=asyncio.FIRST_COMPLETED)
        return await asking if asking.done() else None
    finally:
        for task in (asking, waiting):
            task.cancel()
        await asyncio.gather(asking, waiting, return_exceptions=True)
