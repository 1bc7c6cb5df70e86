"""`alphapulse up` over the recorded window: what it decides, keeps, survives and says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alphapulse.domain.market import SECOND_NS
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.features.registry import INDICATORS
from tests.cluster.conftest import ALPHAPULSE, EAGER, UpProcess, num_decisions
from tests.cluster.rows import ledger_of, rows_of, traded

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SYMBOLS = ("BTC/USDT", "ETH/USDT")
INSTANTS = 649  # 23:54:17 to 00:05:05, one a second
Start = Callable[..., UpProcess]
NewHome = Callable[[str], Path]
Whole = tuple[Path, dict[str, Any]]


def test_whole_run_decides_every_second_of_both_symbols_without_an_error(whole: Whole) -> None:
    summary = whole[1]

    assert {s: sum(a.values()) for s, a in summary["decisions"].items()} == dict.fromkeys(
        SYMBOLS, INSTANTS
    )
    assert summary["inferences"] == dict.fromkeys(("cnn", "rl", "moe"), 2 * INSTANTS)
    assert (summary["errors"], summary["incomplete"]) == (0, 0)
    assert summary["from"] == "2024-08-08T23:54:17Z"
    assert summary["to"] == "2024-08-09T00:05:05Z"


def test_every_inference_of_the_run_is_in_the_history_once(whole: Whole) -> None:
    rows, forecasts = rows_of(whole[0]), rows_of(whole[0], "predictions")

    assert len(rows) == rows["id"].nunique() == 3 * 2 * INSTANTS
    # a move is in units of the average true range: the seconds of its warm-up have no forecast
    (unsettled,) = [i.warm_up - 1 for i in INDICATORS if "atr14" in i.columns]
    assert forecasts.groupby("timeframe").size().to_dict() == {
        "1s": 2 * (INSTANTS - unsettled),
        **dict.fromkeys(("1m", "1h", "1d"), 2 * INSTANTS),
    }
    seconds = forecasts[forecasts["timeframe"] == "1s"]
    first_ns = forecasts.groupby("symbol")["event_ns"].min() + unsettled * SECOND_NS
    assert seconds.groupby("symbol")["event_ns"].min().to_dict() == first_ns.to_dict()
    assert set(rows["run"]) == {whole[1]["run"]}


def test_what_was_predicted_is_settled_once(whole: Whole) -> None:
    outcomes = rows_of(whole[0], "outcomes")

    counts = outcomes[outcomes["level"] > 0].groupby("timeframe").size()
    assert counts["1s"] >= 500
    assert counts["1m"] >= 1
    assert not outcomes.duplicated(["inference_id", "timeframe", "level", "version"]).any()
    assert whole[1]["settled"] == len(outcomes)
    inferences = rows_of(whole[0]).set_index("id")
    decided_ns = inferences.loc[outcomes["inference_id"], "event_ns"].to_numpy()
    assert (outcomes["event_ns"].to_numpy() == decided_ns).all()
    assert (outcomes["known_ns"] > outcomes["event_ns"]).all()
    assert whole[1]["examples"] == outcomes[outcomes["level"] > 0]["inference_id"].nunique()


def test_eager_run_trades_is_stopped_out_and_balances_to_the_last_digit(whole: Whole) -> None:
    rows, summary = traded(ledger_of(whole[0])), whole[1]

    assert len(rows["fills"]) == summary["fills"] >= 20
    assert sum(order["purpose"] == "stop" for order in rows["orders"]) >= 1
    assert {order["state"] for order in rows["orders"]} == {"filled"}
    inferences = set(rows_of(whole[0])["id"])
    assert {order["inference_id"] for order in rows["orders"]} <= inferences
    assert all(order["is_stored"] for order in rows["orders"])
    paid = [D(f["quantity"]) * D(f["price"]) for f in rows["fills"]]
    fees = [D(f["fee"]) for f in rows["fills"]]
    last = rows["steps"][-1]
    before = [i for i, f in enumerate(rows["fills"]) if f["event_ns"] <= last["event_ns"]]
    cash = D("10000") - sum(paid[i] + fees[i] for i in before)
    assert D(last["cash"]) == cash
    assert D(summary["pnl"]["fees"]) == sum(fees)
    assert D(summary["pnl"]["net"]) == D(summary["pnl"]["gross"]) - sum(fees)


def test_second_up_on_an_ended_recording_has_nothing_left_to_replay(
    whole: Whole, start_up: Start
) -> None:
    code, summary, err = start_up(whole[0], "--speed", "max", settings=EAGER).end()

    assert code == 0
    assert "nothing left to replay" in err
    assert summary["decisions"] == {}
    for name in ("orders", "fills", "pnl", "halts", "is_halted"):
        assert summary[name] == whole[1][name], "its account is that of its ledger"


def test_port_that_is_taken_is_named_before_anything_starts(
    new_home: NewHome, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home("port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("ALPHAPULSE__SERVER__HTTP_PORT", str(port))
        command = [ALPHAPULSE, "up", "--recording", str(recordings), "--home", str(home)]

        ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert f"PortTaken: port {port}" in ended.stderr
    assert not (home / "head.json").exists()


def test_backtest_gives_the_same_rows_as_up(
    whole: Whole, new_home: NewHome, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    command = [ALPHAPULSE, "backtest", "--recording", str(recordings), "--json", "--out", str(out)]
    command += ["--home", str(new_home("backtest"))]
    environ = {**os.environ, **EAGER}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    answer = json.loads(done.stdout)

    replayed = pd.DataFrame(json.loads(line) for line in out.read_text().splitlines())
    stored = rows_of(whole[0])
    stored["hidden"] = stored["hidden"].map(bytes.hex)
    shared = [column for column in replayed.columns if column in stored.columns]
    assert {"id", "event_ns", "input_hash", "action", "p_buy", "confidence"} <= set(shared)
    order = ["event_ns", "symbol", "model"]
    pd.testing.assert_frame_equal(
        replayed[shared].sort_values(order, ignore_index=True),
        stored[shared].sort_values(order, ignore_index=True),
        check_dtype=False,
        check_exact=True,
    )
    assert traded(LedgerReader(Path(answer["ledger"]))) == traded(ledger_of(whole[0]))
    assert answer["pnl"] == whole[1]["pnl"]


def test_interrupted_killed_and_wounded_run_equals_an_uninterrupted_one(
    whole: Whole, new_home: NewHome, start_up: Start
) -> None:
    home = new_home("interrupted")
    first = start_up(home, "--speed", "20", settings=EAGER)
    first.wait_until(lambda trader: num_decisions(trader) >= 100)
    code, summary, err = first.interrupt()
    assert (code, summary["errors"]) == (0, 0), err
    assert 100 <= num_decisions(summary) < 1200

    second = start_up(home, "--speed", "20", settings=EAGER)
    second.wait_until(lambda trader: num_decisions(trader) >= 100)
    second.kill_everything()

    third = start_up(home, "--speed", "20", settings=EAGER)
    third.wait_until(lambda trader: num_decisions(trader) >= 20)
    pids = {row["name"]: row["pid"] for row in third.get("processes").json()}
    os.kill(pids["rl"], 9)
    acknowledged = set(rows_of(home)["id"])
    os.kill(pids["inference_history"], 9)
    assert acknowledged <= set(rows_of(home)["id"])
    third.wait_until(lambda trader: num_decisions(trader) >= 60)
    for wounded in ("trader", "feedback", "market_data"):
        os.kill(pids[wounded], 9)
    code, _, err = third.end()
    assert code == 0, err

    for table in ("inferences", "predictions", "outcomes"):
        pd.testing.assert_frame_equal(rows_of(home, table), rows_of(whole[0], table))
    assert traded(ledger_of(home)) == traded(ledger_of(whole[0]))


def test_head_that_dies_is_replaced_and_the_run_goes_on(new_home: NewHome, start_up: Start) -> None:
    up = start_up(new_home("head"), "--speed", "1")
    up.wait_until(lambda trader: num_decisions(trader) >= 2)
    made = num_decisions(up.get("status").json()["trader"])
    store = next(p for p in up.family if p.name().startswith("gcs_server"))

    store.kill()
    time.sleep(3)
    trader = up.wait_until(lambda trader: num_decisions(trader) >= 2)

    assert trader["resumed_ns"] > 0
    assert made > 0
    up.interrupt()
