"""The desk acts once an instant: durable, then sent, then counted, whatever fails in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Risk, Settings, Trading
from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.domain.inference import inference_id
from alphapulse.domain.trading import Purpose
from tests.unit.execution.desks import (
    MARGIN,
    PRICES,
    Crash,
    Exchange,
    Room,
    decided,
    limits,
    rows_of,
)
from tests.unit.execution.points import BTC, ETH, RUN, instant

Logged = Callable[[str], list[dict[str, Any]]]
ENTRY, EXIT, STOP, HALT = (purpose.value for purpose in Purpose)
FALLING = {0: {ETH: 2_500.0}, 2: {ETH: 2_000.0}}  # ETH loses a fifth after the second second


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def assert_balanced(room: Room) -> None:
    """Check the account against a plain sum of the ledger's fills."""
    initial = Decimal(10_000)
    fills = room.ledger.fills(999)
    spent = sum(Decimal(f["quantity"]) * Decimal(f["price"]) for f in fills)
    fees = sum(Decimal(f["fee"]) for f in fills)
    summary = room.desk.summary()
    prices = (room.ledger.step_at(2**62) or pytest.fail("no step")).prices
    open_value = sum(quantity * prices[symbol] for symbol, quantity in room.held().items())
    assert room.portfolio.cash == initial - spent - fees
    assert Decimal(summary["equity"]) == room.portfolio.cash + open_value
    assert Decimal(summary["equity"]) == initial + Decimal(summary["pnl"]["net"])
    assert Decimal(summary["pnl"]["fees"]) == fees


def test_buy_enters_with_a_stop_and_names_its_inference(room: Room) -> None:
    room.act(1, "buy")

    (order,) = room.ledger.orders(9)
    expected = inference_id(run=RUN, symbol=ETH, event_ns=instant(1), model="moe")
    assert (order["purpose"], order["state"], order["inference_id"]) == (ENTRY, "filled", expected)
    assert order["stop_price"] == "2475.12"  # one R of 0.01 below 2 500
    assert room.held() == {ETH: Decimal("1.0")}  # a quarter of equity
    assert room.exchange.asked == [(ETH, instant(1) + 100_000_000)]
    assert_balanced(room)


def test_intent_is_durable_before_it_is_sent(tmp_path: Path) -> None:
    seen = []

    class Watching(Exchange):
        async def quote(self, symbol: str, event_ns: int) -> Any:
            seen.append(room.orders())
            return await super().quote(symbol, event_ns)

    room = Room(tmp_path, exchange=Watching())

    room.act(1, "buy")

    assert seen == [[(ETH, ENTRY, "+", "sent")]]


def test_hold_and_the_same_direction_make_no_order(room: Room) -> None:
    room.act(1, "buy")
    room.act(2, "hold")
    room.act(3, "buy")

    assert len(room.orders()) == 1


def test_sell_closes_a_long_and_opens_no_short_where_none_is_permitted(room: Room) -> None:
    room.act(1, "sell")
    room.act(2, "buy")
    room.act(3, "sell")

    assert room.orders() == [(ETH, ENTRY, "+", "filled"), (ETH, EXIT, "-", "filled")]
    assert room.held() == {}
    assert_balanced(room)


def test_reversal_is_an_exit_and_an_entry_of_the_same_step(tmp_path: Path) -> None:
    room = Room(tmp_path, MARGIN)

    room.act(1, "sell")
    room.act(2, "buy")

    assert room.orders() == [
        (ETH, ENTRY, "-", "filled"),
        (ETH, EXIT, "+", "filled"),
        (ETH, ENTRY, "+", "filled"),
    ]
    exit_, entry = room.ledger.orders(2)
    assert exit_["event_ns"] == entry["event_ns"] == instant(2)
    assert exit_["inference_id"] == entry["inference_id"]
    assert room.portfolio.positions[0].stop_price == Decimal(entry["stop_price"])
    assert_balanced(room)


def test_both_symbols_trade_at_one_instant(room: Room) -> None:
    room.act(1, "buy", ("buy", BTC))

    assert set(room.held()) == {ETH, BTC}
    assert_balanced(room)


