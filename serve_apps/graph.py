"""Compose ingress -> orchestrator -> (CNN, RL) into one application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.serve import Application

from serve_apps.deployments import CNNDeployment, OrchestratorDeployment, RLDeployment
from serve_apps.ingress import Ingress


def app(args: dict[str, Any]) -> Application:
    """Return the application of a run.

    Args:
        args: `home` folder, `session` id, `run` (plain manifest), `symbols` and `checkpoints`
            (folder by model name).
    """
    home, session = args["home"], args["session"]
    folder = {name: str(Path(path)) for name, path in args["checkpoints"].items()}
    cnn = CNNDeployment.bind(folder["cnn"], home, session, "cnn")
    rl = RLDeployment.bind(folder["rl"], home, session, "rl")
    moe = OrchestratorDeployment.bind(folder["moe"], home, session, "moe", cnn, rl)
    return Ingress.bind(
        moe,
        cnn,
        rl,
        home=home,
        session=session,
        run=args["run"],
        symbols=tuple(args["symbols"]),
    )
