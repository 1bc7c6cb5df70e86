"""What `alphapulse history` prints of a home, with which exit code it ends, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.config import Settings
from alphapulse.domain.inputs import DTYPES, INPUT_SPEC
from alphapulse.domain.learning import Outcome
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from tests.unit.conftest import Ask
from tests.unit.storage.asking.test_rebuild import NUM_POINTS, replayed
from tests.unit.storage.records import outcome

NUM_INPUTS = 2 * NUM_POINTS


@pytest.fixture(scope="module")
def kept(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home of real inputs, half of them in the lake, one inference answered in full."""
    home, settings = Home(tmp_path_factory.mktemp("kept") / "home"), Settings()
    start = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**start, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=settings.storage)
    asyncio.run(replayed(recordings, history, run))
    first = asyncio.run(history.sql("SELECT * FROM inferences WHERE model = 'cnn'")).iloc[0]
    about = {name: first[name] for name in ("symbol", "model")} | {"event_ns": int(first.event_ns)}
    names = ("known_ns", "timeframe", "level", "unit", "ended_ns", "price", "move", "hit", "kind")
    said = {name: getattr(outcome(0), name) for name in names}
    asyncio.run(history.settle([Outcome(inference_id=first.id, run=run.id, **about, **said)]))
    order = {"order_id": "o1", "symbol": first.symbol, "purpose": "entry"}
    asyncio.run(
        history.note("orders", [order | {"inference_id": first.id, "event_ns": about["event_ns"]}])
    )
    example = {"known_ns": 1, "version": 1, "state": "resolved", "hit": 1.0, "loss": 0.1}
    example |= {"stratum": "ETH/USDT|H", "inference_id": first.id}
    asyncio.run(history.note("examples", [about | example]))
    history.close()
    return home.path


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "home"))


@pytest.fixture
def run(home: Path) -> Run:
    return Home(home).run(1)


def told(ask: Ask, home: Path, *words: object, code: int = 0) -> dict[str, Any]:
    answer = ask("history", *words, "--home", home, "--json")
    assert answer.code == code, answer
    found: dict[str, Any] = json.loads(answer.out, parse_constant=pytest.fail)  # NaN is no JSON
    return found


def answered(ask: Ask, home: Path) -> str:
    (row,) = told(ask, home, "query", "--outcome", "hit")["rows"]
    id_: str = row["id"]
    return id_


def test_pages_follow_each_other_to_the_end(ask: Ask, home: Path) -> None:
    ids: list[str] = []
    page: dict[str, Any] = told(ask, home, "query", "--limit", 10)
    while page["next"] and len(ids) <= 3 * NUM_INPUTS:
        ids = [row["id"] for row in page["rows"]] + ids
        page = told(ask, home, "query", "--limit", 10, "--after", page["next"])
    ids = [row["id"] for row in page["rows"]] + ids

    assert len(set(ids)) == len(ids) == 3 * NUM_INPUTS
    assert ids == [row["id"] for row in told(ask, home, "query", "--limit", 99)["rows"]]


