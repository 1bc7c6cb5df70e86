"""Settle in event time what the models said: every forecast, and every action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.learning import Inference, InferenceLabel, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import BarSeries, Pivot, Timeframe
from alphapulse.learning.entries import Entries
from alphapulse.learning.labels import ACTION, Labels
from alphapulse.learning.next_pivots import NextPivots

RISK = Timeframe.H1  # R, the risk of an entry, is one hourly volatility


class Settlement:
    """Takes a run's bars and decisions in event order, hands out each outcome once it is known.

    All state is in memory: feed a run from its beginning and the same outcomes come again, in the
    same order, each known by (inference, timeframe, level, version).

    ```python
    settlement = Settlement(cost_bps=10.0)
    for series in history_before_the_run:
        settlement.seed(series)
    while (found := await history.follow(cursor, 200)).events:
        await history.settle(settlement.take(found.events))
        cursor = found.cursor
    ```

    A forecast is answered as `NextPivots` says, an action as `Entries` says: on the bars of 1s
    where the symbol has any by the time of the decision, else on those of 1m. `result` is that of
    the action taken, 0 for hold; the rest of an action's row is that of the side taken, for hold of
    the side that ended last.
    """

    def __init__(self, *, cost_bps: float) -> None:
        """Begin without history; `cost_bps` is paid at entry and at exit [bps]."""
        self._cost = cost_bps / 1e4
        self._streams: dict[tuple[str, Timeframe], NextPivots] = {}
        self._entries: dict[tuple[str, Timeframe, str], Entries] = {}
        self._new_pivots: list[Pivot] = []
        self._seeded_ns = -1  # close of the newest bar of a seed
        self._first_ns: int | None = None
        self._now_ns = -1
        self._counts: Counter[str] = Counter()
        self._labels = Labels()
        self._examples: set[str] = set()  # inferences with an answered forecast

    def seed(self, series: BarSeries) -> None:
        """Take bars of a stream from before the run's first instant: pivots do not start anew.

        Where one of them closed after it, `take` raises InvalidRequest: what the run shows of that
        time would count as known already, and later pivots would answer its forecasts.
        """
        self._stream(series.symbol, series.timeframe).seed(series)
        if len(series):
            closed_ns = int(series.open_ns_T[-1]) + series.timeframe.ns
            self._seeded_ns = max(self._seeded_ns, closed_ns)

    def take(self, events: Iterable[ShownBar | PastDecision]) -> list[Outcome]:
        """Take what happened next and return the outcomes known by it, in the order they became so.

        A bar that is known already changes nothing. A decision older than what was fed before has
        no outcome: bars it should have met are gone.
        """
        known: list[Outcome] = []
        for event in events:
            self._require_seed_before(event)
            if isinstance(event, ShownBar):
                known += self._closed(event)
            else:
                known += self._decided(event)
        for outcome in known:
            self._labels.answer(outcome)
        answered = [outcome for outcome in known if outcome.level > 0]
        self._examples |= {outcome.inference_id for outcome in answered}
        self._counts["settled_forecasts"] += len(answered)
        self._counts["settled_actions"] += len(known) - len(answered)
        return known

    def pivots(self) -> tuple[Pivot, ...]:
        """Return the pivots of all levels that bars of the run confirmed since the last call.

        Those of the seed, and of bars that had closed before the run's first instant, are not
        among them.
        """
        found, self._new_pivots = tuple(self._new_pivots), []
        return found

    def labels(self) -> list[InferenceLabel]:
        """Return the inferences labelled since the last call: answered, or never to be."""
        return self._labels.take()

    def end(self) -> None:
        """Label what is still pending as void: the source has ended, no answer can come.

        Its forecasts stay without an outcome, and count as pending: they are right-censored.
        """
        self._labels.end(self._now_ns)

    @property
    def num_unlabelled(self) -> int:
        """Return how many inferences may be answered yet."""
        return self._labels.num_open

    @property
    def num_pending(self) -> dict[str, int]:
        """Return how many forecasts and actions have no answer yet."""
        return {
            "forecasts": sum(stream.num_waiting for stream in self._streams.values()),
            "actions": sum(entries.num_open for entries in self._entries.values()),
        }

    def counters(self) -> dict[str, int]:
        """Return how many were settled, wait, and will have no outcome, by reason.

        `examples` counts the inferences with at least one answered forecast. All of it is counted
        since this settlement began, of what it was fed: one that begins again is fed what the
        journal still has, so that what retention took out of it meanwhile is counted no more.
        """
        pending = {f"pending_{kind}": count for kind, count in self.num_pending.items()}
        counts = {
            name: self._counts[name]
            for name in ("settled_forecasts", "settled_actions", "without_unit", "late")
        }
        void = sum(stream.num_void for stream in self._streams.values())
        return counts | pending | {"void_forecasts": void, "examples": len(self._examples)}

    def _require_seed_before(self, event: ShownBar | PastDecision) -> None:
        at_ns = event.shown_ns if isinstance(event, ShownBar) else event.event_ns
        if at_ns < self._seeded_ns:
            raise InvalidRequest(
                f"settlement: expected a seed that had closed by the first instant {at_ns}, was "
                f"one until {self._seeded_ns}; seed with `series.until(first_instant)`"
            )

    def _closed(self, bar: ShownBar) -> list[Outcome]:
        stream = self._stream(bar.symbol, bar.timeframe)
        if stream.expected_ns is not None and bar.open_ns < stream.expected_ns:
            return []
        if self._first_ns is None:
            self._first_ns = bar.shown_ns
        if bar.shown_ns < self._now_ns:
            bar = replace(bar, shown_ns=self._now_ns)  # it came late: it proves nothing before
        self._now_ns = bar.shown_ns
        pivots, known = stream.closed(bar)
        for inference_id, level in stream.voided():
            self._labels.void(inference_id, (bar.timeframe, level), known_ns=bar.shown_ns)
        self._new_pivots += [pivot for pivot in pivots if pivot.confirm_ns >= self._first_ns]
        for (symbol, timeframe, _), entries in self._entries.items():
            if (symbol, timeframe) == (bar.symbol, bar.timeframe):
                known += entries.closed(bar)
        return known

    def _decided(self, decision: PastDecision) -> list[Outcome]:
        if decision.event_ns < self._now_ns:
            self._counts["late"] += 1
            for inference in decision.inferences:
                self._labels.wait(decision, inference, ())
            return []
        self._now_ns = decision.event_ns
        known: list[Outcome] = []
        for inference in decision.inferences:
            parts = {ACTION} if _is_priced(decision, RISK) else set()
            for forecast in inference.forecasts:
                if _is_priced(decision, forecast.timeframe):
                    stream = self._stream(decision.symbol, forecast.timeframe)
                    stream.wait(decision, inference, forecast)
                    parts.add((forecast.timeframe, forecast.level))
                else:
                    self._counts["without_unit"] += 1
            self._labels.wait(decision, inference, parts)
            known += self._act(decision, inference)
        return known

    def _act(self, decision: PastDecision, inference: Inference) -> list[Outcome]:
        """Let an action end what it is against, then enter on it."""
        symbol, known = decision.symbol, []
        for timeframe in (Timeframe.S1, Timeframe.M1):
            if entries := self._entries.get((symbol, timeframe, inference.model)):
                known += entries.said(decision.event_ns, inference.action)
        if not _is_priced(decision, RISK):
            self._counts["without_unit"] += 1
            return known
        has_seconds = self._stream(symbol, Timeframe.S1).expected_ns is not None
        timeframe = Timeframe.S1 if has_seconds else Timeframe.M1
        key = (symbol, timeframe, inference.model)
        if key not in self._entries:
            self._entries[key] = self._new_entries(timeframe)
        self._entries[key].enter(decision, inference, risk=decision.unit[RISK])
        return known

    def _stream(self, symbol: str, timeframe: Timeframe) -> NextPivots:
        key = (symbol, timeframe)
        if key not in self._streams:
            self._streams[key] = self._new_stream(symbol, timeframe)
        return self._streams[key]

    def _new_stream(self, symbol: str, timeframe: Timeframe) -> NextPivots:
        return NextPivots(symbol, timeframe)

    def _new_entries(self, timeframe: Timeframe) -> Entries:
        return Entries(timeframe, cost=self._cost)


def _is_priced(decision: PastDecision, timeframe: Timeframe) -> bool:
    """Return whether a move can be counted; comparisons with NaN are false."""
    return decision.price > 0 and decision.unit[timeframe] > 0