@pytest.mark.parametrize("low", [2_475.12, 2_400.0])
def test_stop_closes_the_position_and_the_symbol_is_not_entered_at_that_instant(
    room: Room, low: float
) -> None:
    room.act(1, "buy")
    room.act(2, "buy", ("buy", BTC), low=low)

    assert room.orders()[1:] == [(ETH, STOP, "-", "filled"), (BTC, ENTRY, "+", "filled")]
    assert room.ledger.orders(9)[1]["inference_id"] == room.ledger.orders(9)[0]["inference_id"]
    assert room.desk.summary()["stops"] == 1
    assert_balanced(room)


def test_stop_that_was_not_reached_closes_nothing(room: Room) -> None:
    room.act(1, "buy")
    room.act(2, low=2_475.13)

    assert len(room.orders()) == 1


def test_stop_works_where_nothing_was_decided(room: Room) -> None:
    room.act(1, "buy")
    room.act(2, low=2_400.0)

    assert room.held() == {}


def test_stop_works_while_entries_are_off_and_entries_do_not(room: Room) -> None:
    room.act(1, "buy", ("buy", BTC))
    room.act(2, entries=False, low=2_400.0)
    room.act(3, "buy", ("sell", BTC), entries=False)

    assert room.orders()[2:] == [(ETH, STOP, "-", "filled"), (BTC, EXIT, "-", "filled")]


def test_reversal_only_closes_while_entries_are_off(tmp_path: Path) -> None:
    room = Room(tmp_path, MARGIN)
    room.act(1, "buy")

    room.act(2, "sell", entries=False)

    assert room.orders()[1:] == [(ETH, EXIT, "-", "filled")]


def test_orders_from_an_inference_that_is_not_durable_are_flagged(room: Room) -> None:
    room.act(1, "buy", stored=False)
    room.act(2, low=2_400.0, stored=False)
    room.act(3, "buy")

    assert [order["is_stored"] for order in room.ledger.orders(9)] == [False, False, True]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_halt", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_stop_or_halt_is_flagged_as_the_entry_it_cites(
    tmp_path: Path, stored: bool, is_halt: bool, is_restarted: bool
) -> None:
    room = Room(tmp_path)
    room.act(1, "buy", stored=stored)
    if is_halt:
        room.halt("news", 1)
    if is_restarted:
        room = Room(tmp_path)
        room.restore(1)

    room.act(2, low=2_400.0, stored=not stored)

    entry, closing_ = room.ledger.orders(9)
    assert closing_["purpose"] == (HALT if is_halt else STOP)
    assert closing_["inference_id"] == entry["inference_id"]
    assert [entry["is_stored"], closing_["is_stored"]] == [stored, stored]


def test_exit_is_flagged_as_the_decision_it_cites(room: Room) -> None:
    room.act(1, "buy", stored=False)
    room.act(2, "sell")

    entry, exit_ = room.ledger.orders(9)
    assert exit_["inference_id"] != entry["inference_id"]
    assert [entry["is_stored"], exit_["is_stored"]] == [False, True]


def test_entries_of_an_instant_and_their_fees_cost_no_more_than_the_cash(tmp_path: Path) -> None:
    room = Room(tmp_path, limits(max_position_pct=100.0, risk_pct=100.0))

    room.act(1, "buy", ("buy", BTC))

    notional = sum(
        Decimal(order["quantity"]) * Decimal(repr(PRICES[order["symbol"]]))
        for order in room.ledger.orders(9)
    )
    assert Decimal(9_980) < notional <= Decimal(10_000) / Decimal("1.001")


def test_unknown_risk_is_no_entry_and_says_why(room: Room, logged: Logged) -> None:
    room.act(1, "buy", risk=float("nan"))

    assert room.orders() == []
    assert "risk is not known" in logged("no entry")[0]["reason"]


