"""The policy's network, and the features it reads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alphapulse.domain.inference import Action, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec, ModelInput
from alphapulse.domain.inputs import Tensor as Array
from alphapulse.domain.market import TIMEFRAMES, BarFlag
from alphapulse.models.network import heard

# axes: B batch · S symbol · F timeframe · C channel · X feature · H hidden
ACTIONS = (Action.BUY, Action.SELL, Action.HOLD)
HIDDEN = 32
CNN_HIDDEN = 48
FORECAST_FIELDS = 6
NUM_ACCOUNT_FIELDS = INPUT_SPEC.num_account_fields  # the last features, the position first


class PolicyNetwork(nn.Module):
    """Two layers over standardised features, as a correction of what is usual when flat or long.

    A feature that training has not seen vary counts for nothing.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_features, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.action = nn.Linear(HIDDEN, len(ACTIONS), bias=False)
        self.worth = nn.Linear(HIDDEN, 2)
        self.pays = nn.Linear(HIDDEN, 2)
        self.register_buffer("usual_2A", torch.zeros(2, len(ACTIONS)))  # logits, flat and long
        self.register_buffer("mean_X", torch.zeros(num_features))
        self.register_buffer("inverse_X", torch.ones(num_features))  # 1 / deviation, 0 if constant

    def start_at_base(self, x_BX: Tensor, action_B: Tensor, result_B2: Tensor) -> None:
        """Standardise as `x_BX` needs it, and answer every row with the base rate to begin with."""
        spread_X, mean_X = torch.std_mean(x_BX, dim=0, correction=0)
        self.get_buffer("mean_X").copy_(mean_X)
        self.get_buffer("inverse_X").copy_(torch.where(spread_X > 1e-6, 1 / spread_X, 0.0))
        with torch.no_grad():
            for held in (0, 1):
                taught = action_B[(is_long(x_BX) == held) & ~action_B.isnan()].long()
                counts = torch.bincount(taught, minlength=len(ACTIONS)) + 0.5
                self.get_buffer("usual_2A")[held] = (counts / counts.sum()).log()
            paid = torch.where(result_B2.isnan(), torch.nan, (result_B2 > 0).float())
            self.worth.bias.copy_(result_B2.nanmean(dim=0).nan_to_num(0.0))
            self.pays.bias.copy_(torch.logit(paid.nanmean(dim=0).nan_to_num(0.5), eps=1e-2))
            for head in (self.action, self.worth, self.pays):
                head.weight.mul_(0.1)

    def forward(self, features_BX: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the policy thinks of each row.

        Returns:
            Action logits (B, 3), worth of going long and short [R] (B, 2), logits of either paying
            (B, 2), hidden state (B, H).
        """
        x = (features_BX - self.get_buffer("mean_X")) * self.get_buffer("inverse_X")
        hidden = torch.tanh(self.second(functional.gelu(self.first(x.clamp(-4, 4)))))
        logits = self.action(hidden) + self.get_buffer("usual_2A")[is_long(features_BX)]
        return logits, self.worth(hidden), self.pays(hidden), hidden


def is_long(features_BX: Tensor) -> Tensor:
    """Return 1 where a long position is held, else 0, int64 (B,)."""
    return (features_BX[:, -NUM_ACCOUNT_FIELDS] > 0).long()


def features_of(input: ModelInput, forecast: Prediction, spec: InputSpec) -> Array:
    """Return the features of a policy of `spec`, float32 (X,).

    The newest row of each of the eight streams (zeros where masked) with its valid bit; of each
    timeframe p_high, log(1 + bars ahead), move, p_done, confidence and whether there is a forecast.
    """
    valid_SF = (input.flags_SFT[:, :, -1] & int(BarFlag.VALID)) != 0
    newest_SFC = heard(input, spec)[:, :, -1]
    rows_SFC = np.where(valid_SF[..., None], newest_SFC, np.float32(0))
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
