"""The HTTP door: people and tools read the cluster and steer it here; it holds no model."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from alphapulse import cluster, logs
from alphapulse.config import Settings
from alphapulse.models.checkpoints import Registry
from alphapulse.models.rounds import Rounds
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from serve_apps.doors import Doors, open_doors
from serve_apps.problems import PREFIX, answer_faults
from serve_apps.routes import alerts, inference, learning, market, metrics, trading
from serve_apps.routes import cluster as cluster_routes

api = FastAPI(
    title="AlphaPulse",
    version="1",
    docs_url=f"{PREFIX}/docs",
    openapi_url=f"{PREFIX}/openapi.json",
    redoc_url=None,
)
answer_faults(api)
for part in (cluster_routes, market, inference, trading, alerts, learning, metrics):
    api.include_router(part.router, prefix=PREFIX)


@serve.deployment(
    name="Ingress",
    num_replicas=1,
    max_ongoing_requests=64,
    max_surge_percent=100,
    graceful_shutdown_timeout_s=2,
    ray_actor_options={"num_cpus": 0.1},
)
@serve.ingress(api)
class Ingress:
    """Opens the doors of a run to the routes."""

    def __init__(
        self,
        orchestrator: DeploymentHandle,
        cnn: DeploymentHandle,
        rl: DeploymentHandle,
        *,
        home: str,
        session: str,
        run: dict[str, Any],
        settings: Settings,
    ) -> None:
        logs.configure(Path(home) / "logs", process="ingress", session=session)
        place = Home(Path(home))
        doors = Doors(
            home=place,
            token=place.token(),
            run=run,
            settings=settings,
            models={"cnn": cnn, "rl": rl, "moe": orchestrator},
            market=cluster.MarketData(),
            history=cluster.History(),
            trader=cluster.Trader(),
            feedback=cluster.Feedback(),
            control=Control(place.control_path),
            registry=Registry(place.registry_path),
            rounds=Rounds(place.registry_path),
        )
        open_doors(doors)
