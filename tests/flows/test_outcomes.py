"""Every outcome of a recorded run equals what an independent recomputation from raw bars finds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import (
    MODELS,
    Action,
    Decision,
    DecisionRecord,
    InputPackage,
    StoredRow,
    trace_id,
)
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.learning import Cursor, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import TIMEFRAMES, BarSeries, Pivot, PivotKind, Timeframe
from alphapulse.interfaces import Query
from alphapulse.learning.entries import Entries
from alphapulse.learning.next_pivots import NextPivots
from alphapulse.learning.outcomes import Settlement
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from alphapulse.models.network import volatility_SF
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from tests.flows.recomputed import NS, action_answer, bars_of, forecast_answer, pivots_of

KEPT = Path(__file__).parents[1] / "golden" / "run"
EVERY = 120  # first instants that are all decided; of those after them, every fifth is
COST_BPS = 10.0
NEAR = 0.02  # share of R at which stops are within reach of ten minutes
Answers = dict[tuple[str, str, int], dict[str, Any]]  # by inference, timeframe, level


@dataclass(frozen=True)
class Recorded:
    """A run over the recorded window: what was stored of it, and how it was settled."""

    history: InferenceHistory
    events: tuple[ShownBar | PastDecision, ...]
    seeds: tuple[BarSeries, ...]
    inputs: dict[str, ModelInput]

    @property
    def decisions(self) -> list[PastDecision]:
        """Return the decisions in order."""
        return [event for event in self.events if isinstance(event, PastDecision)]


@pytest.fixture(scope="module")
def recorded(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Return the run of the golden checkpoints over the whole window."""
    home, settings = Home(tmp_path_factory.mktemp("home")), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)
    seeds = asyncio.run(make_run(recordings, history, run.id))
    events = asyncio.run(followed(history))
    ids = [e.inferences[0].id for e in events if isinstance(e, PastDecision)]
    yield Recorded(history, events, seeds, asyncio.run(history.inputs(ids)))
    history.close()


async def make_run(recordings: Path, history: InferenceHistory, run: str) -> tuple[BarSeries, ...]:
    """Decide and store the window, and return the bars from before it."""
    settings = Settings()
    cnn, rl, moe = (local(load_model(KEPT / model)) for model in MODELS)
    instruments = settings.market.instruments
    tape = Tape(recordings, instruments)
    feed = MarketFeed(tape, instruments, settings.feed)
    await feed.open()
    rows: tuple[StoredRow, ...] = ()  # shown at the next instant that is decided
    number = 0
    while (point := await feed.advance()) is not None:
        rows += point.rows
        if number < EVERY or number % 5 == 0:
            for symbol, input in point.inputs.items():
                assert isinstance(input, ModelInput)
                thresholds = settings.decision.thresholds
                decision = await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)
                package = point.packages[symbol]
                await history.append([record_of(decision, package=package, rows=rows, run=run)])
                rows = ()
                feed.put_outputs(decision.predictions)
        number += 1
    return tuple([await tape.history(i, tf, None) for i in instruments for tf in TIMEFRAMES])


def record_of(
    decision: Decision, *, package: InputPackage, rows: tuple[StoredRow, ...], run: str
) -> DecisionRecord:
    return DecisionRecord(
        run=run,
        trace_id=trace_id(run=run, symbol=decision.symbol, event_ns=decision.event_ns),
        config_hash=Settings().hash,
        last_trade_id=0,
        last_book_id=0,
        received_ns=decision.event_ns,
        decided_at_ns=decision.event_ns,
        package=package,
        rows=rows,
        decision=decision,
    )


async def followed(history: InferenceHistory) -> tuple[ShownBar | PastDecision, ...]:
    cursor, events = Cursor(), ()
    while (found := await history.follow(cursor, 50)).events:
        cursor, events = found.cursor, events + found.events
    return events


def settled(
    recorded: Recorded, *, calm: float = 1.0, settlement: Settlement | None = None
) -> tuple[Outcome, ...]:
    """Return the outcomes of the run; with `calm` below 1 its stops are that much nearer."""
    settlement = settlement or Settlement(cost_bps=COST_BPS)
    for series in recorded.seeds:
        settlement.seed(series)
    return tuple(settlement.take(nearer(event, calm) for event in recorded.events))


