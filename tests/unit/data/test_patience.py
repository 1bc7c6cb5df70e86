"""Pauses grow, end at their bound, and are as long as the venue asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from alphapulse.data.patience import LONGEST_PAUSE_S, Backoff, Clocks, retry_after_s, within


class Venue:
    """As ccxt keeps what a refusal said."""

    def __init__(self, headers: dict[str, str] | None = None, until_s: float = 0.0) -> None:
        self.last_response_headers: Any = headers
        self.ws_dial_backoff: Any = {}
        if until_s:
            self.ws_dial_backoff["wss://"] = {"until": (time.time() + until_s) * 1_000}


class Pauses:
    """A clock on which every pause is over at once."""

    def __init__(self) -> None:
        self.made: list[float] = []

    @property
    def clocks(self) -> Clocks:
        async def sleep(seconds: float) -> None:
            self.made.append(seconds)

        return Clocks(sleep=sleep)


def test_pauses_double_to_their_bound_and_begin_anew_after_a_success() -> None:
    pauses, venue = Pauses(), Venue()
    backoff = Backoff(pauses.clocks, 1.0)

    async def fail() -> None:
        for _ in range(8):
            await backoff.pause(venue)
        backoff.reset()
        await backoff.pause(venue)

    asyncio.run(fail())

    assert pauses.made == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 1], abs=0.1)
    assert max(pauses.made) <= LONGEST_PAUSE_S


@pytest.mark.parametrize(
    "said", [{"headers": {"Retry-After": "7"}}, {"headers": {"retry-after": "7"}}, {"until_s": 7.0}]
)
def test_what_the_venue_asks_for_is_waited_once(said: dict[str, Any]) -> None:
    venue = Venue(**said)

    assert retry_after_s(venue) == pytest.approx(7, abs=0.1)
    assert retry_after_s(venue) == 0


def test_a_bound_cuts_a_pause_short() -> None:
    pauses = Pauses()

    asyncio.run(Backoff(pauses.clocks, 1.0).pause(Venue({"Retry-After": "60"}), most_s=2.5))

    assert pauses.made == [2.5]


def test_what_takes_too_long_is_none() -> None:
    async def never() -> int:
        await asyncio.Event().wait()
        return 1

    async def at_once() -> int:
        return 2

    async def run() -> list[int | None]:
        return [await within(Clocks(), 0.01, never), await within(Clocks(), 5, at_once)]

    assert asyncio.run(run()) == [None, 2]


def test_an_error_of_what_is_asked_comes_through() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(within(Clocks(), 5, fail))
