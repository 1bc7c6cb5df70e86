"""Does each panel show what the snapshot says, say what it lacks, and ask only for a person?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alphapulse.dashboard.panels.account import AccountPanel, EquityPanel, OrdersPanel, RiskPanel
from alphapulse.dashboard.panels.decisions import DecisionsPanel
from alphapulse.dashboard.panels.learning import AccuracyPanel, TrainingPanel
from alphapulse.dashboard.panels.market import BookPanel, CandlesPanel
from alphapulse.dashboard.panels.status import AlertsPanel, ErrorsPanel, PricesPanel, StatusPanel
from alphapulse.dashboard.panels.steering import HaltPanel, ProcessesPanel, ThresholdsPanel
from alphapulse.domain.status import Alert, Command, Snapshot
from alphapulse.interfaces import Panel
from tests.unit.dashboard.api import BTC, ETH, EVENT_NS, Api, whole_snapshot
from tests.unit.dashboard.canvas import Canvas

PANELS: list[Callable[[], Panel]] = [
    StatusPanel, AlertsPanel, ErrorsPanel, PricesPanel, BookPanel, DecisionsPanel, AccountPanel,
    EquityPanel, RiskPanel, OrdersPanel, TrainingPanel, AccuracyPanel, HaltPanel, ProcessesPanel,
    lambda: CandlesPanel({}), lambda: ThresholdsPanel({}),
]  # fmt: skip
EMPTY = Snapshot(None, {})


@pytest.fixture
def snapshot(api: Api) -> Snapshot:
    return whole_snapshot(api)


def but(snapshot: Snapshot, **sections: Any) -> Snapshot:
    """Return the snapshot with some sections replaced; None takes one away."""
    changed = {**snapshot.sections, **sections}
    return replace(snapshot, sections={k: v for k, v in changed.items() if v is not None})


def seen(panel: Panel, snapshot: Snapshot) -> str:
    canvas = Canvas()
    assert panel.render(snapshot, canvas) is None
    return canvas.text


@pytest.mark.parametrize("make", PANELS)
def test_panel_draws_a_whole_snapshot_and_an_empty_one(
    make: Callable[[], Panel], snapshot: Snapshot
) -> None:
    assert seen(make(), snapshot)
    empty = seen(make(), EMPTY)

    assert "not known" in empty or "nothing known" in empty
    assert not any(digit.isdigit() for digit in empty.replace("#####", ""))


@pytest.mark.parametrize("make", PANELS)
def test_panel_survives_the_loss_of_any_section(
    make: Callable[[], Panel], snapshot: Snapshot
) -> None:
    for name in snapshot.sections:
        seen(make(), but(snapshot, **{name: None}))


def test_status_says_run_time_and_counts(snapshot: Snapshot) -> None:
    text = seen(StatusPanel(), snapshot)

    assert "run 1" in text
    assert "binance-spot-2024-08" in text
    assert "2024-08-08 23:55:17" in text
    assert "3,851 events" in text
    assert "8 processes running" in text


def test_status_names_the_process_that_is_not_running(snapshot: Snapshot) -> None:
    rows = [{"name": "feed", "state": "running"}, {"name": "trader", "state": "unavailable"}]

    text = seen(StatusPanel(), but(snapshot, processes=rows))

    assert "1 of 2 processes not running: trader unavailable" in text


def test_status_says_how_old_the_streams_are_and_how_the_clocks_differ(snapshot: Snapshot) -> None:
    ages = {"trade": 0.2, "book": None, "candle": 40.0}
    health = {"skew_ms": -12.3, "symbols": {"ETH/USDT": {"age_s": ages}}}
    status = snapshot.sections["status"] | {"feed": {"events": 5, "health": health}}

    text = seen(StatusPanel(), but(snapshot, status=status))

    assert "oldest stream 0.2 s" in text
    assert "venue's clock -12 ms" in text
    assert "clock" not in seen(StatusPanel(), snapshot)


def test_unreachable_api_is_a_banner_with_since_when_and_the_age(snapshot: Snapshot) -> None:
    gone = {"unreachable_since": "2027-01-15T08:00:03Z", "age_s": 63.0, "is_stale": True}
    canvas = Canvas()

    StatusPanel().render(but(snapshot, connection=snapshot.sections["connection"] | gone), canvas)

    (banner,) = canvas.of("error")
    assert "unreachable since 2027-01-15T08:00:03Z" in banner.arguments[0]
    assert "stale: 1 min 3 s old" in banner.arguments[0]
    assert "last known" in canvas.text
    assert ":green[" not in canvas.text


def test_stale_data_is_marked_on_the_banner_and_on_every_number(snapshot: Snapshot) -> None:
    old = snapshot.sections["connection"] | {"is_stale": True, "still_s": 12.0}
    canvas = Canvas()

    for panel in (StatusPanel(), PricesPanel(), AccountPanel()):
        panel.render(but(snapshot, connection=old), canvas)

    (banner,) = canvas.of("warning")
    assert "no progress for 12 s" in banner.arguments[0]
    assert all(call.arguments[0].endswith("· stale") for call in canvas.of("metric"))


def test_fresh_data_is_not_marked(snapshot: Snapshot) -> None:
    text = seen(PricesPanel(), snapshot) + seen(AccountPanel(), snapshot)

    assert "stale" not in text


def test_prices_show_each_symbol_with_its_touch(snapshot: Snapshot) -> None:
    text = seen(PricesPanel(), snapshot)

    assert "61,828.25" in text
    assert "2,683.00 / 2,683.01" in text


def test_price_that_is_not_there_is_said_to_be_unknown(snapshot: Snapshot) -> None:
    canvas = Canvas()

    PricesPanel().render(but(snapshot, market={ETH: {"is_down": True}}), canvas)

    (number,) = canvas.of("metric")
    assert number.arguments == (ETH, "not known", "feed down")


def test_account_that_lacks_figures_says_so(snapshot: Snapshot) -> None:
    text = seen(AccountPanel(), but(snapshot, risk={"is_halted": False}, status={}))

    assert text.count("not known") >= 8
    assert "0.00" not in text


def test_failed_route_is_named_with_its_reason(snapshot: Snapshot) -> None:
    link = snapshot.sections["connection"] | {"problems": {"risk": "answered 503 Unavailable: x"}}

    text = seen(RiskPanel(), but(snapshot, risk=None, connection=link))

    assert "risk: answered 503 Unavailable: x" in text


def test_candles_show_four_timeframes_with_forecasts(snapshot: Snapshot) -> None:
    canvas = Canvas()

    CandlesPanel({}).render(snapshot, canvas)

    keys = [call.named["key"] for call in canvas.of("plotly_chart")]
    assert keys == ["candles 1s", "candles 1m", "candles 1h", "candles 1d"]
    assert canvas.text.count("42 % sure") == 4


def test_candles_offer_both_symbols_and_keep_the_choice(snapshot: Snapshot) -> None:
    memory = {"symbol": BTC}
    canvas = Canvas()

    CandlesPanel(memory).render(snapshot, canvas)

    (choice,) = canvas.of("segmented_control")
    assert choice.arguments[1] == [ETH, BTC]
    assert memory["symbol"] == BTC


def test_timeframe_without_bars_or_forecast_is_named(snapshot: Snapshot) -> None:
    candles = snapshot.sections["candles"] | {"1d": []}
    forecasts = snapshot.sections["forecasts"] | {"1h": []}

    text = seen(CandlesPanel({}), but(snapshot, candles=candles, forecasts=forecasts))

    assert "1d: no candles yet" in text
    assert "1h: no forecast yet" in text


def test_book_counts_what_is_not_known(snapshot: Snapshot) -> None:
    assert "1 of 38 levels not known" in seen(BookPanel(), snapshot)


def test_book_that_is_not_known_is_not_drawn(snapshot: Snapshot) -> None:
    lost = snapshot.sections["book"] | {"is_known": False, "buckets": []}
    canvas = Canvas()

    BookPanel().render(but(snapshot, book=lost), canvas)

    assert canvas.of("plotly_chart") == []
    assert "the book is not known at the moment" in canvas.text


def test_decisions_show_rl_and_orchestrator_with_confidence_reason_and_weights(
    snapshot: Snapshot,
) -> None:
    canvas = Canvas()

    DecisionsPanel().render(snapshot, canvas)

    text = canvas.text
    assert f"{ETH}: orchestrator **:green[buy]** 61 % sure, acts" in text
    assert "RL :green[buy] 61 %" in text
    assert "rl 40 % · cnn 35 % · flat 25 %" in text
    assert "flat preferred" in text
    (table,) = canvas.of("table")
    assert len(table.arguments[0]) == 40


def test_decision_without_advice_says_so(snapshot: Snapshot) -> None:
    assert "RL not known" in seen(DecisionsPanel(), but(snapshot, advice=None))


def test_no_decisions_yet_is_said(snapshot: Snapshot) -> None:
    assert seen(DecisionsPanel(), but(snapshot, decisions=[])) == "no decisions yet"


def test_risk_shows_drawdown_against_its_limit_and_positions_with_stops(
    snapshot: Snapshot,
) -> None:
    text = seen(RiskPanel(), snapshot)

    assert "drawdown 0.09 % of 10 % allowed" in text
    assert "2,655.10" in text
    assert "+0.932" in text


def test_position_without_stop_is_named(snapshot: Snapshot) -> None:
    (row,) = snapshot.sections["positions"]

    assert "no stop" in seen(RiskPanel(), but(snapshot, positions=[row | {"stop_price": None}]))


@pytest.fixture
def halted(snapshot: Snapshot) -> Snapshot:
    halts = [
        {"event_ns": EVENT_NS, "reason": "old", "cleared_ns": EVENT_NS, "clear_reason": "x"},
        {"event_ns": EVENT_NS, "reason": "drawdown 10.1 %", "cleared_ns": None, "clear_reason": ""},
    ]
    risk = snapshot.sections["risk"] | {"is_halted": True, "halts": halts}
    alert = Alert("TradingHalted", "drawdown 10.1 %", "resume", EVENT_NS)
    return replace(but(snapshot, risk=risk), alerts=(*snapshot.alerts, alert))


def test_halt_is_one_red_banner_with_reason_and_how_to_resume(halted: Snapshot) -> None:
    canvas = Canvas()

    AlertsPanel().render(halted, canvas)

    (banner,) = canvas.of("error")
    assert "Trading is halted**: drawdown 10.1 % (2024-08-08 23:55:17 UTC)" in banner.arguments[0]
    assert "resume trading" in banner.arguments[0]
    assert "TradingHalted" not in canvas.text


def test_alert_of_a_halt_is_shown_where_risk_is_not_known(halted: Snapshot) -> None:
    assert "TradingHalted" in seen(AlertsPanel(), but(halted, risk=None))


def test_alerts_carry_their_remedy_and_many_are_counted(snapshot: Snapshot) -> None:
    (alert,) = snapshot.alerts

    assert f"{alert.message} (2024-08-08 23:55:17 UTC) → {alert.remedy}" in seen(
        AlertsPanel(), snapshot
    )
    assert "and 3 more" in seen(AlertsPanel(), replace(snapshot, alerts=(alert,) * 7))


def test_text_of_others_is_shown_letter_by_letter(snapshot: Snapshot) -> None:
    text = "5 > 4 :red[x] *y* $1 and $2 <b> `z`"
    canvas = Canvas()

    AlertsPanel().render(replace(snapshot, alerts=(Alert("Odd", text, "none", 0),)), canvas)

    (drawn,) = canvas.of("warning")
    assert text in canvas.text
    for sign in ("\\>", "\\:red\\[", "\\*y\\*", "\\$1", "\\<b\\>", "\\`z\\`"):
        assert sign in drawn.arguments[0]


def test_errors_carry_their_remedy(snapshot: Snapshot) -> None:
    text = seen(ErrorsPanel(), snapshot)

    assert "journal: disk full" in text
    assert "free space" in text


def test_orders_show_refusals_with_the_reason_and_flag_what_is_not_stored(
    snapshot: Snapshot,
) -> None:
    text = seen(OrdersPanel(), snapshot)

    assert "notional 4.2 below 5 (its inference is not stored)" in text
    assert ":orange[refused]" in text
    assert ":green[filled]" in text


def test_training_shows_progress_champion_challenger_and_verdict(snapshot: Snapshot) -> None:
    canvas = Canvas()

    TrainingPanel().render(snapshot, canvas)

    (progress,) = canvas.of("progress")
    assert progress.arguments == (0.4,)
    assert "rl: training since 23:55:17 on 384 examples" in progress.named["text"]
    assert progress.named["text"].endswith(": training, loss 1.250")
    text = canvas.text
    assert "a2222222" in text
    assert "e-value 31.7 >= 20" in text
    assert "e value 31.7" in text
    assert "610 predictions answered" in text


def test_round_without_progress_shows_no_bar(snapshot: Snapshot) -> None:
    rounds = [row | {"figures": {}} for row in snapshot.sections["training"]["rounds"]]
    canvas = Canvas()

    TrainingPanel().render(but(snapshot, training={"rounds": rounds}), canvas)

    assert canvas.of("progress") == []
    assert len(canvas.of("info")) == 1


def test_accuracy_is_shown_by_model_and_timeframe_and_a_gap_stays_one(snapshot: Snapshot) -> None:
    canvas = Canvas()

    AccuracyPanel().render(snapshot, canvas)

    (table,) = canvas.of("table")
    first, second = table.arguments[0].to_dict(orient="records")
    assert (first["model"], first["timeframe"], first["came true"]) == ("cnn", "1s", "31 %")
    assert first["result [R]"] == "–"
    assert second["result [R]"] == "−0.02"


def test_sliders_follow_the_thresholds_in_force(snapshot: Snapshot) -> None:
    memory: dict[Any, Any] = {"entry threshold": 0.9}
    canvas = Canvas()

    command = ThresholdsPanel(memory).render(snapshot, canvas)

    assert command is None
    assert memory == {"entry threshold": 0.6, "exit threshold": 0.5}
    assert [s.named["key"] for s in canvas.of("slider")] == ["entry threshold", "exit threshold"]
    assert "in force: enter at 0.60, exit at 0.50" in canvas.text


def test_slider_moved_by_a_person_is_sent_once(snapshot: Snapshot) -> None:
    memory: dict[Any, Any] = {}
    panel, canvas = ThresholdsPanel(memory), Canvas()
    panel.render(snapshot, canvas)
    memory["entry threshold"] = 0.72
    canvas.of("slider")[0].named["on_change"]()

    first, second = panel.render(snapshot, Canvas()), panel.render(snapshot, Canvas())

    assert first == Command("thresholds", {"entry": 0.72, "exit": 0.5})
    assert second is None


def test_thresholds_changed_elsewhere_are_not_sent_back(snapshot: Snapshot) -> None:
    panel = ThresholdsPanel({})
    panel.render(snapshot, Canvas())

    command = panel.render(but(snapshot, thresholds={"entry": 0.8, "exit": 0.3}), Canvas())

    assert command is None
    assert panel.memory["entry threshold"] == 0.8


def test_slider_that_was_refused_goes_back(snapshot: Snapshot) -> None:
    panel, canvas = ThresholdsPanel({}), Canvas()
    panel.render(snapshot, canvas)
    panel.memory["entry threshold"] = 0.1
    canvas.of("slider")[0].named["on_change"]()
    panel.render(snapshot, Canvas())

    panel.render(snapshot, Canvas())

    assert panel.memory["entry threshold"] == 0.6


def test_halt_is_asked_for_with_the_reason_that_was_typed(snapshot: Snapshot) -> None:
    canvas = Canvas(pressed=frozenset({"halt trading"}), typed={"reason": " bad news "})

    command = HaltPanel().render(snapshot, canvas)

    assert command == Command("halt", {"reason": "bad news"})


def test_halt_without_a_reason_says_who_asked(snapshot: Snapshot) -> None:
    canvas = Canvas(pressed=frozenset({"halt trading"}))

    command = HaltPanel().render(snapshot, canvas)

    assert command == Command("halt", {"reason": "asked for on the monitor"})


def test_halted_trading_can_only_be_resumed(halted: Snapshot) -> None:
    canvas = Canvas(pressed=frozenset({"halt trading", "resume trading"}))

    command = HaltPanel().render(halted, canvas)

    assert command == Command("resume", {"reason": "asked for on the monitor"})
    assert "trading is halted" in canvas.text


def test_trading_can_be_halted_where_its_state_is_not_known() -> None:
    canvas = Canvas(pressed=frozenset({"halt trading"}))

    assert HaltPanel().render(EMPTY, canvas) == Command(
        "halt", {"reason": "asked for on the monitor"}
    )


@pytest.mark.parametrize("name", ["feed", "trader", "settlement", "training", "dashboard"])
def test_every_process_can_be_stopped_and_started(snapshot: Snapshot, name: str) -> None:
    stop, start = (Canvas(pressed=frozenset({f"{verb} {name}"})) for verb in ("stop", "start"))
    stopped = [
        row | ({"state": "stopped", "wanted": "stopped"} if row["name"] == name else {})
        for row in snapshot.sections["processes"]
    ]

    assert ProcessesPanel().render(snapshot, stop) == Command("stop", {"process": name})
    assert ProcessesPanel().render(but(snapshot, processes=stopped), start) == Command(
        "start", {"process": name}
    )


def test_process_that_was_left_out_is_named_and_has_no_switch(snapshot: Snapshot) -> None:
    rows = [{"name": "training", "kind": "process", "state": "off", "wanted": "running"}]
    canvas = Canvas()

    assert ProcessesPanel().render(but(snapshot, processes=rows), canvas) is None

    assert canvas.of("button") == []
    assert "training" in canvas.text
    assert "off" in canvas.text


def test_actor_with_the_name_of_a_process_has_no_second_switch(snapshot: Snapshot) -> None:
    canvas = Canvas()

    ProcessesPanel().render(snapshot, canvas)

    keys = [call.named["key"] for call in canvas.of("button")]
    assert len(keys) == len(set(keys)) == 5
