"""The CNN looks only at what is valid, says the same each time, and learns from answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alphapulse.domain.errors import ShapeMismatch, Unavailable
from alphapulse.domain.inference import Example, Prediction
from alphapulse.domain.inputs import CHANNEL, INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.market import BarFlag, Timeframe
from alphapulse.models.cnn import CNN
from alphapulse.models.network import volatility_SF
from tests.unit.models.conftest import changed


def same_bits(a: Prediction, b: Prediction) -> bool:
    return a.forecasts == b.forecasts and a.hidden_H.tobytes() == b.hidden_H.tobytes()


def test_forecasts_every_timeframe_with_a_stream_and_none_without(
    cnn: CNN, seen: ModelInput
) -> None:
    prediction = cnn.predict(seen, upstream={})

    assert [f.timeframe for f in prediction.forecasts] == ["1m", "1h", "1d"]
    assert [f.level for f in prediction.forecasts] == [2, 1, 1]
    assert all(f.price > 0 and f.pivot_ns >= seen.event_ns for f in prediction.forecasts)
    assert prediction.p_buy + prediction.p_sell + prediction.p_hold == pytest.approx(1.0)
    assert prediction.hidden_H.shape == (48,)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e9])
def test_garbage_in_masked_rows_changes_no_bit(cnn: CNN, seen: ModelInput, garbage: float) -> None:
    flags_SFT = seen.flags_SFT.copy()
    flags_SFT[0, 1, 40:90] = 0
    hidden = changed(seen, flags_SFT=flags_SFT)
    bars_SFTC = np.where(
        (flags_SFT & int(BarFlag.VALID) != 0)[..., None], seen.bars_SFTC, np.float32(garbage)
    )
    book_STB = np.full_like(seen.book_STB, garbage)
    poisoned = changed(hidden, bars_SFTC=bars_SFTC, book_STB=book_STB)

    # the network itself: no model is asked about an input that lacks rows of 1m
    assert outputs(cnn, hidden) == outputs(cnn, poisoned)
    assert outputs(cnn, hidden) != outputs(cnn, seen)


def outputs(cnn: CNN, input: ModelInput) -> bytes:
    names = ("book_STB", "known_STB", "peers_KP", "awake_K")
    with torch.inference_mode():
        bars_FTC, flags_FT = torch.tensor(input.bars_SFTC), torch.tensor(input.flags_SFT)
        beside = cnn.network.beside(*(torch.tensor(getattr(input, n))[None] for n in names))
        found, _ = cnn.network.fuse(cnn.network.tokens(bars_FTC[None], flags_FT[None]), beside)
    return found.numpy().tobytes()


def test_streams_masked_whole_give_finite_outputs(cnn: CNN, seen: ModelInput) -> None:
    blind = changed(seen, flags_SFT=np.zeros_like(seen.flags_SFT))

    with torch.inference_mode():
        tokens = cnn.network.tokens(
            torch.tensor(blind.bars_SFTC)[None], torch.tensor(blind.flags_SFT)[None]
        )
        outputs, hidden = cnn.network.fuse(tokens)

    assert torch.isfinite(outputs).all()
    assert torch.isfinite(hidden).all()


def test_peers_count_for_nothing_unless_the_checkpoint_was_trained_with_them(
    cnn: CNN, seen: ModelInput
) -> None:
    cnn.network.from_peers.weight.data.normal_()
    awake = changed(
        seen, peers_KP=np.full_like(seen.peers_KP, np.nan), awake_K=np.ones_like(seen.awake_K)
    )

    assert same_bits(cnn.predict(awake, upstream={}), cnn.predict(seen, upstream={}))


def test_peers_in_trained_slots_are_heard_while_awake(cnn: CNN, seen: ModelInput) -> None:
    cnn.network.from_peers.weight.data.normal_()
    cnn.network.get_buffer("trained_K")[2] = True
    awake_K = seen.awake_K.copy()
    awake_K[2] = 1
    awake = changed(seen, peers_KP=np.ones_like(seen.peers_KP), awake_K=awake_K)

    assert not same_bits(cnn.predict(awake, upstream={}), cnn.predict(seen, upstream={}))


def test_second_bars_leave_the_other_timeframes_as_they_were_and_are_answered(
    cnn: CNN, seen: ModelInput
) -> None:
    bars_SFTC, flags_SFT = seen.bars_SFTC.copy(), seen.flags_SFT.copy()
    bars_SFTC[:, 0], flags_SFT[:, 0] = bars_SFTC[:, 1], flags_SFT[:, 1]

    before = cnn.predict(seen, upstream={})
    after = cnn.predict(changed(seen, bars_SFTC=bars_SFTC, flags_SFT=flags_SFT), upstream={})

    assert after.forecasts[1:] == before.forecasts
    assert after.forecasts[0].timeframe is Timeframe.S1
    assert after.hidden_H.tobytes() == before.hidden_H.tobytes()


def test_book_counts_for_nothing_before_a_training_has_seen_one(cnn: CNN, seen: ModelInput) -> None:
    book = changed(
        seen, book_STB=np.ones_like(seen.book_STB), known_STB=np.ones_like(seen.known_STB)
    )

    assert same_bits(cnn.predict(book, upstream={}), cnn.predict(seen, upstream={}))


def test_read_only_and_misaligned_arrays_give_the_same_bits(cnn: CNN, seen: ModelInput) -> None:
    buffer = np.zeros(seen.bars_SFTC.nbytes + 4, dtype=np.uint8)
    bars_SFTC = buffer[4:].view(np.float32).reshape(seen.bars_SFTC.shape)
    bars_SFTC[:] = seen.bars_SFTC
    bars_SFTC.setflags(write=False)

    shifted = cnn.predict(changed(seen, bars_SFTC=bars_SFTC), upstream={})

    assert same_bits(shifted, cnn.predict(seen, upstream={}))


def test_either_symbol_of_a_pair_is_decided_as_if_it_stood_first(
    cnn: CNN, pair: tuple[ModelInput, ...]
) -> None:
    eth, btc = pair

    assert np.array_equal(btc.bars_SFTC, eth.bars_SFTC[::-1])
    assert np.array_equal(btc.flags_SFT, eth.flags_SFT[::-1])


def test_an_indicator_it_was_not_trained_with_changes_no_bit(cnn: CNN, seen: ModelInput) -> None:
    bars_SFTC = seen.bars_SFTC.copy()
    bars_SFTC[..., CHANNEL["own_1"]] = 3.0
    spec = replace(INPUT_SPEC, own=("mine",))
    told = replace(seen, bars_SFTC=bars_SFTC, spec=spec)

    assert same_bits(cnn.predict(told, upstream={}), cnn.predict(seen, upstream={}))


def test_an_indicator_is_heard_by_its_name_wherever_it_is(cnn: CNN, seen: ModelInput) -> None:
    first, second = seen.bars_SFTC.copy(), seen.bars_SFTC.copy()
    first[..., CHANNEL["own_1"]] = second[..., CHANNEL["own_2"]] = 3.0
    second[..., CHANNEL["own_1"]] = 7.0
    spec = replace(INPUT_SPEC, own=("mine",))
    taught = CNN(cnn.network, cost_bps=cnn.cost_bps, spec=spec)

    alone = replace(seen, bars_SFTC=first, spec=spec)
    beside = replace(seen, bars_SFTC=second, spec=replace(INPUT_SPEC, own=("new", "mine")))

    assert same_bits(taught.predict(alone, upstream={}), taught.predict(beside, upstream={}))
    assert not same_bits(taught.predict(alone, upstream={}), cnn.predict(alone, upstream={}))


def test_an_indicator_it_was_trained_with_is_heard_and_kept(
    cnn: CNN, seen: ModelInput, tmp_path: Path
) -> None:
    bars_SFTC = seen.bars_SFTC.copy()
    bars_SFTC[..., CHANNEL["own_1"]] = 3.0
    spec = replace(INPUT_SPEC, own=("mine",))
    taught = CNN(cnn.network, cost_bps=cnn.cost_bps, spec=spec)
    taught.save(tmp_path)
    told, silent = replace(seen, bars_SFTC=bars_SFTC, spec=spec), replace(seen, spec=spec)

    again = CNN.load(tmp_path)

    assert again.spec == spec
    assert same_bits(again.predict(told, upstream={}), taught.predict(told, upstream={}))
    assert not same_bits(taught.predict(told, upstream={}), taught.predict(silent, upstream={}))


def test_foreign_spec_is_refused(cnn: CNN, seen: ModelInput) -> None:
    cnn.spec = InputSpec(version=99)

    with pytest.raises(ShapeMismatch, match="expected input spec"):
        cnn.predict(seen, upstream={})


def test_volatility_is_that_of_the_newest_valid_row(seen: ModelInput) -> None:
    volatility_SF_ = volatility_SF(seen.bars_SFTC, seen.flags_SFT)

    assert np.isnan(volatility_SF_[:, 0]).all()
    assert (volatility_SF_[:, 1] < volatility_SF_[:, 2]).all()
    assert (volatility_SF_[:, 2] < volatility_SF_[:, 3]).all()


def targets(p_high: float) -> dict[str, np.ndarray]:
    known = np.array([np.nan, 1, 1, np.nan], dtype=np.float32)
    return {"p_high": known * p_high, "log_bars": known, "move": known, "p_done": known * 0}


def learned(make: Callable[[], CNN], pair: tuple[ModelInput, ...]) -> tuple[CNN, dict[str, float]]:
    model = make()
    rows = [Example(input, {}, targets(1.0)) for input in pair * 30]
    return model, dict(model.learn(rows).held_out_loss)


def test_learning_lowers_the_loss_and_is_repeatable(pair: tuple[ModelInput, ...]) -> None:
    def make() -> CNN:
        return CNN.fresh(seed=5, cost_bps=10.0)

    before = make()
    first, losses = learned(make, pair)
    second, _ = learned(make, pair)

    assert losses["p_high_1m"] < 0.69
    assert first.version == second.version != before.version
    assert "p_high_1s" not in losses


def test_one_example_is_too_few_to_learn_from(cnn: CNN, seen: ModelInput) -> None:
    with pytest.raises(Unavailable, match="at least 2 examples"):
        cnn.learn([Example(seen, {}, targets(1.0))])
