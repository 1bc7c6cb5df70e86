"""The three models as deployments; the orchestrator composes the other two into one decision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ray import serve
from ray.serve.handle import DeploymentHandle

from alphapulse import logs
from alphapulse.domain.inference import Decision, ModelInput, Prediction, Thresholds
from alphapulse.interfaces import Model
from alphapulse.models.decide import decide, local

# A replica must stay small: the trainer and the actors share the machine (RAY.md, decision 6).
OPTIONS = {
    "num_replicas": 1,
    "max_ongoing_requests": 32,
    "max_surge_percent": 100,  # a bad redeploy leaves the old replica serving
    "health_check_period_s": 5,
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 5,
    "ray_actor_options": {"num_cpus": 0.1},
}


class Served:
    """One model in one process."""

    def __init__(self, checkpoint: str, home: str, session: str, process: str) -> None:
        # torch is loaded where a model is, not in whoever deploys it
        from alphapulse.models.loading import load_model

        logs.configure(Path(home) / "logs", process=process, session=session)
        self.model: Model = load_model(Path(checkpoint))

    async def pid(self) -> int:
        """Return the process id of the replica."""
        return os.getpid()

    async def version(self) -> str:
        """Return the checkpoint id that answers."""
        return self.model.version


@serve.deployment(name="CNN", **OPTIONS)
class CNNDeployment(Served):
    """Forecasts pivots."""

    async def predict(self, input: ModelInput, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return the model's prediction."""
        return self.model.predict(input, upstream=upstream)


@serve.deployment(name="RL", **OPTIONS)
class RLDeployment(Served):
    """Recommends an action."""

    async def predict(self, input: ModelInput, upstream: Mapping[str, Prediction]) -> Prediction:
        """Return the model's prediction."""
        return self.model.predict(input, upstream=upstream)


@serve.deployment(name="Orchestrator", **OPTIONS)
class OrchestratorDeployment(Served):
    """Asks CNN, then RL, weighs both and decides."""

    def __init__(
        self,
        checkpoint: str,
        home: str,
        session: str,
        process: str,
        cnn: DeploymentHandle,
        rl: DeploymentHandle,
    ) -> None:
        super().__init__(checkpoint, home, session, process)
        # by value: a reference costs a trip through the object store a hop (RAY.md, decision 1)
        self._cnn = cnn.options(_by_reference=False)
        self._rl = rl.options(_by_reference=False)
        self._log = logs.get_logger("serve")

    async def decide(self, input: ModelInput, thresholds: Thresholds, trace_id: str) -> Decision:
        """Return the decision with the predictions of all three models."""
        decision = await decide(
            input,
            cnn=self._cnn.predict.remote,
            rl=self._rl.predict.remote,
            moe=local(self.model),
            thresholds=thresholds,
        )
        self._log.info("served", trace_id=trace_id, symbol=input.symbol, event_ns=input.event_ns)
        return decision
