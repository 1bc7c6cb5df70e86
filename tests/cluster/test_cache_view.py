"""A view of the cache travels through Ray's object store without a copy of its arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
def test_arrays_of_a_view_are_read_where_the_object_store_holds_them(recordings: Path) -> None:
    """In a process of its own: Ray takes the token of a cluster only when it is imported."""
    command = [sys.executable, "-m", "tests.cluster.viewing", str(recordings)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
