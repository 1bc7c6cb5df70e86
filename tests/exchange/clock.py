"""A clock for the product that goes as fast as the exchange plays."""

from __future__ import annotations

import asyncio

from alphapulse.data.patience import Clocks
from tests.exchange.columns import SECOND
from tests.exchange.server import Exchange

LOOK_S = 0.001  # between two looks at the clock while somebody waits


class PlayedClock:
    """The exchange's played moment as the time of day, and everything that waits by it.

    So pauses, silences and bounds pass with the play, however fast it is. Where the play stands
    still, `add` moves the clock.
    """

    def __init__(self, exchange: Exchange, waited: list[float] | None = None) -> None:
        """Follow `exchange`; every pause is appended to `waited` [s]."""
        self._exchange = exchange
        self._waited = [] if waited is None else waited
        self._added_s = 0.0

    @property
    def clocks(self) -> Clocks:
        """Return what `Live` takes the time from."""
        return Clocks(sleep=self._sleep, now_s=self._now_s, wall_ns=self._wall_ns)

    def add(self, seconds: float) -> None:
        """Let that much time pass without a message."""
        self._added_s += seconds

    def _now_s(self) -> float:
        return self._exchange.now_ns / SECOND + self._added_s

    def _wall_ns(self) -> int:
        return self._exchange.now_ns + int(self._added_s * SECOND)

    async def _sleep(self, seconds: float) -> None:
        self._waited.append(seconds)
        until_s = self._now_s() + seconds
        await asyncio.sleep(0)
        while self._now_s() < until_s:
            await asyncio.sleep(LOOK_S)
