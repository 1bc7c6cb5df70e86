"""A recording as it was, but with its events or candles changed: poisoned, dearer, or mirrored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np

from alphapulse.data.tape import Tape
from alphapulse.domain.inference import Decision
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import (
    Bar,
    BarSeries,
    BookDelta,
    Instrument,
    MarketEvent,
    Timeframe,
    Trade,
)
from alphapulse.interfaces import DataProvider

Change = Callable[[MarketEvent], MarketEvent]


class Altered(DataProvider):
    """Hands on what a tape holds, changed event by event and series by series."""

    def __init__(self, tape: Tape, event: Change, series: Callable[[BarSeries], BarSeries]) -> None:
        self._tape, self._event, self._series = tape, event, series

    async def history(
        self, instrument: Instrument, timeframe: Timeframe, count: int | None
    ) -> BarSeries:
        return self._series(await self._tape.history(instrument, timeframe, count))

    async def events(self) -> AsyncIterator[MarketEvent]:
        async for event in self._tape.events():
            yield self._event(event)


def times(factor: float) -> Change:
    """Return what multiplies all prices of an event."""

    def dearer(event: MarketEvent) -> MarketEvent:
        if isinstance(event, Trade):
            return replace(event, price=event.price * factor)
        if isinstance(event, BookDelta):
            scale_2 = np.array([factor, 1.0])
            return replace(event, bids_L2=event.bids_L2 * scale_2, asks_L2=event.asks_L2 * scale_2)
        if isinstance(event, Bar):
            names = ("open", "high", "low", "close")
            return replace(event, **{name: getattr(event, name) * factor for name in names})
        return event

    return dearer


def poisoned_from(ns: int) -> Change:
    """Return what makes every event at or after `ns` [ns UTC] a thousand times as dear."""
    wild = times(1_000.0)

    def change(event: MarketEvent) -> MarketEvent:
        if event.ts_ns < ns:
            return event
        if isinstance(event, Trade):  # and of the other side, and larger
            event = replace(event, is_buy=not event.is_buy, size=event.size * 7)
        return wild(event)

    return change


def dearer(series: BarSeries, factor: float) -> BarSeries:
    """Return candles with all prices multiplied."""
    scale_C = np.array([factor] * 4 + [1.0])
    return replace(series, ohlcv_TC=series.ohlcv_TC * scale_C)


def mirrored(series: BarSeries, about: float) -> BarSeries:
    """Return candles of the price `about` squared / price: the log price negated, highs lows.

    A bar that closes where it opened counts as one that rises (ML.md 1.4 d: C >= O); in the mirror
    it must count as one that falls, so its close, or its open, is moved by one last digit.
    """
    open_T, high_T, low_T, close_T, volume_T = series.ohlcv_TC.T
    first_T, top_T, bottom_T, last_T = about**2 / np.stack([open_T, low_T, high_T, close_T])
    is_flat_T = (open_T == close_T) & (low_T < high_T)
    can_fall_T = is_flat_T & (last_T > bottom_T)
    last_T[can_fall_T] = np.nextafter(last_T[can_fall_T], 0.0)
    can_rise_T = is_flat_T & ~can_fall_T
    first_T[can_rise_T] = np.nextafter(first_T[can_rise_T], np.inf)
    mirror_TC = np.column_stack([first_T, top_T, bottom_T, last_T, volume_T])
    return replace(series, ohlcv_TC=mirror_TC)


def same_bits(a: ModelInput, b: ModelInput) -> bool:
    """Return whether two inputs are the same, bit for bit, price and substitutes included."""
    return (
        a.content_hash == b.content_hash
        and (a.price, a.substitutions) == (b.price, b.substitutions)
        and a.scale_S2.tobytes() == b.scale_S2.tobytes()
    )


def numbers_of(decision: Decision) -> list[bytes]:
    """Return the bits of every number of every prediction behind a decision."""
    found = []
    for p in decision.predictions:
        told = [p.p_buy, p.p_sell, p.p_hold, p.confidence, p.utility_r, *p.weights.values()]
        told += [v for f in p.forecasts for v in (f.p_high, f.bars_ahead, f.price, f.p_done)]
        found += [np.array(told).tobytes(), np.asarray(p.hidden_H).tobytes()]
    return found
