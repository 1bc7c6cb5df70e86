"""One real input a session, from the candles before the first tick, and untrained models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alphapulse.config import Settings
from alphapulse.data.tape import Tape
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.cnn import CNN
from alphapulse.models.moe import Orchestrator
from alphapulse.models.rl import RL
from experiments.dataset import input_pair, windows

AT_NS = 1_723_161_240_000_000_000  # 2024-08-08T23:54:00Z, the last minute before the first tick
MINUTE_NS = 60_000_000_000


@pytest.fixture(scope="session")
def pair(recordings: Path) -> tuple[ModelInput, ...]:
    """Return the inputs of ETH/USDT and BTC/USDT at the last minute before the ticks."""
    settings = Settings()
    instruments = settings.market.instruments
    symbols = tuple(i.symbol for i in instruments)

    async def build() -> tuple[ModelInput, ...]:
        tape = Tape(
            recordings,
            instruments,
            with_ticks=False,
            from_ns=AT_NS - MINUTE_NS,
            until_ns=AT_NS,
        )
        async for window in windows(tape, settings, np.array([AT_NS])):
            return input_pair(window, symbols)
        return ()

    return asyncio.run(build())


@pytest.fixture(scope="session")
def seen(pair: tuple[ModelInput, ...]) -> ModelInput:
    """Return the input of ETH/USDT."""
    return pair[0]


@pytest.fixture
def cnn() -> CNN:
    """Return a CNN whose zero-initialised mixing is woken, as a training wakes it."""
    model = CNN.fresh(seed=3, cost_bps=10.0)
    weight = model.network.from_streams.weight.data
    tokens = model.sizes.token
    weight.normal_(0, 0.05)
    weight.view(weight.shape[0], 2, 4, tokens)[:, :, 0] = 0  # training has seen no second bars
    return model


@pytest.fixture
def rl() -> RL:
    """Return an untrained policy."""
    return RL.fresh(seed=3)


@pytest.fixture
def moe() -> Orchestrator:
    """Return an untrained gate."""
    return Orchestrator.fresh(seed=3)


def changed(input: ModelInput, **arrays: np.ndarray) -> ModelInput:
    """Return a copy of `input` with other arrays, under a hash of its own."""
    return replace(input, **arrays)
