"""Where an experiment that needs Ray runs: the cluster it was submitted to, else a small one."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

OBJECT_STORE = 200 * 1024 * 1024  # of a cluster started here [bytes]
NUM_CPUS = 2


@contextmanager
def cluster() -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one on this machine and stop it afterwards.

    A cluster this process is connected to already is left as it is.
    """
    is_own = not os.environ.get("RAY_ADDRESS")
    if is_own and "RAY_AUTH_MODE" not in os.environ:  # other users reach the ports it opens
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray  # reads the environment when it is imported, not when it starts

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if is_own:
        ray.init(
            address="local",  # not whatever cluster happens to run on this machine
            num_cpus=NUM_CPUS,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            **quiet,
        )
    else:
        ray.init(**quiet)
    try:
        yield
    finally:
        ray.shutdown()
