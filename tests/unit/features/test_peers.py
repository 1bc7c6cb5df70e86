"""The peer table: one slot a model, outputs of earlier decisions only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alphapulse.domain.errors import ShapeMismatch
from alphapulse.domain.inference import Action, Forecast, Prediction
from alphapulse.domain.market import Timeframe
from alphapulse.features.peers import PEER_FIELDS, SLOTS, PeerTable

NOW = 1_723_161_810 * 10**9


def forecast(timeframe: Timeframe, level: int, p_high: float) -> Forecast:
    return Forecast(timeframe, level, p_high, 1 - p_high, NOW, 5.0, 2500.0, 0.5, 0.25, 0.625)


def prediction(model: str = "cnn", forecasts: tuple[Forecast, ...] = ()) -> Prediction:
    return Prediction(
        model,
        "v1",
        "ETH/USDT",
        NOW,
        Action.BUY,
        0.5,
        0.25,
        0.25,
        0.75,
        1.5,
        np.zeros(2, np.float32),
        forecasts,
    )


def test_fields_stand_where_the_layout_says() -> None:
    table = PeerTable()
    table.put(
        prediction(forecasts=(forecast(Timeframe.H1, 2, 0.5), forecast(Timeframe.H1, 1, 0.75)))
    )

    peers_KP, awake_K = table.at(NOW + 2 * 10**9)

    assert awake_K.tolist() == [0, 1] + [0] * 14
    assert peers_KP.shape == (16, 64)
    assert peers_KP[1, :6].tolist() == [0.5, 0.25, 0.25, 0.75, 1.5, 2.0]
    hour = PEER_FIELDS.index("1h_p_high")
    assert hour == 6 + 2 * 6
    assert peers_KP[1, hour : hour + 6].tolist() == [0.75, 0.25, 5.0, 0.5, 0.25, 0.625]
    assert not peers_KP[1, 6:hour].any()
    assert not peers_KP[1, hour + 6 :].any()
    assert not np.delete(peers_KP, 1, axis=0).any()


def test_output_of_the_same_decision_is_not_seen() -> None:
    table = PeerTable()
    table.put(prediction())

    peers_KP, awake_K = table.at(NOW)

    assert not awake_K.any()
    assert not peers_KP.any()


def test_snapshot_survives_json() -> None:
    table, again = PeerTable(), PeerTable()
    table.put(prediction("rl"))
    table.put(prediction("cnn", (forecast(Timeframe.D1, 1, 0.1),)))

    again.restore(json.loads(json.dumps(table.snapshot())))

    for one, other in zip(table.at(NOW + 1), again.at(NOW + 1), strict=True):
        assert np.array_equal(one, other)


def test_model_without_a_slot_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="expected a model of flat, cnn, rl, moe, was lgbm"):
        PeerTable().put(prediction("lgbm"))


def test_slots_never_move() -> None:
    assert SLOTS == {"flat": 0, "cnn": 1, "rl": 2, "moe": 3}
