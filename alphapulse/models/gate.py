"""The gate's network, and how what the experts say is pooled under its shares."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# axes: B batch · K slot · E what an expert says · Z regime · A action (buy, sell, hold)
SAID = 5  # p_buy, p_sell, p_hold, confidence, utility [R]
REGIME = 3  # log volatility of 1m and of 1h, position
HIDDEN = 16
NUM_ACTIONS = 3


class GateNetwork(nn.Module):
    """One scorer for all slots plus a prior a slot.

    Permute slots and priors, and the shares permute with them.
    """

    def __init__(self, num_slots: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(SAID + REGIME, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)
        )
        self.prior_K = nn.Parameter(torch.zeros(num_slots))
        self.platt = nn.Parameter(
            torch.tensor([0.0, 0.0])
        )  # log slope and offset of the confidence's logit
        self.register_buffer("trained_K", torch.zeros(num_slots, dtype=torch.bool))

    def forward(self, said_BKE: Tensor, awake_BK: Tensor, regime_BZ: Tensor) -> Tensor:
        """Return the slots' shares, (B, K), exactly 0 where asleep.

        What stands in a sleeping slot changes no bit.
        """
        heard = torch.where(awake_BK[..., None], said_BKE, 0.0)
        beside = regime_BZ[:, None].expand(-1, heard.shape[1], -1)
        score_BK = self.score(torch.cat([heard, beside], dim=-1)).squeeze(-1) + self.prior_K
        shares: Tensor = torch.softmax(torch.where(awake_BK, score_BK, -torch.inf), dim=-1)
        return shares

    def recalibrate(self, confidence: Tensor) -> Tensor:
        """Return the confidence with its logit stretched and shifted."""
        return torch.sigmoid(
            torch.logit(confidence, eps=1e-4) * self.platt[0].exp() + self.platt[1]
        )


def pool(shares_BK: Tensor, said_BKE: Tensor, awake_BK: Tensor) -> Tensor:
    """Return the mean of what the awake slots say under their shares, (B, E)."""
    spoken = torch.where(awake_BK[..., None], shares_BK[..., None] * said_BKE, 0.0)
    return spoken.sum(dim=1)


def confidence_of(shares_BK: Tensor, said_BKE: Tensor, awake_BK: Tensor) -> Tensor:
    """Return the confidence of each action, (B, A).

    That of the experts whose first choice it is, by share. Where it is nobody's first choice, its
    pooled probability.
    """
    heard = torch.where(awake_BK[..., None], said_BKE, 0.0)
    chose_BKA = (
        functional.one_hot(heard[..., :3].argmax(dim=-1), num_classes=NUM_ACTIONS)
        * awake_BK[..., None]
    )
    share_BKA = chose_BKA * shares_BK[..., None]
    support_BA = share_BKA.sum(dim=1)
    sure_BA = (share_BKA * heard[..., 3:4]).sum(dim=1) / support_BA.clamp(min=1e-9)
    return torch.where(support_BA > 1e-9, sure_BA, pool(shares_BK, said_BKE, awake_BK)[..., :3])
