"""Give every test of the monitor an API on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.dashboard.api import Api, running_api


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api() as running:
        yield running