def nearer(event: ShownBar | PastDecision, calm: float) -> ShownBar | PastDecision:
    if isinstance(event, ShownBar):
        return event
    return replace(event, unit={**event.unit, Timeframe.H1: event.unit[Timeframe.H1] * calm})


def recomputed(recorded: Recorded, folder: Path, *, calm: float) -> Answers:
    """Return every answer known by the end of the run, from raw bars and what is stored of it."""
    answers: Answers = {}
    said = asyncio.run(recorded.history.query(Query()))
    forecasts = asyncio.run(recorded.history.query(Query(table="predictions")))
    instants = np.unique(said["event_ns"])
    for symbol in said["symbol"].unique():
        bars = {tf: bars_of(folder, symbol, tf, instants[-1]) for tf in NS}
        pivots = {tf: pivots_of(bars[tf], NS[tf]) for tf in NS}
        inputs = {i.event_ns: i for i in recorded.inputs.values() if i.symbol == symbol}
        units = {
            t: dict(zip(TIMEFRAMES, volatility_SF(i.bars_SFTC, i.flags_SFT)[0], strict=True))
            for t, i in inputs.items()
        }
        for f in forecasts[forecasts["symbol"] == symbol].itertuples():
            if f.timeframe in NS:
                price, unit = inputs[f.event_ns].price, units[f.event_ns][f.timeframe]
                answer = forecast_answer(f, price, unit, pivots[f.timeframe])
                if answer:
                    answers[f.inference_id, f.timeframe, f.level] = answer
        for _, of_model in said[said["symbol"] == symbol].groupby("model"):
            actions = dict(zip(of_model["event_ns"], of_model["action"], strict=True))
            for id_, t in zip(of_model["id"], of_model["event_ns"], strict=True):
                price, risk = inputs[t].price, units[t]["1h"] * calm
                answer = action_answer(
                    t, actions, bars["1s"], price=price, risk=risk, cost=COST_BPS / 1e4
                )
                if answer:
                    answers[id_, "1s", 0] = answer
    for answer in answers.values():  # nobody sees a bar before the next decision that is stored
        answer["known_ns"] = instants[np.searchsorted(instants, answer["known_ns"])]
    return answers


@pytest.fixture(scope="module")
def answers(recorded: Recorded, recordings: Path) -> dict[float, Answers]:
    """Return the recomputed answers, with stops as far as they were and with near ones."""
    return {calm: recomputed(recorded, recordings, calm=calm) for calm in (1.0, NEAR)}


def differences(outcomes: Sequence[Outcome], answers: Answers) -> list[str]:
    """Return what differs, exact but for floats, which may err by 1e-9."""
    found = {(o.inference_id, o.timeframe, o.level): o for o in outcomes}
    different = [f"missing {key}" for key in answers.keys() - found.keys()]
    different += [f"unknown {key}" for key in found.keys() - answers.keys()]
    different += ["twice"] * (len(outcomes) - len(found))
    for key in found.keys() & answers.keys():
        for name, value in answers[key].items():
            was = getattr(found[key], name)
            if was != (
                pytest.approx(value, abs=1e-9, nan_ok=True) if isinstance(value, float) else value
            ):
                different.append(f"{key} {name}: expected {value}, was {was}")
    return different


@pytest.mark.parametrize("calm", [1.0, NEAR])
def test_every_outcome_equals_an_independent_recomputation(
    recorded: Recorded, answers: dict[float, Answers], calm: float
) -> None:
    outcomes = settled(recorded, calm=calm)

    assert differences(outcomes, answers[calm]) == []
    count = Counter((o.timeframe, o.level) for o in outcomes)
    assert count["1s", 2] >= 100
    assert count["1m", 2] >= 1
    assert count["1s", 0] >= 500
    assert set(count) == {("1s", 2), ("1m", 2), ("1s", 0)}
    reasons = {o.reason for o in outcomes if o.level == 0}
    assert {"horizon", "reversal"} <= reasons
    assert ("stop" in reasons) == (calm < 1)


class NeverAtTheInstant(NextPivots):
    """Wrong: takes a pivot for the next one only if its bar opens after the instant."""

    def _answered(self, pivot: Pivot, *, shown_ns: int) -> Any:
        queue = self._waiting[pivot.level, pivot.kind]
        passed_over = [waiting for waiting in queue if waiting.event_ns == pivot.pivot_ns]
        for waiting in passed_over:
            queue.remove(waiting)
        yield from super()._answered(pivot, shown_ns=shown_ns)
        queue.extendleft(reversed(passed_over))


