"""Build inputs by hand, of waves, so that every cell tells itself apart; no market is meant."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from alphapulse.domain.inference import Prediction
from alphapulse.domain.inputs import CHANNEL, INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.market import SECOND_NS, BarFlag

START_NS = 1_723_161_300 * SECOND_NS  # 2024-08-08T23:55:00Z


def an_input(step: int = 0, *, spec: InputSpec = INPUT_SPEC) -> ModelInput:
    """Return a whole input in the axes of `spec`; another `step` is another input."""
    shapes = spec.shapes()

    def wave(name: str) -> Any:
        cells = np.arange(np.prod(shapes[name]), dtype=np.float64)
        return np.sin(0.37 * cells + step).reshape(shapes[name]).astype(np.float32)

    bars_SFTC, known_SFTC = wave("bars_SFTC"), np.ones(shapes["known_SFTC"], np.uint8)
    if CHANNEL["natr"] < spec.num_channels:
        bars_SFTC[..., CHANNEL["natr"]] = 0.002 + 0.001 * step  # a volatility is positive
    account_A = np.zeros(shapes["account_A"], np.float32)
    return ModelInput(
        symbol="ETH/USDT",
        reference="BTC/USDT",
        event_ns=START_NS + step * SECOND_NS,
        window_version=step + 1,
        price=2_600.0 + step,
        bars_SFTC=bars_SFTC,
        known_SFTC=known_SFTC,
        flags_SFT=np.full(shapes["flags_SFT"], BarFlag.VALID, np.uint8),
        book_STB=wave("book_STB"),
        known_STB=np.ones(shapes["known_STB"], np.uint8),
        peers_KP=np.zeros(shapes["peers_KP"], np.float32),
        awake_K=np.zeros(shapes["awake_K"], np.uint8),
        account_A=account_A,
        scale_S2=np.tile(np.array([2_000.0, 3_000.0]), (shapes["scale_S2"][0], 1)),
        spec=spec,
    )


def same(one: Prediction, other: Prediction) -> bool:
    """Return whether two predictions agree in every bit."""
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name))
        if f.name == "hidden_H"
        else getattr(one, f.name) == getattr(other, f.name)
        for f in fields(Prediction)
    )
