"""Outcomes become targets the models read, and an example counts by how wrong its model was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alphapulse.domain.learning import Outcome
from alphapulse.learning.examples import (
    is_accurate,
    sharing,
    targets_of,
    weights_of,
)

NAN = math.nan


def outcome(**fields: Any) -> Outcome:
    common: dict[str, Any] = {"inference_id": "i", "run": "r", "symbol": "ETH/USDT", "model": "cnn"}
    common |= {"event_ns": 10, "known_ns": 20, "unit": 0.01, "ended_ns": 15, "price": 1.0}
    return Outcome(**(common | {"move": 0.0, "hit": 1.0} | fields))


def forecast(timeframe: str, **fields: Any) -> Outcome:
    answer = {"kind": "H", "bars": 3.0, "move": 0.5, "p_done": 1.0}
    return outcome(timeframe=timeframe, level=2, **(answer | fields))


def test_forecasts_become_the_heads_of_the_cnn_unknown_where_nothing_is_settled() -> None:
    targets = targets_of([forecast("1s"), forecast("1h", kind="L", move=-2.0, p_done=0.0)])

    expected = {
        "p_high": [1, NAN, 0, NAN],
        "log_bars": [math.log(4), NAN, math.log(4), NAN],
        "move": [0.5, NAN, -2, NAN],
        "p_done": [1, NAN, 0, NAN],
        "unique": [1, NAN, 1, NAN],
    }
    assert set(targets) == set(expected)
    for head, values in expected.items():
        assert targets[head].dtype == np.float32
        np.testing.assert_allclose(targets[head], np.float32(values))


def test_forecasts_that_share_a_pivot_share_its_weight() -> None:
    same = [forecast("1s", inference_id=str(n)) for n in range(4)]
    others = [forecast("1s", symbol="BTC/USDT"), forecast("1s", ended_ns=16), forecast("1m")]
    shared = sharing([*same, *others])

    unique = [targets_of([o], shared=shared)["unique"] for o in (*same, *others)]

    assert [float(np.nanmax(u)) for u in unique] == [0.25] * 4 + [1.0] * 3


def test_accurate_is_an_inference_whose_every_forecast_hit() -> None:
    hit, missed = forecast("1s"), forecast("1m", hit=0.0)

    assert [is_accurate(o) for o in ([hit, hit], [hit, missed], [missed])] == [True, False, False]


def test_misses_count_by_their_loss_and_nothing_counts_more_than_threefold() -> None:
    loss_N = np.array([1.0, 2.0, 4.0, 400.0, NAN, 9.0])
    accurate_N = np.array([False, False, False, False, False, True])

    weight_N = weights_of(loss_N, accurate_N)

    assert weight_N.tolist() == [0.25, 0.5, 1.0, 3.0, 1.0, 1.0]


def test_without_a_loss_all_count_alike() -> None:
    nothing = np.full(3, NAN)

    assert weights_of(nothing, np.zeros(3, np.bool_)).tolist() == [1.0] * 3
    assert weights_of(nothing[:0], np.zeros(0, np.bool_)).tolist() == []
