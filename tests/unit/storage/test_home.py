"""A home has one user at a time, one token, and runs that go on or start anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alphapulse.config import DecisionRules, Settings
from alphapulse.domain.errors import HomeInUse, PortTaken, StoreError
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.writer import Journal

HOLDER = """
import sys, time
from pathlib import Path
from alphapulse.storage.home import Home
with Home(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def open_run(home: Home, *, fresh: bool = False, **changed: object) -> Run:
    start = {
        "source": "recording",
        "recording": "binance-spot-2024-08",
        "content_hash": "c0ffee",
        "settings": Settings(),
        "checkpoints": {"cnn": "a", "rl": "b"},
        "fresh": fresh,
    }
    return home.open_run(**(start | changed))  # type: ignore[arg-type]


def test_a_second_process_is_told_who_uses_the_home_until_that_one_is_killed(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        home = Home(tmp_path / "home")

        message = rf"in use by process {holder.pid} since \S+Z; stop it with `alphapulse down`"
        with pytest.raises(HomeInUse, match=message), home.lock():
            pass
        assert home.holder() == holder.pid
        holder.send_signal(signal.SIGKILL)

    assert home.holder() is None
    with home.lock():
        assert home.holder() == os.getpid()


def test_an_error_under_the_lock_stays_what_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path)

    with pytest.raises(PortTaken, match="8000"), home.lock():
        raise PortTaken("8000")

    assert home.holder() is None


def test_what_is_announced_can_be_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = home.announcement()

    home.announce({"pid": 7, "urls": {"api": "http://127.0.0.1:8000/api/v1"}})

    assert before is None
    assert home.announcement() == {"pid": 7, "urls": {"api": "http://127.0.0.1:8000/api/v1"}}


def test_the_token_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    token = home.token()

    assert len(token) >= 43
    assert home.token() == token
    assert (home.path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.path.iterdir()] == ["token"]


def test_a_run_goes_on_while_source_content_and_configuration_are_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = open_run(home)

    again = open_run(home, checkpoints={"cnn": "newer"})
    other_content = open_run(home, content_hash="feed")
    stricter = replace(Settings(), decision=DecisionRules(entry_threshold=0.7))
    other_config = open_run(home, content_hash="feed", settings=stricter)
    fresh = open_run(home, content_hash="feed", settings=stricter, fresh=True)

    assert again == first
    assert again.manifest.checkpoints == {"cnn": "a", "rl": "b"}
    assert [r.number for r in (first, other_content, other_config, fresh)] == [1, 2, 3, 4]
    assert home.runs() == [first, other_content, other_config, fresh]
    assert home.run(2) == other_content
    assert len({run.id for run in home.runs()}) == 4


def test_two_fresh_homes_give_equal_run_ids(tmp_path: Path) -> None:
    one = open_run(Home(tmp_path / "one"))
    two = open_run(Home(tmp_path / "two"))

    assert one.id == two.id
    assert len(one.id) == 16
    assert open_run(Home(tmp_path / "three"), checkpoints={}).id != one.id


def test_a_damaged_manifest_is_told_with_a_remedy(tmp_path: Path) -> None:
    home = Home(tmp_path)
    manifest = open_run(home).path / "manifest.json"
    whole = manifest.read_text()

    for damaged in ("", whole[:-20], "[]", json.dumps({"number": 1})):
        manifest.write_text(damaged)
        with pytest.raises(StoreError, match=r"expected the manifest of run 1.*move .* out of the"):
            open_run(home)
    manifest.write_text(json.dumps(json.loads(whole) | {"schema_version": 9}))
    with pytest.raises(StoreError, match="was 9 and 1; use the AlphaPulse version that wrote it"):
        open_run(home)


def test_a_start_killed_before_the_manifest_leaves_no_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.runs_path / ".1").mkdir(parents=True)

    assert home.runs() == []
    assert open_run(home).number == 1


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = Home(tmp_path / "file")

    with pytest.raises(StoreError, match="make it writable"):
        home.token()
    with pytest.raises(StoreError, match="make it writable"), home.lock():
        pass
    with pytest.raises(StoreError, match="make it writable"):
        open_run(home)


def test_the_end_of_the_source_is_kept_in_the_journal(tmp_path: Path) -> None:
    run = open_run(Home(tmp_path))
    before = run.ended_ns
    journal = Journal(run.journal_path, run=run.id)

    journal.remark("ended_ns", "1722988800000000000")
    journal.close()

    assert before is None
    assert run.ended_ns == 1_722_988_800_000_000_000
