"""Check the lines a process logs and the table of errors that all processes share."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from alphapulse import logs
from alphapulse.domain.errors import StoreError

WRITER = """
import sys
from pathlib import Path
from alphapulse import logs

folder, process, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
logs.configure(folder, process=process, session="s")
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    logs.get_logger("storage").error("not stored", code="StoreError", trace_id=f"{process}-{n}")
"""
UNCONFIGURED = """
from alphapulse import logs

logs.get_logger("data").info("bar closed")
logs.get_logger("data").error("not stored", code="StoreError")
"""


def lines(folder: Path, process: str = "main") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{process}.jsonl").read_text().splitlines()]


def configure(folder: Path, *, process: str = "main", session: str = "s1") -> None:
    logs.configure(folder, process=process, session=session)


def test_line_carries_time_level_process_room_and_fields(tmp_path: Path) -> None:
    configure(tmp_path)

    logs.get_logger("data").info("bar closed", symbol="ETH/USDT", path=Path("a"), size=0.1)

    (line,) = lines(tmp_path)
    at = line.pop("at")
    assert at.endswith("Z")
    assert datetime.fromisoformat(at).tzinfo is not None
    assert line == {
        "process": "main",
        "level": "info",
        "room": "data",
        "event": "bar closed",
        "symbol": "ETH/USDT",
        "path": "a",
        "size": 0.1,
    }


def test_line_carries_the_fields_bound_to_its_context(tmp_path: Path) -> None:
    configure(tmp_path)

    with structlog.contextvars.bound_contextvars(trace_id="t1"):
        logs.get_logger("data").info("inside")
    logs.get_logger("data").info("outside")

    inside, outside = lines(tmp_path)
    assert inside["trace_id"] == "t1"
    assert "trace_id" not in outside


def test_restarted_process_goes_on_in_its_file(tmp_path: Path) -> None:
    for _ in range(2):
        configure(tmp_path)
        logs.get_logger("data").info("started")

    assert [line["event"] for line in lines(tmp_path)] == ["started", "started"]


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    configure(tmp_path)
    log = logs.get_logger("data")

    def write(name: int) -> None:
        for n in range(200):
            log.info("event", thread=name, n=n, padding="x" * 200)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lines(tmp_path)) == 800


def test_unconfigured_process_shows_only_what_a_person_must_know() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", UNCONFIGURED], capture_output=True, text=True, check=True
    )

    (line,) = map(json.loads, shown.stderr.splitlines())
    assert (line["level"], line["event"], line["code"]) == ("error", "not stored", "StoreError")
    assert shown.stdout == ""


@pytest.mark.parametrize(("level", "counted"), [("info", 0), ("warning", 0), ("error", 1)])
def test_only_errors_are_counted(tmp_path: Path, level: str, counted: int) -> None:
    configure(tmp_path)

    getattr(logs.get_logger("data"), level)("something", code="Code")

    assert len(logs.read_errors(tmp_path)) == counted


def test_errors_of_a_code_are_one_row_with_the_newest_words(tmp_path: Path) -> None:
    configure(tmp_path)
    log = logs.get_logger("storage")

    for n in (1, 2, 3):
        error = StoreError(f"journal: try {n}")
        log.error("not stored", **logs.describe(error), trace_id=f"t{n}", remedy=f"free {n} GiB")

    (row,) = logs.read_errors(tmp_path)
    times = [line["at"] for line in lines(tmp_path)]
    assert (row.code, row.count) == ("StoreError", 3)
    assert (row.first_at, row.last_at) == (times[0], times[2])
    assert (row.trace_id, row.message, row.remedy) == ("t3", "journal: try 3", "free 3 GiB")


def test_error_without_a_code_is_counted_under_its_event(tmp_path: Path) -> None:
    configure(tmp_path)

    logs.get_logger("data").error("feed down")

    (row,) = logs.read_errors(tmp_path)
    assert (row.code, row.message, row.trace_id, row.remedy) == ("feed down", "feed down", "", "")


def test_sessions_are_told_apart_and_added_up(tmp_path: Path) -> None:
    for session, count in (("s1", 1), ("s2", 2)):
        configure(tmp_path, session=session)
        for _ in range(count):
            logs.get_logger("data").error("feed down", trace_id=session)

    assert [row.count for row in logs.read_errors(tmp_path, session="s1")] == [1]
    assert [row.count for row in logs.read_errors(tmp_path, session="s2")] == [2]
    assert [row.count for row in logs.read_errors(tmp_path)] == [3]
    assert logs.read_errors(tmp_path, session="s3") == []


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_added_up_row_shows_the_newest_session(tmp_path: Path, order: tuple[str, ...]) -> None:
    for session in order:
        configure(tmp_path, process=session, session=session)
        logs.get_logger("data").error("feed down", trace_id=session)
        wait_for_the_next_millisecond()

    (row,) = logs.read_errors(tmp_path)

    assert row.trace_id == order[-1]
    assert row.first_at == lines(tmp_path, order[0])[0]["at"]


def wait_for_the_next_millisecond() -> None:
    """Lines are stamped in milliseconds: two in the same one have no order."""
    threading.Event().wait(0.002)


def test_newest_code_comes_first(tmp_path: Path) -> None:
    configure(tmp_path)
    log = logs.get_logger("data")

    for code in ("Old", "New"):
        log.error("something", code=code)
        wait_for_the_next_millisecond()

    assert [row.code for row in logs.read_errors(tmp_path)] == ["New", "Old"]


def test_home_without_errors_has_an_empty_table(tmp_path: Path) -> None:
    assert logs.read_errors(tmp_path / "logs") == []


def test_unwritable_table_does_not_stop_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path)
    (tmp_path / "errors.sqlite").write_text("this is no database, and long enough to be read" * 9)

    logs.get_logger("data").error("feed down")

    assert [line["event"] for line in lines(tmp_path)] == ["feed down"]
    assert "errors table" in capsys.readouterr().err


def test_full_disk_does_not_stop_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "main.jsonl").symlink_to("/dev/full")
    configure(tmp_path)

    logs.get_logger("data").error("feed down")

    assert "No space left" in capsys.readouterr().err
    assert [row.code for row in logs.read_errors(tmp_path)] == ["feed down"]


def test_two_processes_write_at_once_and_nothing_is_missing(tmp_path: Path) -> None:
    count = 50
    writers = {
        process: subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), process, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in ("market_data", "trader")
    }
    for writer in writers.values():
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"

    for writer in writers.values():
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = [writer.communicate(timeout=30)[1] for writer in writers.values()]

    assert told == ["", ""]
    (row,) = logs.read_errors(tmp_path)
    assert (row.code, row.count) == ("StoreError", 2 * count)
    for process in writers:
        numbers = [line["trace_id"] for line in lines(tmp_path, process)]
        assert numbers == [f"{process}-{n}" for n in range(count)]