class FirstConfirmed(NextPivots):
    """Wrong: takes the pivot confirmed first for the next one, and waits for no other."""

    def _answered(self, pivot: Pivot, *, shown_ns: int) -> Any:
        yield from super()._answered(pivot, shown_ns=shown_ns)
        (other,) = (kind for kind in PivotKind if kind is not pivot.kind)
        queue = self._waiting[pivot.level, other]
        while queue and queue[0].event_ns <= pivot.pivot_ns:
            waiting = queue.popleft()
            waiting.next[other] = replace(pivot, kind=other, pivot_ns=2**62)
            yield waiting


class Stopless(Entries):
    """Wrong: looks for stops at closes only."""

    def closed(self, bar: ShownBar) -> list[Outcome]:
        return super().closed(replace(bar, high=bar.close, low=bar.close))


class Stubborn(Entries):
    """Wrong: does not hear the model change its mind."""

    def said(self, event_ns: int, action: Action) -> list[Outcome]:
        return super().said(event_ns, Action.HOLD)


@pytest.mark.parametrize("wrong", [NeverAtTheInstant, FirstConfirmed, Stopless, Stubborn])
def test_a_wrong_settlement_is_seen(
    recorded: Recorded,
    answers: dict[float, Answers],
    wrong: type[NextPivots] | type[Entries],
) -> None:
    class Wrong(Settlement):
        def _new_stream(self, symbol: str, timeframe: Timeframe) -> NextPivots:
            is_it = issubclass(wrong, NextPivots)
            return wrong(symbol, timeframe) if is_it else super()._new_stream(symbol, timeframe)

        def _new_entries(self, timeframe: Timeframe) -> Entries:
            is_it = issubclass(wrong, Entries)
            return wrong(timeframe, cost=self._cost) if is_it else super()._new_entries(timeframe)

    outcomes = settled(recorded, calm=NEAR, settlement=Wrong(cost_bps=COST_BPS))

    assert differences(outcomes, answers[NEAR])


def test_costs_left_out_are_seen(recorded: Recorded, answers: dict[float, Answers]) -> None:
    outcomes = settled(recorded, settlement=Settlement(cost_bps=0.0))

    assert differences(outcomes, answers[1.0])


def test_followed_prices_and_units_are_those_of_the_rebuilt_inputs(recorded: Recorded) -> None:
    decisions = recorded.decisions

    rebuilt = [recorded.inputs[decision.inferences[0].id] for decision in decisions]

    assert len(decisions) == 2 * len({d.event_ns for d in decisions}) > 400
    for decision, input in zip(decisions, rebuilt, strict=True):
        assert decision.price == input.price
        unit_F = volatility_SF(input.bars_SFTC, input.flags_SFT)[0]
        np.testing.assert_array_equal([decision.unit[tf] for tf in TIMEFRAMES], unit_F)
    unknown = [np.isnan(decision.unit[Timeframe.S1]) for decision in decisions]
    assert any(unknown)
    assert not all(unknown)


def test_outcomes_are_stored_once_and_read_as_they_were(recorded: Recorded) -> None:
    outcomes = settled(recorded)
    names = [field.name for field in fields(Outcome)]

    new = [asyncio.run(recorded.history.settle(outcomes)) for _ in range(2)]
    frame = asyncio.run(recorded.history.query(Query(table="outcomes")))

    assert new == [len(outcomes), 0]
    stored = [Outcome(**row) for row in frame[names].to_dict("records")]
    assert sorted(map(repr, stored)) == sorted(map(repr, outcomes))


def test_no_outcome_is_known_before_the_bars_that_prove_it(recorded: Recorded) -> None:
    outcomes = settled(recorded)
    middle = recorded.decisions[len(recorded.decisions) // 2]
    begin = recorded.events[: recorded.events.index(middle) + 1]

    early = settled(replace(recorded, events=begin))

    assert 0 < len(early) < len(outcomes)
    assert early == outcomes[: len(early)]
    assert all(o.known_ns <= middle.event_ns for o in early)
    assert all(o.known_ns >= middle.event_ns for o in outcomes[len(early) :])
