"""An S3-compatible server on loopback, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

BUCKET = "history"
KEY, SECRET = "AKIAFORTESTSONLY", "a secret that no message may show"
# One request at a time: as in S3, nothing comes between a condition and its write.
SERVER = """
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application)
print(server.port, flush=True)
server.serve_forever()
"""


@contextmanager
def object_store() -> Iterator[str]:
    """Run the server with an empty bucket and yield its endpoint; it forgets all when it ends."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
            _await(endpoint)
            httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
            yield endpoint
        finally:
            server.kill()


def aws(endpoint: str) -> dict[str, str]:
    """Return the environment of a process that uses the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def refuse_all(endpoint: str) -> None:
    """Let the server check keys from now on: it knows none."""
    httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()


def _await(endpoint: str) -> None:
    for _ in range(100):
        try:
            httpx.get(f"{endpoint}/moto-api/")
            return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"no object store at {endpoint}")
