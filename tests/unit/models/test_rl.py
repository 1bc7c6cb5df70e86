"""The policy needs the CNN, listens to its hidden state, and starts from what is usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alphapulse.domain.inference import Action, Example
from alphapulse.domain.inputs import CHANNEL, INPUT_SPEC, ModelInput
from alphapulse.models.cnn import CNN
from alphapulse.models.policy import features_of, num_features
from alphapulse.models.rl import RL
from tests.unit.models.conftest import changed


def test_without_the_cnn_it_says_nothing(rl: RL, seen: ModelInput) -> None:
    with pytest.raises(KeyError):
        rl.predict(seen, upstream={})


def test_permuting_the_hidden_state_changes_the_action_probabilities(
    rl: RL, cnn: CNN, seen: ModelInput
) -> None:
    forecast = cnn.predict(seen, upstream={})
    permuted = replace(forecast, hidden_H=forecast.hidden_H[::-1].copy())

    first = rl.predict(seen, upstream={"cnn": forecast})
    second = rl.predict(seen, upstream={"cnn": permuted})

    assert (first.p_buy, first.p_sell) != (second.p_buy, second.p_sell)
    assert first.hidden_H.shape == (32,)
    assert first.p_buy + first.p_sell + first.p_hold == pytest.approx(1.0)


def test_features_hold_nothing_of_masked_streams(cnn: CNN, seen: ModelInput) -> None:
    forecast = cnn.predict(seen, upstream={})
    bars_SFTC = seen.bars_SFTC.copy()
    bars_SFTC[:, 0] = np.nan

    features = features_of(changed(seen, bars_SFTC=bars_SFTC), forecast, INPUT_SPEC)

    assert features.shape == (num_features(seen.spec),)
    assert features.tobytes() == features_of(seen, forecast, INPUT_SPEC).tobytes()


def test_an_indicator_it_was_not_trained_with_changes_no_feature(
    cnn: CNN, seen: ModelInput
) -> None:
    forecast = cnn.predict(seen, upstream={})
    bars_SFTC = seen.bars_SFTC.copy()
    bars_SFTC[..., CHANNEL["own_1"]] = 3.0
    told = replace(seen, bars_SFTC=bars_SFTC, spec=replace(INPUT_SPEC, own=("mine",)))

    for own in ((), ("other",)):
        without = features_of(told, forecast, replace(INPUT_SPEC, own=own))
        assert without.tobytes() == features_of(seen, forecast, INPUT_SPEC).tobytes()
    assert (features_of(told, forecast, told.spec) == 3.0).sum() >= 6


def test_from_the_base_it_answers_what_the_teacher_does_when_flat_and_when_long(
    rl: RL, cnn: CNN, pair: tuple[ModelInput, ...]
) -> None:
    long_A = np.array([1, 0, 0, 0], dtype=np.float32)
    rows = []
    for input in pair:
        upstream = {"cnn": cnn.predict(input, upstream={})}
        result = np.array([0.5, -1.0], dtype=np.float32)
        for seen, action in ((input, 0.0), (changed(input, account_A=long_A), 2.0)):
            answer = {"action": np.array([action], dtype=np.float32), "result": result}
            rows += [Example(seen, upstream, answer)] * 8

    rl.fit(rows, seed=1, epochs=1)
    flat = rl.predict(rows[0].input, upstream=rows[0].upstream)
    long = rl.predict(rows[8].input, upstream=rows[8].upstream)

    assert flat.action is Action.BUY
    assert flat.utility_r == pytest.approx(0.5, abs=0.2)
    assert long.action is Action.HOLD
    assert long.utility_r == 0.0
