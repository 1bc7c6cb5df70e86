"""Check the shapes of an input, the identity of what it holds, and the ids that join everything."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest

from alphapulse.domain.errors import InvalidRequest, ShapeMismatch
from alphapulse.domain.inference import (
    Action,
    Decision,
    Forecast,
    Prediction,
    Thresholds,
    inference_id,
    trace_id,
)
from alphapulse.domain.inputs import AXES, DTYPES, INPUT_SPEC, ModelInput
from alphapulse.domain.market import PivotKind, Timeframe


def arrays() -> dict[str, Any]:
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in INPUT_SPEC.shapes().items()}


def an_input(**changes: Any) -> ModelInput:
    fields: dict[str, Any] = {
        "symbol": "ETH/USDT",
        "reference": "BTC/USDT",
        "event_ns": 1,
        "window_version": 1,
        "price": 2.0,
        **arrays(),
    }
    return ModelInput(**{**fields, **changes})


def a_prediction(model: str = "cnn") -> Prediction:
    return Prediction(
        model, "v", "ETH/USDT", 1, Action.HOLD, 0.2, 0.3, 0.5, 0.5, 0.0, np.zeros(4, np.float32)
    )


def test_spec_has_the_axes_of_the_design() -> None:
    shapes = INPUT_SPEC.shapes()

    assert shapes["bars_SFTC"] == (2, 4, 300, 32)
    assert shapes["book_STB"] == (2, 300, 50)
    assert shapes["peers_KP"] == (16, 64)


@pytest.mark.parametrize("name", INPUT_SPEC.shapes())
def test_foreign_shape_is_refused_with_axis_expected_and_actual(name: str) -> None:
    expected = INPUT_SPEC.shapes()[name]
    actual = (*expected[:-1], expected[-1] + 1)
    axis = name.rsplit("_", 1)[-1][len(expected) - 1]

    with pytest.raises(ShapeMismatch) as caught:
        an_input(**{name: np.zeros(actual, np.float32)})

    told = f"wrong_shape: ETH/USDT {name}: axis {axis} ({AXES[axis]}): expected {expected}, was "
    assert f"{told}{actual}" in str(caught.value)


def test_missing_axis_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="awake_K: number of axes: expected"):
        an_input(awake_K=np.zeros((16, 1), np.uint8))


def test_equal_inputs_have_equal_hashes() -> None:
    assert an_input().content_hash == an_input().content_hash


@pytest.mark.parametrize("name", INPUT_SPEC.shapes())
def test_hash_sees_one_changed_value_in_every_array(name: str) -> None:
    changed = arrays()[name]
    changed.flat[-1] = 1

    assert an_input(**{name: changed}).content_hash != an_input().content_hash


@pytest.mark.parametrize(
    "change", [{"symbol": "BTC/USDT"}, {"reference": "ETH/USDT"}, {"event_ns": 2}], ids=str
)
def test_hash_sees_what_and_when(change: dict[str, Any]) -> None:
    assert an_input(**change).content_hash != an_input().content_hash


def test_hash_does_not_see_the_memory_order() -> None:
    fortran = np.asfortranarray(arrays()["bars_SFTC"])

    assert an_input(bars_SFTC=fortran).content_hash == an_input().content_hash


@pytest.mark.parametrize(("entry", "exit_"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1)])
def test_thresholds_out_of_order_are_refused(entry: float, exit_: float) -> None:
    with pytest.raises(InvalidRequest, match="expected 0 <= exit <= entry <= 1"):
        Thresholds(entry=entry, exit=exit_)


def test_likelier_kind_is_the_forecast() -> None:
    forecast = Forecast(Timeframe.M1, 1, 0.4, 0.6, 1, 1.0, 2.0, 0.0, 0.1, 0.5)

    assert forecast.kind is PivotKind.LOW
    assert dataclasses.replace(forecast, p_high=0.6, p_low=0.4).kind is PivotKind.HIGH


def test_decision_finds_a_prediction_by_model() -> None:
    cnn = a_prediction()
    decision = Decision("ETH/USDT", 1, Action.HOLD, 0.5, 0.0, "acts", Thresholds(), (cnn,))

    assert decision.of("cnn") is cnn
    with pytest.raises(KeyError):
        decision.of("rl")


def test_inference_id_is_the_documented_hash() -> None:
    text = "run|ETH/USDT|7|cnn"

    found = inference_id(run="run", symbol="ETH/USDT", event_ns=7, model="cnn")

    assert found == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_trace_id_is_one_a_decision() -> None:
    ids = {trace_id(run="r", symbol=s, event_ns=t) for s in ("A/B", "C/D") for t in (1, 2)}

    assert len(ids) == 4
    assert all(len(i) == 16 for i in ids)
