"""A lake that has all the named batches of the journal a file makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake


@pytest.fixture
def lake(tmp_path: Path, journal: Journal) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.take(journal, writer=journal.name())
    return lake