@pytest.mark.parametrize(
    ("words", "num"),
    [
        (("--model", "rl"), NUM_INPUTS),
        (("--symbol", "BTC/USDT", "--action", "hold"), 3 * NUM_POINTS),
        (("--action", "buy"), 0),
        (("--decision", "hold", "--model", "moe"), NUM_INPUTS),
        (("--min-confidence", 0.3, "--max-confidence", 0.4), 2 * NUM_INPUTS),
        (("--timeframe", "1m"), NUM_INPUTS),
        (("--timeframe", "1s", "--outcome", "hit"), 1),
        (("--outcomes",), 1),
        (("--table", "examples"), 1),
        (("--table", "orders"), 1),
        (("--outcome", "pending"), 3 * NUM_INPUTS - 1),
        (("--from", "2030-01-01"), 0),
    ],
)
def test_query_finds_what_the_words_say(
    ask: Ask, home: Path, words: tuple[object, ...], num: int
) -> None:
    assert len(told(ask, home, "query", "--limit", 999, *words)["rows"]) == num


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--min-confidence", "1.5"), 2, "--min-confidence"),
        (("--min-confidence", "0.9", "--max-confidence", "0.1"), 2, "swap or widen"),
        (("--action", "short"), 2, "'short' is not one of"),
        (("--table", "rows"), 2, "'rows' is not one of"),
        (("--table", "orders", "--model", "cnn"), 2, "orders have none"),
        (("--after", "word"), 1, "expected the `next` of a page of inferences"),
        (("--from", "2024-02-01", "--to", "2024-01-01"), 2, "expected at most to_ns"),
    ],
)
def test_query_that_cannot_be_answered_says_why(
    ask: Ask, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = ask("history", "query", "--home", tmp_path, *words)

    assert answer.code == code
    assert said in answer.err
    assert answer.out == ""


def test_show_tells_everything_and_rebuilds_the_input(ask: Ask, home: Path, tmp_path: Path) -> None:
    id_, file = answered(ask, home), tmp_path / "input.npz"

    shown = told(ask, home, "show", id_, "--save", file)
    readable = ask("history", "show", id_, "--home", home)

    assert shown["inference"]["id"] == id_
    assert len(shown["inference"]["hidden"]) == 48
    assert [row["timeframe"] for row in shown["forecasts"]] == ["1d", "1h", "1m", "1s"]
    assert [row["hit"] for row in shown["outcomes"]] == [1.0]
    assert (shown["example"]["state"], shown["orders"][0]["order_id"]) == ("resolved", "o1")
    fed = shown["input"]
    assert (fed["is_whole"], fed["problem"]) == (True, "")
    assert fed["shapes"] == {name: list(shape) for name, shape in INPUT_SPEC.shapes().items()}
    assert fed["completeness"]["1m"] == 1.0
    with np.load(file) as arrays:
        assert {name: arrays[name].shape for name in DTYPES} == INPUT_SPEC.shapes()
    assert (readable.code, readable.err) == (0, "")
    assert "bars_SFTC" in readable.out
    assert shown["inference"]["input_hash"][:20] in readable.out


def test_show_of_a_damaged_input_says_so_and_ends_with_1(ask: Ask, home: Path, run: Run) -> None:
    id_ = answered(ask, home)
    with closing(sqlite3.connect(run.journal_path, isolation_level=None)) as db:
        db.execute("UPDATE decisions SET input_hash = '00'")

    shown = told(ask, home, "show", id_, code=1)
    saved = ask("history", "show", id_, "--home", home, "--save", home / "none.npz")

    assert not shown["input"]["is_whole"]
    assert "expected hash 00, was" in shown["input"]["problem"]
    assert shown["forecasts"]
    assert (saved.code, "expected an input to save" in saved.err) == (1, True)
    assert not (home / "none.npz").exists()


def test_show_of_an_unknown_id_says_how_to_list_them(ask: Ask, home: Path) -> None:
    answer = ask("history", "show", "ff" * 16, "--home", home)

    assert (answer.code, answer.out) == (1, "")
    assert "list ids with `alphapulse history query --json`" in answer.err


def test_verify_counts_and_ends_with_1_for_damage(ask: Ask, home: Path, run: Run) -> None:
    whole = told(ask, home, "verify")
    none = told(ask, home, "verify", "--from", "2030-01-01")
    with closing(sqlite3.connect(run.journal_path, isolation_level=None)) as db:
        db.execute(
            "DELETE FROM closed_rows WHERE number = "
            "(SELECT max(number) FROM closed WHERE stream = '1s' AND symbol = 'ETH/USDT')"
        )

    damaged = told(ask, home, "verify", code=1)
    symbol = told(ask, home, "verify", "--symbol", "BTC/USDT", code=1)

    assert whole == {"checked": NUM_INPUTS, "is_whole": True, "damaged": [], "missing": []}
    assert none["checked"] == 0
    assert damaged["checked"] < NUM_INPUTS
    assert {"ids", "reason", "place", "symbol", "event_ns", "run"} == set(damaged["damaged"][0])
    assert {row["symbol"] for row in symbol["damaged"]} == {"BTC/USDT"}


def test_verify_shows_on_stderr_how_far_it_is(ask: Ask, home: Path) -> None:
    answer = ask("history", "verify", "--home", home)

    assert answer.code == 0
    assert "inputs" in answer.err
    assert "is_whole" in answer.out


def test_stats_count_each_row_once(ask: Ask, home: Path, run: Run) -> None:
    found = told(ask, home, "stats")
    readable = ask("history", "stats", "--home", home)

    tables = {row["table"]: row for row in found["tables"]}
    assert tables["inferences"]["rows"] == 3 * NUM_INPUTS
    assert 0 < tables["inferences"]["rows_in_journal_alone"] < 3 * NUM_INPUTS
    assert tables["packages"]["rows"] == NUM_INPUTS
    assert tables["orders"]["rows"] == tables["orders"]["rows_in_journal_alone"] == 1
    assert tables["alerts"]["newest_ns"] is None
    (row,) = found["runs"]
    assert (row["run"], row["number"], row["inferences"]) == (run.id, "1", 3 * NUM_INPUTS)
    assert found["journal_bytes"] == row["journal_bytes"] > 0
    assert found["lake_files"] == sum(table["lake_files"] for table in tables.values()) > 0
    assert found["lake_bytes"] > 0
    assert found["disk_free_bytes"] > 0
    assert found["newest_ns"] == tables["inferences"]["newest_ns"]
    assert (readable.code, readable.err) == (0, "")


def test_stats_name_a_run_whose_journal_is_gone(ask: Ask, home: Path, run: Run) -> None:
    for file in run.path.glob("journal.sqlite*"):
        file.unlink()

    found = told(ask, home, "stats")

    (row,) = found["runs"]
    assert (row["run"], row["journal_bytes"]) == (run.id, 0)
    assert 0 < {t["table"]: t["rows"] for t in found["tables"]}["inferences"] < 3 * NUM_INPUTS


def test_sql_joins_journal_and_lake(ask: Ask, home: Path) -> None:
    counted = told(ask, home, "sql", "SELECT model, count(*) AS n FROM inferences GROUP BY model")
    joined = told(
        ask, home, "sql",
        "SELECT i.symbol, o.hit FROM inferences i JOIN outcomes o ON o.inference_id = i.id",
    )  # fmt: skip
    timed = told(ask, home, "sql", "SELECT make_timestamp_ns(event_ns) AS at FROM orders")

    assert {row["model"]: row["n"] for row in counted["rows"]} == dict.fromkeys(
        ("cnn", "rl", "moe"), NUM_INPUTS
    )
    assert [row["hit"] for row in joined["rows"]] == [1.0]
    assert timed["rows"][0]["at"].startswith("2024-08-08")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DROP TABLE inferences", "expected one SELECT, was DROP"),
        ("SELECT 1; SELECT 2", "expected one SELECT, was SELECT, SELECT"),
        ("", "expected one SELECT, was nothing"),
        ("SELEC 1", "expected one SELECT, was Parser Error"),
        ("COPY inferences TO 'there.csv'", "was COPY"),
        ("SET enable_external_access = true", "was SET"),
        ("INSERT INTO orders SELECT * FROM orders", "was INSERT"),
        ("SELECT * FROM read_text('there.csv')", "file system operations are disabled"),
        ("SELECT * FROM 'there.csv'", "disabled"),
        ("SELECT * FROM glob('*')", "disabled"),
        ("SELECT * FROM nothing", "the tables are inferences"),
        ("SELECT reader FROM inferences", "reader"),
        ("SELECT * FROM gathered", "the tables are inferences"),  # a name of the code is no table
    ],
)
def test_sql_that_is_no_question_is_refused(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, said: str
) -> None:
    (tmp_path / "there.csv").write_text("a,b")
    monkeypatch.chdir(tmp_path)

    answer = ask("history", "sql", statement, "--home", tmp_path / "home")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("InvalidRequest: sql: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert Path("there.csv").read_text() == "a,b"


def test_everything_of_an_unused_home_is_empty(ask: Ask, tmp_path: Path) -> None:
    new = tmp_path / "new"

    assert told(ask, new, "query") == {"rows": [], "next": None}
    assert told(ask, new, "verify")["checked"] == 0
    assert told(ask, new, "sql", "SELECT count(*) AS n FROM orders") == {"rows": [{"n": 0}]}
    assert told(ask, new, "stats")["newest_ns"] is None
    assert not new.exists()
