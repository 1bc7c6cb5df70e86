"""Ask and end a running `up` from outside: its announcement, its HTTP endpoint, its files."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from alphapulse.config import load_settings
from alphapulse.domain.errors import ClusterError
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home

ANSWER_S = 5.0  # how long the endpoint may take
END_S = 90.0  # how long an `up` may take to end


def read_status(home: Path) -> dict[str, Any]:
    """Return the state of the `up` in `home`.

    It is `stopped`, `starting` or `running`, the last with what its API says.
    """
    place = Home(home)
    holder = place.holder()
    if holder is None:
        return {"state": "stopped", "home": str(home)}
    announced = place.announcement()
    if announced is None or announced["pid"] != holder:
        return {"state": "starting", "home": str(home), "pid": holder}
    headers = {"Authorization": f"Bearer {place.token()}"}
    try:
        answer = httpx.get(f"{announced['urls']['api']}/status", headers=headers, timeout=ANSWER_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ClusterError(
            f"{announced['urls']['api']}/status: expected an answer, was {type(error).__name__}: "
            f"{error}; see {place.path / 'logs'}"
        ) from error
    return {"state": "running", "home": str(home), **announced, **answer.json()}


def end_up(home: Path) -> dict[str, Any]:
    """Ask the `up` in `home` to end and return once it has; nothing happens if none is running."""
    holder = Home(home).holder()
    if holder is None:
        return {"state": "stopped", "ended": False}
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while psutil.pid_exists(holder) and Home(home).holder() == holder:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"up (process {holder}): expected to end within {END_S:.0f} s, is still there; "
                f"see {home / 'logs' / 'main.jsonl'}"
            )
        time.sleep(0.1)
    return {"state": "stopped", "ended": True, "pid": holder}


def query_history(home: Path, query: Query) -> list[dict[str, Any]]:
    """Return the rows asked for as plain values, from the files of `home`: no cluster is needed."""
    settings = load_settings(home)
    history = InferenceHistory(Home(home), settings=settings.storage)
    try:
        frame = asyncio.run(history.query(query))
    finally:
        history.close()
    return [
        {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]
