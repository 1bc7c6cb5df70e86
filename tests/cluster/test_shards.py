"""A market in two shards decides as one does, also when a shard is killed on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cluster.conftest import EAGER, UpProcess, num_decisions
from tests.cluster.rows import rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


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
    assert up.get("candles?symbol=BTC/USDT&timeframe=1s&count=5").status_code == 200

    code, _, err = up.interrupt()

    assert code == 0, err
    mine, wanted = rows_of(home), rows_of(whole[0])
    wanted = wanted[wanted["event_ns"] <= mine["event_ns"].max()]
    assert len(mine) >= 3 * 120
    pd.testing.assert_frame_equal(mine, wanted.reset_index(drop=True))
