"""Check what a decision point becomes: decisions made once, whole records, honest counts."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from alphapulse.domain.errors import ShapeMismatch
from alphapulse.domain.inference import MODELS, Decision, DecisionPoint, Thresholds, trace_id
from alphapulse.domain.inputs import ModelInput
from alphapulse.execution.engine import Act, Decide, Engine
from alphapulse.execution.recorder import Recorder
from tests.unit.execution.points import BTC, ETH, RUN, Store, a_decision, a_point, instant

Logged = Callable[[str], list[dict[str, Any]]]
HASH = "c" * 64


async def hold(input: ModelInput, thresholds: Thresholds) -> Decision:
    """Decide nothing, as the served models would if none were sure."""
    return a_decision(input, thresholds)


class Acted:
    """Remember what was acted on: instant, symbols decided, whether their records are durable."""

    def __init__(self) -> None:
        self.points: list[tuple[int, list[str], bool]] = []

    async def __call__(
        self, point: DecisionPoint, decisions: Sequence[Decision], stored: bool
    ) -> None:
        assert {d.event_ns for d in decisions} <= {point.event_ns}
        self.points.append((point.event_ns, [d.symbol for d in decisions], stored))


def an_engine(
    store: Store,
    *,
    decide: Decide = hold,
    act: Act | None = None,
    run: str = RUN,
    thresholds: Thresholds | None = None,
    durable_until: Mapping[str, int] | None = None,
) -> Engine:
    return Engine(
        run=run,
        config_hash=HASH,
        decide=decide,
        recorder=Recorder(store.append, timeout_s=5, max_pending=10),
        act=act or Acted(),
        thresholds=thresholds or Thresholds(),
        durable_until=durable_until,
    )


def walk(engine: Engine, *points: DecisionPoint) -> list[list[tuple[str, str]]]:
    """Return (symbol, model) of the predictions made at each point."""

    async def steps() -> list[list[tuple[str, str]]]:
        return [[(p.symbol, p.model) for p in await engine.step(point)] for point in points]

    return asyncio.run(steps())


def by(symbol: str) -> list[tuple[str, str]]:
    return [(symbol, model) for model in MODELS]


def test_complete_inputs_are_decided_and_recorded_together() -> None:
    store = Store()
    engine = an_engine(store)

    made = walk(engine, a_point(1))

    assert made == [by(ETH) + by(BTC)]
    assert [[r.decision.symbol for r in append] for append in store.appends] == [[ETH, BTC]]
    assert {s: d.event_ns for s, d in engine.latest.items()} == {ETH: instant(1), BTC: instant(1)}


def test_every_point_is_acted_on_once_also_where_nothing_was_decided() -> None:
    acted = Acted()
    store = Store()
    engine = an_engine(store, act=acted)

    walk(engine, a_point(1), a_point(1), a_point(2, incomplete=[ETH, BTC]))

    assert acted.points == [(instant(1), [ETH, BTC], True), (instant(2), [], True)]


def test_act_is_told_that_a_decision_is_not_stored() -> None:
    acted = Acted()

    walk(an_engine(Store(failing=True), act=acted), a_point(1))

    assert acted.points == [(instant(1), [ETH, BTC], False)]


def test_record_says_where_its_decision_comes_from() -> None:
    store = Store()
    point = a_point(1)

    walk(an_engine(store), point)

    eth, btc = store.appends[0]
    assert (eth.run, eth.config_hash) == (RUN, HASH)
    assert (eth.last_trade_id, eth.last_book_id, eth.received_ns) == (101, 201, instant(1) + 3)
    assert (btc.last_trade_id, btc.last_book_id) == (0, 0)
    assert eth.package is point.packages[ETH]
    assert btc.package is point.packages[BTC]


def test_point_seen_again_is_not_decided_again() -> None:
    store = Store()
    engine = an_engine(store)

    made = walk(engine, a_point(1), a_point(1))

    assert made[1] == []
    assert store.seconds == [1, 1]
    assert engine.tally.inferences == dict.fromkeys(MODELS, 2)


def test_decision_in_the_history_already_is_not_made_again() -> None:
    store = Store()
    engine = an_engine(store, durable_until={ETH: instant(2), BTC: instant(1)})

    made = walk(engine, a_point(1), a_point(2), a_point(3))

    assert made == [[], by(BTC), by(ETH) + by(BTC)]
    assert store.seconds == [2, 3, 3]


def test_incomplete_input_makes_no_prediction_and_is_counted(logged: Logged) -> None:
    store = Store()
    engine = an_engine(store)

    made = walk(engine, a_point(1, incomplete=[ETH]), a_point(2, incomplete=[ETH, BTC]))

    assert made == [by(BTC), []]
    assert [[r.decision.symbol for r in append] for append in store.appends] == [[BTC]]
    assert engine.tally.incomplete == {"missing_bars": 3}
    assert engine.tally.summary()["incomplete"] == 3
    line = logged("no prediction: input incomplete")[0]
    assert (line["level"], line["code"], line["symbol"]) == ("warning", "missing_bars", ETH)
    assert line["trace_id"] == trace_id(run=RUN, symbol=ETH, event_ns=instant(1))
    assert line["missing"] == ["ETH/USDT 1m: expected 300, was 12"]


def test_rows_of_a_point_without_a_record_travel_with_the_next_record() -> None:
    store = Store()
    without, complete, later = a_point(1, incomplete=[ETH, BTC]), a_point(2), a_point(3)

    walk(an_engine(store), without, complete, later)

    carried = [[record.rows for record in append] for append in store.appends]
    assert carried == [[(*without.rows, *complete.rows), ()], [later.rows, ()]]


def test_rows_of_a_point_decided_before_a_restart_travel_with_the_next_record() -> None:
    store = Store()
    durable, new = a_point(1), a_point(2)

    walk(an_engine(store, durable_until={ETH: instant(1), BTC: instant(1)}), durable, new)

    assert [record.rows for record in store.appends[0]] == [(*durable.rows, *new.rows), ()]


def test_thresholds_set_while_decisions_are_in_flight_hold_from_the_next_step() -> None:
    store = Store()
    old, new = Thresholds(entry=0.6, exit=0.5), Thresholds(entry=0.9, exit=0.8)

    async def set_new(input: ModelInput, thresholds: Thresholds) -> Decision:
        await asyncio.sleep(0)
        engine.thresholds = new
        return a_decision(input, thresholds)

    engine = an_engine(store, decide=set_new, thresholds=old)
    walk(engine, a_point(1), a_point(2))

    used = [[record.decision.thresholds for record in append] for append in store.appends]
    assert used == [[old, old], [new, new]]


def test_two_engines_of_a_run_make_equal_records() -> None:
    first, second = Store(), Store()

    for store in (first, second):
        walk(an_engine(store), a_point(1), a_point(2))

    timeless = [
        [dataclasses.replace(r, decided_at_ns=0, rows=()) for append in s.appends for r in append]
        for s in (first, second)
    ]
    assert [repr(r) for r in timeless[0]] == [repr(r) for r in timeless[1]]
    assert [r.trace_id for r in timeless[0]] == [
        trace_id(run=RUN, symbol=symbol, event_ns=instant(s))
        for s in (1, 2)
        for symbol in (ETH, BTC)
    ]


def test_another_run_has_other_trace_ids() -> None:
    first, second = Store(), Store()

    walk(an_engine(first, run="a"), a_point(1))
    walk(an_engine(second, run="b"), a_point(1))

    assert first.appends[0][0].trace_id != second.appends[0][0].trace_id


def test_decision_and_record_share_their_trace_id(logged: Logged) -> None:
    store = Store()

    walk(an_engine(store), a_point(1))

    assert [line["trace_id"] for line in logged("decided")] == [
        record.trace_id for record in store.appends[0]
    ]


def test_failing_store_does_not_stop_the_decisions(logged: Logged) -> None:
    store = Store(failing=True)
    engine = an_engine(store)

    made = walk(engine, a_point(1), a_point(2))

    assert made == [by(ETH) + by(BTC)] * 2
    assert store.appends == []
    assert engine.tally.inferences == dict.fromkeys(MODELS, 4)


def test_decision_that_fails_ends_the_step_before_anything_is_recorded() -> None:
    store = Store()

    async def fail(input: ModelInput, thresholds: Thresholds) -> Decision:
        raise ShapeMismatch(f"{input.symbol}: expected 300 rows, was 287; wait 13 bars")

    engine = an_engine(store, decide=fail)

    with pytest.raises(ShapeMismatch):
        walk(engine, a_point(1))
    assert store.appends == []
    assert engine.durable_until == {}


def test_summary_names_every_action_and_the_first_and_last_instant() -> None:
    engine = an_engine(Store())

    walk(engine, a_point(1), a_point(2))

    summary = engine.tally.summary()
    assert summary["decisions"] == {s: {"buy": 0, "sell": 0, "hold": 2} for s in (ETH, BTC)}
    assert summary["inferences"] == dict.fromkeys(MODELS, 4)
    assert (summary["from_ns"], summary["to_ns"]) == (instant(1), instant(2))
    assert all(ms >= 0 for ms in summary["decision_ms"].values())


def test_summary_of_nothing_shows_no_numbers() -> None:
    summary = an_engine(Store()).tally.summary()

    assert summary["from_ns"] is summary["to_ns"] is summary["first_at_s"] is None
    assert summary["decisions"] == summary["inferences"] == {}
    assert summary["decision_ms"] == {"p50": None, "p99": None}
