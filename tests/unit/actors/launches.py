"""A launch of a run that nobody has begun."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from actors.launch import Launch
from alphapulse.config import Server, Settings
from alphapulse.storage.home import Home

START = {"cnn": "c0", "rl": "r0", "moe": "m0"}


def a_launch(home: Path, *, jobs_port: int = 1) -> Launch:
    """Return what the actors of the first run of `home` are told."""
    settings = dataclasses.replace(Settings(), server=Server(dashboard_port=jobs_port))
    run = Home(home).open_run(
        source="recording",
        recording="hand-made",
        content_hash="0" * 64,
        settings=settings,
        checkpoints=START,
        fresh=False,
    )
    return Launch(
        home=str(home),
        session="test",
        recording="hand-made",
        venue="",
        run=run.id,
        run_number=run.number,
        checkpoints=START,
        speed=0.0,
        training=True,
        settings=settings,
    )