def test_order_that_met_no_market_is_over(room: Room) -> None:
    room.exchange.ends_ns = 0

    room.act(1, "buy")

    assert room.orders() == [(ETH, ENTRY, "+", "unfilled")]
    reason = room.ledger.orders(1)[0]["reason"]
    assert "the source had ended, the market had moved past it" in reason
    assert room.held() == {}


def test_drawdown_at_its_limit_halts_closes_everything_and_is_told(
    tmp_path: Path, logged: Logged
) -> None:
    room = Room(tmp_path, limits(max_drawdown_pct=5.0), exchange=Exchange(FALLING))
    room.act(1, "buy", ("buy", BTC))
    room.act(2)

    assert room.orders()[2:] == [(BTC, HALT, "-", "filled"), (ETH, HALT, "-", "filled")]
    assert room.is_halted(2)
    (line,) = logged("halted")
    assert (line["code"], line["level"]) == ("DrawdownHalt", "warning")
    assert "reached the limit 5.0000%" in line["reason"]
    assert "alphapulse resume --reason" in line["remedy"]
    assert_balanced(room)


def test_halted_desk_refuses_entries_and_writes_each_refusal_down(tmp_path: Path) -> None:
    room = Room(tmp_path, limits(max_drawdown_pct=5.0), exchange=Exchange(FALLING))
    room.act(1, "buy")
    room.act(2, "buy", ("buy", BTC))
    room.act(3, "buy")

    assert room.orders()[1:] == [
        (ETH, HALT, "-", "filled"),
        (BTC, ENTRY, "+", "refused"),
        (ETH, ENTRY, "+", "refused"),
    ]
    assert room.ledger.orders(1)[0]["reason"] == "MaxDrawdown: trading is halted"
    assert room.desk.summary() | {"positions": [], "refused": 2, "halts": 1, "is_halted": True} == (
        room.desk.summary()
    )


def test_halt_is_latched_over_a_restart(tmp_path: Path) -> None:
    settings, exchange = limits(max_drawdown_pct=5.0), Exchange(FALLING)
    room = Room(tmp_path, settings, exchange=exchange)
    room.act(1, "buy")
    room.act(2)

    again = Room(tmp_path, settings, exchange=exchange)
    again.restore(2)
    again.act(3, "buy")

    assert again.orders()[-1] == (ETH, ENTRY, "+", "refused")
    assert len(again.ledger.halts()) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_resumed_desk_trades_and_does_not_halt_again_at_once(
    tmp_path: Path, is_restarted: bool
) -> None:
    settings, exchange = limits(max_drawdown_pct=5.0), Exchange(FALLING)
    room = Room(tmp_path, settings, exchange=exchange)
    room.act(1, "buy")
    room.act(2)
    room.resume("looked into it", 2)
    if is_restarted:
        room = Room(tmp_path, settings, exchange=exchange)
        room.restore(2)

    room.act(3, "buy")

    assert room.orders()[-1] == (ETH, ENTRY, "+", "filled")
    assert not room.is_halted(3)
    step = room.ledger.step_at(instant(3))
    assert step is not None
    assert step.peak == step.equity
    assert step.drawdown == 0


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_taken", [True, False])
@pytest.mark.parametrize("cleared", [2, 3])
def test_peak_starts_anew_once_whether_resumed_between_instants_or_during_one(
    tmp_path: Path, cleared: int, is_taken: bool, is_restarted: bool
) -> None:
    settings, exchange = limits(max_drawdown_pct=5.0), Exchange(FALLING)
    room = Room(tmp_path, settings, exchange=exchange)
    room.act(1, "buy")
    room.act(2)
    room.resume("looked into it", cleared)
    if not is_taken:
        room.ledger.failing = frozenset({"step"})
        room.act(3)
        room.ledger.failing = frozenset()
    first = 3 if is_taken else 4
    room.act(first, "buy")
    if is_restarted:
        room = Room(tmp_path, settings, exchange=exchange)
        room.restore(first)

    room.act(first + 1)

    steps = [room.ledger.step_at(instant(second)) for second in (2, first, first + 1)]
    halted, anew, after = (step or pytest.fail("no step") for step in steps)
    assert halted.drawdown >= Decimal("0.05")
    assert anew.peak == anew.equity
    assert after.equity < after.peak == anew.peak


