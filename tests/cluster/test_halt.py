"""Drawdown at its limit: trading halts, what is open is closed, and only a person lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal as D
from pathlib import Path

import pytest

from tests.cluster.conftest import EAGER, UpProcess, num_decisions
from tests.cluster.rows import ledger_of, noted, traded

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TIGHT = {**EAGER, "ALPHAPULSE__RISK__MAX_DRAWDOWN_PCT": "0.01"}


def entries(home: Path) -> int:
    orders = traded(ledger_of(home))["orders"]
    return sum(o["purpose"] == "entry" and o["state"] != "refused" for o in orders)


def test_drawdown_halts_trading_until_a_person_resumes_also_over_a_restart(
    new_home: Callable[[str], Path], start_up: Callable[..., UpProcess]
) -> None:
    home = new_home("halt")
    first = start_up(home, "--speed", "20", settings=TIGHT)
    first.wait_until(lambda trader: trader["halts"] == 1)
    made = num_decisions(first.get("status").json()["trader"])
    first.wait_until(lambda trader: num_decisions(trader) >= made + 20)
    code, summary, err = first.interrupt()
    assert (code, summary["halts"], summary["is_halted"], summary["errors"]) == (4, 1, True, 0), err
    rows = traded(ledger_of(home))
    halted_ns = ledger_of(home).halts()[0].event_ns
    after = [o for o in rows["orders"] if o["event_ns"] >= halted_ns]
    assert {o["purpose"] for o in after if o["state"] != "refused"} <= {"halt"}
    assert {o["purpose"] for o in after if o["state"] == "refused"} == {"entry"}
    assert sum(D(f["quantity"]) for f in rows["fills"]) == 0
    paid = sum(D(f["quantity"]) * D(f["price"]) + D(f["fee"]) for f in rows["fills"])
    assert D(rows["steps"][-1]["cash"]) == D("10000") - paid == D(summary["pnl"]["net"]) + 10_000

    second = start_up(home, "--speed", "20", settings=TIGHT)
    trader = second.wait_until(lambda trader: num_decisions(trader) >= 60)
    assert trader["is_halted"]
    assert trader["orders"] == summary["orders"]
    assert [a["code"] for a in second.get("alerts").json()] == ["TradingHalted"]

    answer = second.alphapulse("resume", "--reason", "looked into it")
    assert answer["is_halted"] is False
    second.wait_until(lambda trader: trader["orders"] > summary["orders"])
    assert second.get("processes/audit").json()[0]["detail"] == "looked into it"
    second.request("POST", "processes/trader/stop")
    stopped = second.wait_until(lambda trader: trader["resumed_ns"] > 0)
    made, entered = num_decisions(stopped), entries(home)
    second.wait_until(lambda trader: num_decisions(trader) >= made + 40)
    assert entries(home) <= entered + 1, "the step in flight may have entered, no later one"
    code, summary, err = second.interrupt()
    assert summary["errors"] == 0, err
    sent = {o["id"] for o in traded(ledger_of(home))["orders"] if o["state"] != "refused"}
    assert sorted(row["order_id"] for row in noted(home, "orders")) == sorted(sent)
    assert "TradingHalted" in {row["code"] for row in noted(home, "alerts")}
    halts = ledger_of(home).halts()
    assert (halts[0].clear_reason, halts[0].cleared_ns is not None) == ("looked into it", True)
