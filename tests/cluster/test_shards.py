"""A market in two shards decides as one does, also when a shard is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cluster.conftest import EAGER, UpProcess, num_decisions
from tests.cluster.rows import rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def read(up: UpProcess, symbol: str) -> dict[str, Any]:
    """Return what a job sees of the cache."""
    command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--log-style", "record"]
    command += ["--address", f"http://127.0.0.1:{up.jobs_port}", "--"]
    command += ["env", f"PYTHONPATH={Path.cwd()}", sys.executable, "-m", "tests.cluster.reading"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(up.home / "ray_token")}
    ended = subprocess.run(
        [*command, symbol], env=up.environ | token, capture_output=True, text=True, check=False
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    assert lines, ended.stdout + ended.stderr
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def test_two_shards_decide_as_one_even_after_one_was_killed(
    whole: tuple[Path, dict[str, Any]],
    new_home: Callable[[str], Path],
    start_up: Callable[..., UpProcess],
) -> None:
    home = new_home("shards")
    up = start_up(home, "--speed", "20", settings={**EAGER, "ALPHAPULSE__RAY__MARKET_SHARDS": "2"})
    up.wait_until(lambda trader: num_decisions(trader) >= 60)
    pids = {row["name"]: row["pid"] for row in up.get("processes").json()}
    assert {"market_data_shard_0", "market_data_shard_1"} <= set(pids)
    os.kill(pids["market_data_shard_1"], 9)
    made = num_decisions(up.wait_until(lambda trader: True))
    up.wait_until(lambda trader: num_decisions(trader) >= made + 60)
    assert list(up.get("snapshot").json()["symbols"]) == ["ETH/USDT", "BTC/USDT"]
    cached = [read(up, symbol) for symbol in ("ETH/USDT", "BTC/USDT")]
    for told in cached:
        assert told["bars"]["1m"] == told["bars"]["1h"] == told["bars"]["1d"] >= 599
        assert 60 <= told["bars"]["1s"] <= 600
        assert min(told["bars"]["1s"], 300) <= told["bucket_seconds"] <= 300
        assert told["trades"] > 100
        assert told["awake"] == ["cnn", "rl", "moe"]
        assert told["is_shared"]
    assert up.get("candles?symbol=BTC/USDT&timeframe=1s&count=5").status_code == 200

    code, _, err = up.interrupt()

    assert code == 0, err
    mine, wanted = rows_of(home), rows_of(whole[0])
    wanted = wanted[wanted["event_ns"] <= mine["event_ns"].max()]
    assert len(mine) >= 3 * 120
    pd.testing.assert_frame_equal(mine, wanted.reset_index(drop=True))