def test_resuming_where_nothing_is_halted_is_refused(room: Room) -> None:
    with pytest.raises(InvalidRequest, match="expected trading to be halted"):
        room.resume("looked into it", 1)


@pytest.mark.parametrize("reason", ["", "  "])
def test_halt_and_resume_need_a_reason(room: Room, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a reason"):
        room.halt(reason, 1)
    with pytest.raises(InvalidRequest, match="expected a reason"):
        room.resume(reason, 1)


def test_person_halts_and_resumes_while_an_instant_is_decided(tmp_path: Path) -> None:
    room = Room(tmp_path, limits(max_drawdown_pct=5.0), exchange=Exchange(FALLING))
    room.act(1, "buy")
    room.halt("news", 2)
    room.act(2)
    room.resume("old news", 3)
    room.act(3, "buy")

    assert room.orders()[1:] == [(ETH, HALT, "-", "filled"), (ETH, ENTRY, "+", "filled")]
    assert len(room.ledger.halts()) == 1


def test_person_halts_from_the_next_step_on(room: Room) -> None:
    room.act(1, "buy")

    first, again = room.halt("news", 2), room.halt("more news", 2)
    assert room.desk.summary()["is_halted"]
    room.act(2, ("buy", BTC))

    assert (first, again) == (True, False)
    assert room.orders()[1:] == [(ETH, HALT, "-", "filled"), (BTC, ENTRY, "+", "refused")]


def test_step_the_ledger_does_not_take_sends_nothing_and_the_next_one_tries_anew(
    room: Room, logged: Logged
) -> None:
    room.ledger.failing = frozenset({"step"})
    room.act(1, "buy")
    sent = list(room.exchange.asked)
    room.ledger.failing = frozenset()
    room.act(2, "buy")

    assert sent == []
    assert room.desk.unsent == 1
    assert room.orders() == [(ETH, ENTRY, "+", "filled")]
    assert room.ledger.orders(1)[0]["event_ns"] == instant(2)
    (line,) = logged("nothing sent")
    assert (line["code"], line["level"]) == ("StoreError", "error")
    assert "no space left" in line["reason"]
    assert line["remedy"]


@pytest.mark.parametrize("num_missed", [1, 5])
def test_stop_touched_while_the_ledger_was_down_closes_at_the_next_step(
    room: Room, num_missed: int
) -> None:
    room.act(1, "buy")
    room.ledger.failing = frozenset({"step"})
    room.act(2, low=2_400.0)
    for second in range(3, 2 + num_missed):
        room.act(second)
    room.ledger.failing = frozenset()

    room.act(2 + num_missed)

    assert room.orders()[1:] == [(ETH, STOP, "-", "filled")]
    assert room.ledger.orders(1)[0]["event_ns"] == instant(2 + num_missed)


def test_stop_touched_while_an_answer_was_not_stored_closes_at_the_next_step(room: Room) -> None:
    room.ledger.failing = frozenset({"fill"})
    room.act(1, "buy")
    room.act(2, low=2_400.0)
    room.ledger.failing = frozenset()

    room.act(3)

    assert room.orders()[1:] == [(ETH, STOP, "-", "filled")]


def test_stop_touched_while_the_market_did_not_answer_closes_at_the_next_step(room: Room) -> None:
    room.act(1, "buy")
    room.exchange.is_down = True
    for second, low in ((2, 2_500.0), (3, 2_400.0)):
        with pytest.raises(ConnectionError):
            room.act(second, ("buy", BTC), low=low)
    room.exchange.is_down = False

    room.act(4)

    assert room.orders()[1:] == [(BTC, ENTRY, "+", "filled"), (ETH, STOP, "-", "filled")]


def test_low_before_an_entry_does_not_stop_it(room: Room) -> None:
    room.ledger.failing = frozenset({"step"})
    room.act(1, low=2_400.0)
    room.ledger.failing = frozenset()
    room.act(2, "buy")

    room.act(3)

    assert room.orders() == [(ETH, ENTRY, "+", "filled")]


def test_peak_of_an_instant_that_did_not_happen_is_forgotten(tmp_path: Path) -> None:
    room = Room(tmp_path, exchange=Exchange({1: {ETH: 2_500.0}, 2: {ETH: 3_000.0}}))
    room.act(1, "buy")
    room.ledger.failing = frozenset({"step"})

    room.act(2)

    assert room.portfolio.peak == Decimal(10_000)


def test_answer_the_ledger_does_not_take_is_kept_and_stored_before_the_next_step(
    room: Room, logged: Logged
) -> None:
    room.ledger.failing = frozenset({"fill"})
    room.act(1, "buy")
    room.act(2, "sell")
    held_meanwhile = room.held()
    room.ledger.failing = frozenset()
    room.act(3, "sell")

    assert held_meanwhile == {}
    assert room.desk.unsent == 1
    assert [line["event_ns"] for line in logged("fills not stored")] == [instant(1), instant(2)]
    assert room.orders() == [(ETH, ENTRY, "+", "filled"), (ETH, EXIT, "-", "filled")]
    assert len(room.exchange.asked) == 2  # each order once
    assert_balanced(room)


def test_held_symbol_without_a_price_stops_the_instant_and_is_told(
    room: Room, logged: Logged
) -> None:
    room.act(1, "buy")
    point = room.exchange.point(2)
    blind = type(point)(point.event_ns, 2, {}, {}, (), {}, {}, 0, {BTC: point.marks[BTC]})

    asyncio.run(room.desk.act(blind, [decided(2, "buy", BTC)], stored=True, entries=True))

    assert room.desk.unsent == 1
    assert "none of ETH/USDT" in logged("nothing sent")[0]["reason"]
    assert room.ledger.last_step() == instant(1)


def test_order_that_did_not_reach_the_market_is_sent_again_at_the_next_instant(room: Room) -> None:
    room.exchange.is_down = True
    with pytest.raises(ConnectionError):
        room.act(1, "buy")
    room.exchange.is_down = False

    room.act(2)

    assert room.exchange.asked == 2 * [(ETH, instant(1) + 100_000_000)]
    assert room.orders() == [(ETH, ENTRY, "+", "filled")]
    assert_balanced(room)


def test_instant_is_done_once(room: Room) -> None:
    room.act(1, "buy")
    before = rows_of(room.ledger)

    room.act(1, "sell", ("buy", BTC))

    assert rows_of(room.ledger) == before
    assert len(room.exchange.asked) == 1
    assert_balanced(room)


def test_instant_the_ledger_missed_is_not_made_up_later(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.act(1)
    room.ledger.failing = frozenset({"step"})
    room.act(2, "buy")
    room.ledger.failing = frozenset()
    room.act(3, "buy")
    before = rows_of(room.ledger)

    again = Room(tmp_path)
    again.restore(1)
    again.act(2, "buy")
    again.act(3, "buy")

    assert rows_of(again.ledger) == before
    assert again.held() == room.held()


def test_account_vectors_tell_side_result_time_and_drawdown(tmp_path: Path) -> None:
    path = {1: {ETH: 2_500.0}, 32: {ETH: 2_480.0}}
    room = Room(tmp_path, exchange=Exchange(path))
    room.act(1, "buy")
    at_entry = room.desk.account_vectors()
    room.act(32)

    vectors = room.desk.account_vectors()

    (position,) = room.portfolio.positions
    assert position.stop_price is not None
    result = (Decimal(2_480) - position.entry_price) / (position.entry_price - position.stop_price)
    step = room.ledger.step_at(instant(32))
    assert step is not None
    expected = np.array([1, float(result), 30 / 300, float(step.drawdown)], np.float32)
    assert vectors[ETH].dtype == np.float32
    assert vectors[ETH].tolist() == expected.tolist()
    assert vectors[BTC].tolist() == np.array([0, 0, 0, float(step.drawdown)], np.float32).tolist()
    assert at_entry[ETH][[0, 2]].tolist() == [1, 0]
    assert at_entry[ETH][1] < 0  # half the spread is lost at once
    assert at_entry[ETH][3] > 0  # and the fee


def test_r_of_a_vector_is_the_stop_distance_over_stop_r(tmp_path: Path) -> None:
    path = {1: {ETH: 2_500.0}, 2: {ETH: 2_525.0}}
    room = Room(tmp_path, Settings(risk=Risk(stop_r=2.0)), exchange=Exchange(path))
    room.act(1, "buy")
    room.act(2)

    assert room.desk.account_vectors()[ETH][1] == pytest.approx(1.0, abs=0.02)


def test_short_that_gains_has_a_positive_result(tmp_path: Path) -> None:
    room = Room(tmp_path, MARGIN, exchange=Exchange({1: {ETH: 2_500.0}, 2: {ETH: 2_475.0}}))
    room.act(1, "sell")
    room.act(2)

    side, result, _, _ = room.desk.account_vectors()[ETH].tolist()
    assert side == -1
    assert result == pytest.approx(1.0, abs=0.02)


def test_desk_before_its_first_instant_is_flat(room: Room) -> None:
    assert {s: v.tolist() for s, v in room.desk.account_vectors().items()} == {
        ETH: [0, 0, 0, 0],
        BTC: [0, 0, 0, 0],
    }
    assert room.desk.summary() == {
        "orders": 0, "refused": 0, "stops": 0, "fills": 0, "halts": 0, "is_halted": False,
        "unsent": 0, "pnl": {"gross": "0", "fees": "0", "net": "0"}, "equity": "10000.0",
        "positions": [],
    }  # fmt: skip


def test_summary_of_a_run_nobody_works_on_is_the_one_it_ended_with(tmp_path: Path) -> None:
    path = {1: {ETH: 2_500.0}, 3: {ETH: 2_520.0}}
    room = Room(tmp_path, exchange=Exchange(path))
    for second, action in ((1, "buy"), (2, "sell"), (3, "buy")):
        room.act(second, action)
    room.act(4, ("buy", BTC))
    expected, positions = room.desk.summary(), room.desk.positions()
    room.ledger.close()

    stopped = Room(tmp_path)
    asyncio.run(stopped.desk.restore(stopped.ledger.last_step() or 0))

    assert stopped.desk.summary() == expected
    assert stopped.desk.positions() == positions
    prices = {position["symbol"]: Decimal(position["price"]) for position in positions}
    assert prices == {BTC: Decimal(60_000), ETH: Decimal(2_520)}
    assert_balanced(stopped)


def test_summary_of_a_run_that_ended_before_its_first_step_is_flat(tmp_path: Path) -> None:
    room = Room(tmp_path)
    before = room.desk.summary()

    asyncio.run(room.desk.restore(room.ledger.last_step() or 0))

    assert room.desk.summary() == before
    assert (before["equity"], before["positions"]) == ("10000.0", [])


def test_fills_that_do_not_add_up_to_the_cash_of_the_step_stop_the_restart(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.act(1, "buy")
    room.act(2)
    with closing(sqlite3.connect(room.ledger.path)) as db, db:
        db.execute("DELETE FROM fills WHERE number = 0")

    with pytest.raises(StoreError, match="expected cash"):
        Room(tmp_path).restore(2)


# A run with everything in it: entries, a reversal, a stop, a halt, refusals and a resume.
STORY: list[tuple[tuple[str | tuple[str, str], ...], dict[str, float]]] = [
    (("buy", ("sell", BTC)), {}),
    (("sell",), {}),
    ((), {}),
    (("buy", ("hold", BTC)), {}),
    ((), {"low": 2_300.0}),
    (("buy",), {}),
    ((), {}),  # ETH has fallen: halted
    (("buy", ("buy", BTC)), {}),
    ((), {}),
    (("sell",), {}),  # a person resumed before
    ((), {}),
]
RESUMED_AFTER = 8  # seconds
STORY_SETTINGS = Settings(
    trading=Trading(allow_short=True), risk=Risk(max_drawdown_pct=3.0, risk_pct=5.0)
)
STORY_PATH = {0: {ETH: 2_500.0}, 3: {ETH: 2_490.0}, 6: {ETH: 2_200.0}, 10: {ETH: 2_205.0}}


def play(room: Room, seconds: range, vectors: dict[int, Any]) -> None:
    for second in seconds:
        actions, mark = STORY[second]
        if second == RESUMED_AFTER + 1 and room.is_halted(second):
            room.resume("looked into it", RESUMED_AFTER)
        room.act(second, *actions, **mark)
        vectors[second] = {s: v.tolist() for s, v in room.desk.account_vectors().items()}


def a_room(folder: Path) -> Room:
    folder.mkdir(exist_ok=True)
    return Room(folder, STORY_SETTINGS, exchange=Exchange(STORY_PATH))


def interrupted(
    folder: Path, *, crash_in: int, back: int = 0, completes: bool = True
) -> tuple[Room, dict[int, Any]]:
    """Return the room and vectors of a run that crashed, restarted `back` instants earlier."""
    room, vectors = a_room(folder), {}
    room.ledger.crash_in = crash_in
    with suppress(Crash):
        play(room, range(len(STORY)), vectors)
    room.ledger.close()
    again = a_room(folder)
    last_ns = again.ledger.last_step()
    last = -1 if last_ns is None else (last_ns - instant(0)) // 10**9 - back
    if completes:
        again.restore(last)
    else:
        asyncio.run(again.desk.restore(instant(last)))
        again.desk._outbox._waiting.clear()
    if last >= 0:
        vectors[last] = {s: v.tolist() for s, v in again.desk.account_vectors().items()}
    play(again, range(max(0, last + 1), len(STORY)), vectors)
    return again, vectors


def test_story_has_everything_in_it(tmp_path: Path) -> None:
    room, vectors = a_room(tmp_path), {}

    play(room, range(len(STORY)), vectors)

    assert {purpose for _, purpose, _, _ in room.orders()} == {ENTRY, EXIT, STOP, HALT}
    assert {state for _, _, _, state in room.orders()} == {"filled", "refused"}
    assert [halt.cleared_ns for halt in room.ledger.halts()] == [instant(RESUMED_AFTER)]
    assert room.orders()[-1] == (ETH, ENTRY, "-", "filled")
    assert_balanced(room)


@pytest.mark.parametrize("back", [0, 2])
def test_run_that_crashed_anywhere_ends_as_one_that_did_not(tmp_path: Path, back: int) -> None:
    whole, expected = a_room(tmp_path / "whole"), {}
    play(whole, range(len(STORY)), expected)
    num_places = 2 * (len(STORY) + sum(s == "filled" for *_, s in whole.orders()))

    for place in range(num_places):
        room, vectors = interrupted(tmp_path / str(place), crash_in=place, back=back)

        assert rows_of(room.ledger) == rows_of(whole.ledger), f"crash at place {place}"
        assert vectors == expected, f"crash at place {place}"
        assert_balanced(room)
        room.ledger.close()


def test_crash_is_seen_to_matter_where_a_restart_forgets_what_was_on_its_way(
    tmp_path: Path,
) -> None:
    whole = a_room(tmp_path / "whole")
    play(whole, range(len(STORY)), {})

    room, _ = interrupted(tmp_path / "forgetful", crash_in=2, completes=False)

    assert rows_of(room.ledger) != rows_of(whole.ledger)


def test_people_see_where_the_account_stands_against_its_limits(room: Room) -> None:
    room.act(1, "buy")

    risk, (position,) = room.desk.risk(Risk()), room.desk.positions()

    assert risk["limits"]["max_drawdown_pct"] == 10.0
    assert (risk["is_halted"], risk["halts"]) == (False, [])
    value = Decimal(position["quantity"]) * Decimal(position["price"])
    assert risk["exposure_pct"] == float(100 * value / Decimal(risk["equity"]))
    gain = Decimal(position["price"]) - Decimal(position["entry_price"])
    assert Decimal(position["unrealised"]) == gain * Decimal(position["quantity"])
