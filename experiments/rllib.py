"""The policy as RLlib trains it: by replay with PPO, or from stored decisions with MARWIL."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env
from torch import nn

from alphapulse.domain.inputs import Tensor
from alphapulse.models.network import seed_all
from alphapulse.models.policy import ACTIONS, NUM_ACCOUNT_FIELDS, PolicyNetwork
from alphapulse.models.rl import RL
from experiments.stored import Demonstration

# axes: X feature
PPO_RATE = 1e-3
PPO_ENTROPY = 0.003
PPO_EPOCHS = 4
PPO_STEPS = 1024  # of the environment an iteration
GAMMA = 0.99
MARWIL_RATE = 1e-2
BATCH = 128
BETA = 1.0  # how much a better result than expected counts
LEAST_VARIANCE = 1e-6  # of the results [R²]; below it there is nothing to tell apart


class PolicyModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """Begins as the checkpoint of `model_config["checkpoint"]`, with a critic beside it.

    Rewards move the choice of action only. What an entry is worth and how surely it pays are read
    off the same hidden state: were that to move, both would say what nobody taught. The critic is
    shown the account only: from few rows it would learn the market's by heart, and then nothing
    that was done brought more than expected.
    """

    def setup(self) -> None:
        """Load the policy and begin a critic that expects nothing."""
        self.policy: PolicyNetwork = RL.load(Path(self.model_config["checkpoint"])).network
        for layer in (self.policy.first, self.policy.second, self.policy.worth, self.policy.pays):
            layer.requires_grad_(requires_grad=False)
        self.critic = nn.Linear(NUM_ACCOUNT_FIELDS, 1)
        for parameter in self.critic.parameters():
            nn.init.zeros_(parameter)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(batch[Columns.OBS])[0]}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return what is expected from here on [R]."""
        values: torch.Tensor = self.critic(batch[Columns.OBS][:, -NUM_ACCOUNT_FIELDS:]).squeeze(-1)
        return values


def train_ppo(
    checkpoint: Path,
    make_env: Callable[[], gymnasium.Env[Tensor, int]],
    *,
    seed: int,
    iterations: int,
    rate: float = PPO_RATE,
    entropy: float = PPO_ENTROPY,
    epochs: int = PPO_EPOCHS,
    on_iteration: Callable[[float, PolicyNetwork], None] = lambda earned, network: None,
) -> PolicyNetwork:
    """Return the policy of `checkpoint` after PPO on an environment; needs a running Ray.

    Args:
        checkpoint: folder of the policy to begin with.
        make_env: the environment.
        seed: of every random choice.
        iterations: rounds of sampling and learning.
        rate: learning rate.
        entropy: what keeping all actions likely is worth.
        epochs: passes over what was sampled.
        on_iteration: called after each with the mean return of an episode [R] and the policy.
    """
    register_env("alphapulse-replay", lambda _: make_env())
    config = (
        PPOConfig()
        .environment("alphapulse-replay")
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(
            lr=rate,
            gamma=GAMMA,
            lambda_=0.95,
            train_batch_size_per_learner=PPO_STEPS,
            minibatch_size=BATCH,
            num_epochs=epochs,
            entropy_coeff=entropy,
        )
        .debugging(seed=seed, log_level="ERROR")
        .rl_module(rl_module_spec=_spec(checkpoint))
    )
    with _quiet():
        seed_all(seed)
        algorithm = config.build_algo()
        try:
            network: PolicyNetwork = algorithm.get_module().policy
            for _ in range(iterations):
                told = algorithm.train()["env_runners"]
                network = algorithm.get_module().policy
                on_iteration(float(told.get("episode_return_mean", np.nan)), network)
        finally:
            algorithm.stop()
    return network.eval()


def train_marwil(
    checkpoint: Path,
    shown: Sequence[Demonstration],
    *,
    seed: int,
    passes: int,
    on_pass: Callable[[float], None] = lambda loss: None,
) -> PolicyNetwork:
    """Return the policy of `checkpoint` after imitating what brought more than expected.

    A decision's result is known by itself, so that nothing is carried from one to the next. The
    learner is fed directly: reading through Ray Data needs a whole free CPU, or hangs.

    Args:
        checkpoint: folder of the policy to begin with.
        shown: decisions, in order of time.
        seed: of every random choice.
        passes: over all decisions.
        on_pass: called after each with the loss.
    """
    box = gymnasium.spaces.Box(-np.inf, np.inf, shown[0].features_NX.shape[1:], np.float32)
    discrete = gymnasium.spaces.Discrete(len(ACTIONS))
    config = (
        MARWILConfig()
        .environment(observation_space=box, action_space=discrete)
        .learners(num_learners=0)
        .training(
            lr=MARWIL_RATE,
            gamma=0.0,
            beta=BETA,
            train_batch_size_per_learner=BATCH,
            # RLlib's own start of 100 makes every weight 1: that would be plain imitation
            moving_average_sqd_adv_norm_start=advantage_norm(shown),
            moving_average_sqd_adv_norm_update_rate=1e-3,
        )
        .debugging(seed=seed)
        .rl_module(rl_module_spec=_spec(checkpoint, box, discrete))
    )
    with _quiet():
        seed_all(seed)
        learner = config.build_learner(spaces={"default_policy": (box, discrete)})
        for number in range(passes):
            found = learner.update(
                episodes=[_episode(f"{n}", told, box, discrete) for n, told in enumerate(shown)],
                minibatch_size=BATCH,
                num_epochs=1,
                shuffle_batch_per_epoch=True,
                timesteps={"num_env_steps_sampled_lifetime": number},
            )
            on_pass(float(found["default_policy"]["total_loss"].peek()))
        network: PolicyNetwork = learner.module["default_policy"].policy
    return network.eval()


def advantage_norm(shown: Sequence[Demonstration]) -> float:
    """Return the square that MARWIL counts advantages in [R²]: how far apart the results are."""
    variance = float(np.var(np.concatenate([told.reward_N for told in shown])))
    return max(variance, LEAST_VARIANCE)


def _spec(
    checkpoint: Path,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
) -> RLModuleSpec:
    return RLModuleSpec(
        module_class=PolicyModule,
        observation_space=observation_space,
        action_space=action_space,
        model_config={"checkpoint": str(checkpoint)},
    )


def _episode(
    id: str,
    told: Demonstration,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        id_=id,
        observations=[*told.features_NX, told.features_NX[-1]],  # nothing is expected of the last
        actions=told.action_N.tolist(),
        rewards=told.reward_N.tolist(),
        terminated=True,
        len_lookback_buffer=0,
        observation_space=observation_space,
        action_space=action_space,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep RLlib's advertisements of its own future out of the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("ray", "ray.rllib", "ray.tune", "ray._common.deprecation"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
