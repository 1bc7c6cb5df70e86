"""The three models as deployments; the orchestrator composes the other two into one decision."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from ray import serve
from ray.serve.handle import DeploymentHandle

from alphapulse import logs
from alphapulse.domain.inference import Decision, Prediction, Thresholds
from alphapulse.domain.inputs import ModelInput
from alphapulse.interfaces import Model
from alphapulse.models.checkpoints import directory_of
from alphapulse.models.decide import decide, local

KEPT = 4  # versions in memory: the present one and three to go back to
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
    """One model in one process, in as many versions as are asked for.

    Every request names the checkpoint that is to answer it, so that a promotion takes effect at one
    decision instant in all replicas at once, and no request waits for it.
    """

    def __init__(self, model: str, checkpoint: str, home: str, session: str) -> None:
        logs.configure(Path(home) / "logs", process=model, session=session)
        self._name, self._home = model, Path(home)
        self._models: OrderedDict[str, Model] = OrderedDict()
        self.version(checkpoint)

    def version(self, checkpoint: str) -> Model:
        """Return the model in one version, loaded now if it is not there; the oldest leaves.

        Raises CheckpointError if there is no such checkpoint of this model.
        """
        # torch is loaded where a model is, not in whoever deploys it
        from alphapulse.models.loading import load_model

        if checkpoint not in self._models:
            place = directory_of(self._home, model=self._name, id=checkpoint)
            self._models[checkpoint] = load_model(place)
            while len(self._models) > KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(checkpoint)
        return self._models[checkpoint]

    async def prepare(self, checkpoint: str) -> None:
        """Load a version before the first request names it; raises CheckpointError."""
        self.version(checkpoint)

    async def pid(self) -> int:
        """Return the process id of the replica."""
        return os.getpid()


@serve.deployment(name="CNN", **OPTIONS)
class CNNDeployment(Served):
    """Forecasts pivots."""

    async def predict(
        self, input: ModelInput, upstream: Mapping[str, Prediction], checkpoint: str
    ) -> Prediction:
        """Return the prediction of one version of the model."""
        return self.version(checkpoint).predict(input, upstream=upstream)


@serve.deployment(name="RL", **OPTIONS)
class RLDeployment(Served):
    """Recommends an action."""

    async def predict(
        self, input: ModelInput, upstream: Mapping[str, Prediction], checkpoint: str
    ) -> Prediction:
        """Return the prediction of one version of the model."""
        return self.version(checkpoint).predict(input, upstream=upstream)


@serve.deployment(name="Orchestrator", **OPTIONS)
class OrchestratorDeployment(Served):
    """Asks CNN, then RL, weighs both and decides."""

    def __init__(
        self,
        model: str,
        checkpoint: str,
        home: str,
        session: str,
        cnn: DeploymentHandle,
        rl: DeploymentHandle,
    ) -> None:
        super().__init__(model, checkpoint, home, session)
        # by value: a reference costs a trip through the object store a hop (RAY.md, decision 1)
        self._cnn = cnn.options(_by_reference=False)
        self._rl = rl.options(_by_reference=False)
        self._log = logs.get_logger("serve")

    async def decide(
        self, input: ModelInput, thresholds: Thresholds, trace_id: str, versions: Mapping[str, str]
    ) -> Decision:
        """Return the decision with the predictions of all three models.

        Args:
            input: what they see.
            thresholds: those in force.
            trace_id: of the decision.
            versions: the checkpoint that answers, by model.
        """
        decision = await decide(
            input,
            cnn=lambda i, upstream: self._cnn.predict.remote(i, upstream, versions["cnn"]),
            rl=lambda i, upstream: self._rl.predict.remote(i, upstream, versions["rl"]),
            moe=local(self.version(versions["moe"])),
            thresholds=thresholds,
        )
        self._log.info("served", trace_id=trace_id, symbol=input.symbol, event_ns=input.event_ns)
        return decision
