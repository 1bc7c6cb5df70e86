"""Check that a wish survives, is heard by other processes, and is never repeated or lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.storage.control import PROCESSES, Control


def wished(control: Control) -> dict[str, str]:
    return {row["name"]: row["wanted"] for row in control.wishes()}


def test_process_nobody_asked_about_is_wanted(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")

    assert all(control.is_wanted(name) for name in PROCESSES)
    assert wished(control) == dict.fromkeys(PROCESSES, "running")


def test_second_stop_changes_nothing_and_is_audited(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")

    changes = [control.wish("trader", is_wanted=False, asked_by="page") for _ in range(2)]

    assert changes == [True, False]
    assert not control.is_wanted("trader")
    rows = [(row["action"], row["target"], row["changed"]) for row in control.audit(10)]
    assert rows == [("stop", "trader", False), ("stop", "trader", True)]


def test_wish_is_heard_by_who_had_opened_the_file_before(tmp_path: Path) -> None:
    reader, writer = (Control(tmp_path / "control.sqlite") for _ in range(2))

    writer.wish("settlement", is_wanted=False, asked_by="cli")

    assert not reader.is_wanted("settlement")
    writer.wish("settlement", is_wanted=True, asked_by="cli")
    assert reader.is_wanted("settlement")


def test_wish_survives_the_kill_of_who_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    code = (
        "import os, pathlib, sys; from alphapulse.storage.control import Control;"
        "Control(pathlib.Path(sys.argv[1])).wish('feed', is_wanted=False, asked_by='x');"
        f"os.kill(os.getpid(), {signal.SIGKILL:d})"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=os.environ)

    assert killed.returncode == -signal.SIGKILL
    assert wished(Control(path)) == dict.fromkeys(PROCESSES, "running") | {"feed": "stopped"}


def test_unknown_process_is_refused_by_name(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")

    with pytest.raises(InvalidRequest, match="expected one of feed, trader, settlement"):
        control.wish("tradr", is_wanted=False, asked_by="page")

    assert control.audit(10) == []


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    path.write_text("not a database " * 100)

    with pytest.raises(StoreError, match=r"control\.sqlite"):
        Control(path)


def test_file_that_cannot_be_read_changes_no_wish(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    control = Control(path)
    control.wish("trader", is_wanted=False, asked_by="page")
    assert not control.is_wanted("trader")

    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE wishes")

    assert not control.is_wanted("trader")
    assert control.is_wanted("feed")
