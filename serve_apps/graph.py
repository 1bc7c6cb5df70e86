"""Compose ingress -> orchestrator -> (CNN, RL) into one application."""

from __future__ import annotations

from typing import Any

from ray.serve import Application

from serve_apps.deployments import CNNDeployment, OrchestratorDeployment, RLDeployment
from serve_apps.ingress import Ingress


def app(args: dict[str, Any]) -> Application:
    """Return the application of a run.

    Args:
        args: `home` folder, `session` id, `run` (plain facts), `settings` and
            `checkpoints` (id by model name, of which the run starts).
    """
    home, session = args["home"], args["session"]
    id = args["checkpoints"]
    cnn = CNNDeployment.bind("cnn", id["cnn"], home, session)
    rl = RLDeployment.bind("rl", id["rl"], home, session)
    moe = OrchestratorDeployment.bind("moe", id["moe"], home, session, cnn, rl)
    return Ingress.bind(
        moe,
        cnn,
        rl,
        home=home,
        session=session,
        run=args["run"],
        settings=args["settings"],
    )
