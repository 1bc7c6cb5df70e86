"""Check what the command line prints, with which exit code it ends, and how little it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse import logs
from alphapulse.config import Settings
from alphapulse.data.tape import content_hash
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.models.checkpoints import Entry, Registry
from alphapulse.storage.home import Home, Run
from tests.unit.conftest import Ask

HEAVY = ("ray", "torch", "pandas", "pyarrow", "duckdb", "ccxt", "talib", "numpy", "rich")
LISTS_IMPORTS = f"""
import sys
from alphapulse.cli import main

try:
    main()
except SystemExit as end:
    print("imported:", *[name for name in {HEAVY!r} if name in sys.modules])
    sys.exit(end.code)
"""


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf", ""])
def test_up_at_a_speed_that_is_none_is_refused(ask: Ask, speed: str) -> None:
    answer = ask("up", f"--speed={speed}")

    assert answer.code == 2
    assert f"--speed: expected 1, a positive factor or max, was '{speed}'" in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("duration", ["5x", "90", "m", "0s", "-1m", ".s", "1.2.3h", "²s", ""])
def test_up_for_a_time_that_is_none_is_refused(ask: Ask, duration: str) -> None:
    answer = ask("up", f"--for={duration}")

    assert answer.code == 2
    assert f"--for: expected 90s, 5m, 2h or 1d, was '{duration}'" in answer.err


def test_unknown_source_is_refused_with_the_known_ones(ask: Ask) -> None:
    answer = ask("up", "--source", "replay")

    assert answer.code == 2
    assert all(name in answer.err for name in ("auto", "live", "recording"))


@pytest.mark.parametrize(
    "arguments", [["upp"], ["up", "--fast"], ["history", "query", "--limit=0"]]
)
def test_command_that_does_not_exist_is_refused(ask: Ask, arguments: list[str]) -> None:
    assert ask(*arguments).code == 2


def test_time_that_is_none_is_refused_with_an_example(ask: Ask) -> None:
    answer = ask("history", "query", "--from", "yesterday")

    assert answer.code == 2
    assert "expected ISO-8601 such as 2024-08-09T00:00:00Z, was 'yesterday'" in answer.err


def test_config_show_prints_every_setting(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nhttp_port = 9000\n")

    answer = ask("config", "show", "--home", tmp_path, "--json")

    expected = Settings().as_dict()
    expected["server"]["http_port"] = 9000
    assert answer.code == 0
    assert json.loads(answer.out) == expected


def test_config_show_is_readable_without_json(ask: Ask, tmp_path: Path) -> None:
    answer = ask("config", "show", "--home", tmp_path)

    assert answer.code == 0
    assert '"symbols"' in answer.out


def test_valid_config_shows_its_hash(ask: Ask, tmp_path: Path) -> None:
    answer = ask("config", "validate", "--home", tmp_path, "--json")

    assert answer.code == 0
    assert json.loads(answer.out) == {"valid": True, "hash": Settings().hash}


def test_unknown_config_key_is_one_sentence_and_code_2(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 9000\n")

    answer = ask("config", "validate", "--home", tmp_path)

    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("ConfigError: ")
    assert "unknown key server.port; expected one of dashboard_port, host, http_port" in answer.err


def test_wrong_config_is_an_object_with_json(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 9000\n")

    answer = ask("config", "validate", "--home", tmp_path, "--json")

    assert answer.code == 2
    told = json.loads(answer.out)
    assert told["error"] == "ConfigError"
    assert "unknown key server.port" in told["message"]


def test_home_comes_from_the_environment(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 9000\n")
    monkeypatch.setenv("ALPHAPULSE_HOME", str(tmp_path))

    assert ask("config", "validate").code == 2


def test_errors_are_listed_newest_first(ask: Ask, tmp_path: Path) -> None:
    logs.configure(tmp_path / "logs", process="main", session="s")
    for n in (1, 2):
        logs.get_logger("storage").error(
            "not stored", code="StoreError", reason="no space", trace_id=f"t{n}", remedy="free it"
        )

    answer = ask("errors", "--home", tmp_path, "--json")

    (row,) = json.loads(answer.out)["errors"]
    assert answer.code == 0
    assert set(row) == {
        "code", "count", "first_at", "last_at", "trace_id", "message", "remedy",
    }  # fmt: skip
    assert (row["code"], row["count"], row["trace_id"]) == ("StoreError", 2, "t2")
    assert (row["message"], row["remedy"]) == ("no space", "free it")


def test_errors_of_an_unused_home_are_none(ask: Ask, tmp_path: Path) -> None:
    answer = ask("errors", "--home", tmp_path / "new", "--json")

    assert (answer.code, json.loads(answer.out)) == (0, {"errors": []})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", [["up", "--source", "recording"], ["backtest"]], ids=" ".join)
def test_missing_recording_ends_with_code_3(ask: Ask, tmp_path: Path, command: list[str]) -> None:
    answer = ask(*command, "--recording", tmp_path / "none", "--home", tmp_path / "home", "--json")

    assert answer.code == 3
    told = json.loads(answer.out)
    assert told["error"] == "InvalidRecording"
    assert str(tmp_path / "none") in told["message"]


def test_folder_that_is_no_recording_names_what_is_missing(ask: Ask, tmp_path: Path) -> None:
    answer = ask("up", "--recording", tmp_path, "--home", tmp_path / "home")

    assert answer.code == 3
    assert "candles-1m-ETHUSDT.parquet" in answer.err


def test_damaged_recording_names_the_file_and_is_left_as_it_was(
    ask: Ask, tmp_path: Path, recordings: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(recordings, damaged)
    file = damaged / "trades-BTCUSDT.parquet"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:5000])

    answer = ask("up", "--recording", damaged, "--home", tmp_path / "home")

    assert answer.code == 3
    assert str(file) in answer.err
    assert file.stat().st_size == 5000


def test_without_any_recording_both_ways_to_get_data_are_named(ask: Ask, tmp_path: Path) -> None:
    answer = ask("up", "--source", "recording", "--home", tmp_path / "home")

    assert answer.code == 3
    assert answer.err.count("\n") == 1
    assert "--source live" in answer.err
    assert "--recording DIR" in answer.err


def test_recordings_are_listed_file_by_file(ask: Ask, tmp_path: Path, recordings: Path) -> None:
    answer = ask("recordings", "--recording", recordings, "--home", tmp_path, "--json")
    shown = ask("recordings", "--recording", recordings, "--home", tmp_path)

    told = json.loads(answer.out)
    (recording,) = told["recordings"]
    files = {row["file"]: row for row in told["files"]}
    assert (answer.code, recording["replay"], recording["files"]) == (0, "ticks", 12)
    assert recording["content_hash"] == content_hash(recordings, Settings().market.instruments)
    assert files["trades-ETHUSDT.parquet"]["rows"] == 14_515
    assert files["candles-1h-ETHUSDT.parquet"]["missing"] == 1
    assert (shown.code, shown.err) == (0, "")
    assert "99.9957" in shown.out


def test_damaged_file_is_shown_with_its_error(ask: Ask, tmp_path: Path, recordings: Path) -> None:
    folder = tmp_path / "market" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(recordings / "candles-1d-ETHUSDT.parquet", folder)
    (folder / "trades-ETHUSDT.parquet").write_bytes(b"no Parquet")

    answer = ask("recordings", "--home", tmp_path, "--json")
    shown = ask("recordings", "--home", tmp_path)

    rows = json.loads(answer.out)["files"]
    assert (answer.code, shown.code) == (0, 0)
    assert [row["rows"] for row in rows] == [2_566, None]
    assert "was damaged" in rows[1]["error"]
    assert "damaged" in shown.out


def test_recordings_of_an_unused_home_are_none(ask: Ask, tmp_path: Path) -> None:
    answer = ask("recordings", "--home", tmp_path / "new", "--json")

    assert (answer.code, json.loads(answer.out)) == (0, {"recordings": [], "files": []})
    assert not (tmp_path / "new").exists()


DOWNLOAD = ("download", "--exchange", "nowhere", "--symbol", "ETH/USDT")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--timeframe", "2m", "--since", "2024-08-08"), "'2m' is not one of"),
        (("--timeframe", "1m"), "--since"),
        (("--timeframe", "1m", "--since", "yesterday"), "expected ISO-8601 such as"),
        (("--timeframe", "1m", "--since", "2024-08-08"), "expected a ccxt id with streams"),
    ],
)
def test_download_that_cannot_be_meant_is_refused(
    ask: Ask, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    answer = ask(*DOWNLOAD, *words, "--home", tmp_path / "new")

    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "90"), "--for: expected 90s, 5m, 2h or 1d"),
        (("--exchange", "nowhere"), "expected a ccxt id with streams"),
    ],
)
def test_record_that_cannot_be_meant_is_refused(
    ask: Ask, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    answer = ask("record", *words, "--home", tmp_path / "new")

    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert not (tmp_path / "new").exists()


def test_status_and_down_of_an_unused_home_say_that_nothing_runs(ask: Ask, tmp_path: Path) -> None:
    status = ask("status", "--home", tmp_path / "new", "--json")
    down = ask("down", "--home", tmp_path / "new", "--json")

    assert (status.code, json.loads(status.out)["state"]) == (0, "stopped")
    assert (down.code, json.loads(down.out)) == (0, {"state": "stopped", "ended": False})


def a_home_with_a_run(tmp_path: Path) -> Run:
    return Home(tmp_path).open_run(
        source="recording",
        recording="hand-made",
        content_hash="0" * 64,
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("halt", "--reason", "a test"),
        ("positions",),
        ("models", "rollback", "cnn"),
    ],
)
def test_what_needs_a_running_up_says_so(ask: Ask, tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = ask(*words, "--home", tmp_path)

    assert answer.code == 1
    assert "expected a running `alphapulse up`, was none" in answer.err


@pytest.mark.parametrize("words", [("halt",), ("resume",)])
def test_halt_and_resume_need_a_reason(ask: Ask, tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = ask(*words, "--home", tmp_path)

    assert answer.code == 2
    assert "--reason" in answer.err


def test_halt_of_a_run_that_nobody_works_on_is_cleared_once(ask: Ask, tmp_path: Path) -> None:
    run = a_home_with_a_run(tmp_path)
    ledger = Ledger(run.path / "ledger.sqlite", run=run.id)
    ledger.halt("drawdown", 5)
    ledger.close()

    first = ask("resume", "--reason", "looked into it", "--home", tmp_path, "--json")
    again = ask("resume", "--reason", "looked into it", "--home", tmp_path)

    assert (first.code, json.loads(first.out)["is_halted"]) == (0, False)
    (halt,) = LedgerReader(run.path / "ledger.sqlite").halts()
    assert halt.clear_reason == "looked into it"
    assert again.code == 1
    assert "expected trading to be halted" in again.err


def test_orders_of_the_newest_run_are_listed(ask: Ask, tmp_path: Path) -> None:
    run = a_home_with_a_run(tmp_path)
    Ledger(run.path / "ledger.sqlite", run=run.id).close()

    answer = ask("orders", "--home", tmp_path, "--json")

    assert json.loads(answer.out) == {"run": run.id, "orders": [], "fills": []}


def test_orders_of_a_home_without_a_run_say_how_to_get_one(ask: Ask, tmp_path: Path) -> None:
    answer = ask("orders", "--home", tmp_path)

    assert answer.code == 1
    assert "start one with `alphapulse up`" in answer.err


def test_models_are_listed_and_promoted_while_nothing_runs(ask: Ask, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    for id, role in (("aa", "champion"), ("bb", "challenger")):
        registry.register(Entry(id, "cnn", role, "data", "config", 0, {}))

    promoted = ask("models", "promote", "bb", "--home", tmp_path, "--json")
    listed = ask("models", "list", "--home", tmp_path, "--json")
    unknown = ask("models", "promote", "cc", "--home", tmp_path)

    assert (promoted.code, json.loads(promoted.out)["event_ns"]) == (0, None)
    roles = {row["id"]: row["role"] for row in json.loads(listed.out)["models"]}
    assert roles == {"aa": "retired", "bb": "champion"}
    assert (unknown.code, "expected a registered checkpoint" in unknown.err) == (1, True)


def test_promotion_while_nothing_runs_holds_for_the_newest_run(ask: Ask, tmp_path: Path) -> None:
    run = Home(tmp_path).open_run(
        source="recording",
        recording="hand-made",
        content_hash="0" * 64,
        settings=Settings(),
        checkpoints={"cnn": "aa", "rl": "r", "moe": "m"},
        fresh=False,
    )
    registry = Registry(tmp_path / "registry.sqlite")
    for id, role in (("aa", "champion"), ("bb", "challenger")):
        registry.register(Entry(id, "cnn", role, "data", "config", 0, {}))

    promoted = ask("models", "promote", "bb", "--home", tmp_path, "--json")
    again = ask("models", "promote", "bb", "--home", tmp_path)

    (kept,) = LedgerReader(run.path / "ledger.sqlite").promotions()
    assert (kept.checkpoint, kept.before) == ("bb", "aa")
    assert json.loads(promoted.out)["event_ns"] == kept.event_ns == 0
    assert (again.code, "answers already" in again.err) == (1, True)


def test_doctor_names_a_wrong_setting_with_a_remedy(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\nport = 9000\n")

    answer = ask("doctor", "--home", tmp_path, "--json")

    told = json.loads(answer.out)
    assert (answer.code, told["ok"]) == (1, False)
    assert [check["name"] for check in told["checks"]] == ["configuration"]
    assert all(check["remedy"] for check in told["checks"])


def test_doctor_gives_a_remedy_for_each_fault_and_for_nothing_else(
    ask: Ask, tmp_path: Path
) -> None:
    answer = ask("doctor", "--home", tmp_path, "--recording", tmp_path / "none", "--json")

    checks = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    assert answer.code == 1
    assert not checks["recording"]["ok"]
    assert checks["python"]["ok"]
    assert all(bool(check["remedy"]) != check["ok"] for check in checks.values())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["up", "--help"],
        ["history", "query", "--help"],
        ["download", "--help"],
        ["lookahead", "--help"],
        ["up", "--speed", "0"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", LISTS_IMPORTS, *arguments], capture_output=True, text=True
    )

    assert answer.returncode == (0 if "--help" in arguments else 2)
    assert answer.stdout.splitlines()[-1].split() == ["imported:"]


LEAKS = Path(__file__).parent / "analysing" / "leaks.py"


@pytest.mark.parametrize(("name", "code"), [("honest", 0), ("centred", 1)])
def test_lookahead_ends_with_1_for_a_leak_and_nothing_else(
    ask: Ask, tmp_path: Path, recordings: Path, name: str, code: int
) -> None:
    asked = ("lookahead", "--feature", f"{LEAKS}:{name}", "--timeframe", "1m", "--bars", "600")

    answer = ask(*asked, "--recording", recordings, "--home", tmp_path, "--json")

    told = json.loads(answer.out)
    assert (answer.code, told["clean"]) == (code, code == 0)
    assert {row["column"] for row in told["leaks"]} == ({"centred"} if code else set())


def test_lookahead_is_readable_without_json(ask: Ask, tmp_path: Path, recordings: Path) -> None:
    asked = ("lookahead", "--feature", f"{LEAKS}:centred", "--timeframe", "1m", "--bars", "600")

    answer = ask(*asked, "--recording", recordings, "--home", tmp_path)

    assert (answer.code, answer.err) == (1, "")
    assert "centred" in answer.out
    assert "leaks" in answer.out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--feature", "nothing"), 2),
        (("--model", "tests"), 2),
        (("--symbol", "DOGE/USDT"), 2),
        (("--bars", "1"), 2),
        (("--recording", "no/such/folder"), 3),
    ],
)
def test_lookahead_that_cannot_be_done_is_no_leak(
    ask: Ask, tmp_path: Path, recordings: Path, words: tuple[str, ...], code: int
) -> None:
    asked = ("lookahead", "--recording", recordings, "--timeframe", "1d", "--home", tmp_path)

    assert ask(*asked, *words).code == code


def test_lookahead_without_a_recording_has_no_data(ask: Ask, tmp_path: Path) -> None:
    answer = ask("lookahead", "--home", tmp_path)

    assert answer.code == 3
    assert "--recording DIR" in answer.err
