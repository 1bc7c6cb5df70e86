"""A journal is made whole or not at all, and none of its rows is lost as it is opened."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.writer import Journal
from tests.flows.history_faults.faulting import run_preloaded
from tests.unit.storage.records import RUN, record

ROOT = Path(__file__).parents[4]
# Dies with rows in the log only.
WRITER = """
import os, signal, sys
from pathlib import Path
from alphapulse.storage.journal.writer import Journal
from tests.unit.storage.records import RUN, record
Journal(Path(sys.argv[1]), run=RUN).append([record(second) for second in range(9)])
os.kill(os.getpid(), signal.SIGKILL)
"""
# Opens it while two calls fail, the n-th and the next that open a file or cut it.
OPENER = """
import sys
from pathlib import Path
from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.writer import Journal
from tests.flows.history_faults.faulting import Call, FailingCalls
from tests.unit.storage.records import RUN
faults = FailingCalls("eio")
faults.fail((Call.OPEN, Call.RESIZE), after=int(sys.argv[2]), most=2)
try:
    Journal(Path(sys.argv[1]), run=RUN).counts()
except StoreError:
    pass
"""


def test_readers_find_no_journal_where_there_was_no_room_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "1" / "journal.sqlite"
    path.parent.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 8192, hard))
    try:
        with pytest.raises(StoreError):
            Journal(path, run=RUN).append([record(0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    reader = HistoryReader(runs=tmp_path, lake_uri=str(tmp_path / "lake"))

    assert reader.fetch("inferences", {}) == []
    assert Journal(path, run=RUN).append([record(0)]) == 1


@pytest.mark.parametrize("after", range(14))
def test_no_row_is_lost_where_two_calls_fail_as_a_journal_is_opened(
    tmp_path: Path, after: int
) -> None:
    path = tmp_path / "journal.sqlite"
    subprocess.run([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, check=False)

    ended = run_preloaded([sys.executable, "-c", OPENER, str(path), str(after)], tmp_path)

    assert (ended, JournalReader(path).counts()["decisions"]) == (0, 9)
