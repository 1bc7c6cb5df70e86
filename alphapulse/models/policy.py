"""The policy's network, and the features it reads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alphapulse.domain.inference import Action, InputSpec, ModelInput, Prediction
from alphapulse.domain.inference import Tensor as Array
from alphapulse.domain.market import TIMEFRAMES, BarFlag

# axes: B batch · S symbol · F timeframe · C channel · X feature · H hidden
ACTIONS = (Action.BUY, Action.SELL, Action.HOLD)
HIDDEN = 32
CNN_HIDDEN = 48
FORECAST_FIELDS = 6


class PolicyNetwork(nn.Module):
    """Two layers over standardised features; a feature that training has not seen vary counts for nothing."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_features, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.action = nn.Linear(HIDDEN, len(ACTIONS))
        self.worth = nn.Linear(HIDDEN, 2)
        self.pays = nn.Linear(HIDDEN, 2)
        self.register_buffer("mean_X", torch.zeros(num_features))
        self.register_buffer(
            "inverse_X", torch.ones(num_features)
        )  # 1 / standard deviation, 0 where constant

    def standardise(self, features_BX: Tensor) -> None:
        """Take mean and spread of `features_BX` as the ones to standardise with."""
        spread_X, mean_X = torch.std_mean(features_BX, dim=0, correction=0)
        self.get_buffer("mean_X").copy_(mean_X)
        self.get_buffer("inverse_X").copy_(torch.where(spread_X > 1e-6, 1 / spread_X, 0.0))

    def forward(self, features_BX: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return action logits (B, 3), worth of going long and short [R] (B, 2), their logits of paying, hidden (B, H)."""
        x = ((features_BX - self.get_buffer("mean_X")) * self.get_buffer("inverse_X")).clamp(-5, 5)
        hidden = torch.tanh(self.second(functional.gelu(self.first(x))))
        return self.action(hidden), self.worth(hidden), self.pays(hidden), hidden


def features_of(input: ModelInput, forecast: Prediction) -> Array:
    """Return the policy's features, float32 (X,): newest rows, forecasts, the CNN's hidden state, the account.

    The newest row of each of the eight streams (zeros where masked) with its valid bit; of each timeframe p_high,
    log(1 + bars ahead), move, p_done, confidence and whether there is a forecast.
    """
    valid_SF = (input.flags_SFT[:, :, -1] & int(BarFlag.VALID)) != 0
    rows_SFC = np.where(valid_SF[..., None], input.bars_SFTC[:, :, -1], np.float32(0))
    told = np.zeros((len(TIMEFRAMES), FORECAST_FIELDS), dtype=np.float32)
    for f in forecast.forecasts:
        fields = (f.p_high, np.log1p(f.bars_ahead), f.move, f.p_done, f.confidence, 1.0)
        told[TIMEFRAMES.index(f.timeframe)] = fields
    parts = (rows_SFC, valid_SF, told, forecast.hidden_H, input.account_A)
    return np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])


def num_features(spec: InputSpec) -> int:
    """Return the length of `features_of`."""
    streams = spec.num_symbols * spec.num_timeframes
    told = spec.num_timeframes * FORECAST_FIELDS
    return streams * (spec.num_channels + 1) + told + CNN_HIDDEN + spec.num_account_fields
