"""What is asked is found by property, outcome and page, in journal and lake alike."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alphapulse.config import Storage
from alphapulse.domain.errors import ConfigError, InvalidRequest
from alphapulse.domain.inference import Action, DecisionRecord, inference_id
from alphapulse.interfaces import Query
from alphapulse.storage.asking.conditions import Asked, Span
from alphapulse.storage.asking.open_journals import LAKE_ONLY
from alphapulse.storage.asking.pages import after_of, cursor_of, next_page
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.removing import remove_decisions
from alphapulse.storage.journal.writer import Journal
from tests.unit.storage.records import RUN, SYMBOLS, instant, outcome, record
from tests.unit.storage.test_history import ask, start

NUM = 8  # seconds
SAID = (Action.BUY, Action.SELL, Action.HOLD)
# State and share of hits of the example of each second; without one it is pending.
EXAMPLES = {0: ("resolved", 1.0), 1: ("resolved", 0.5), 2: ("resolved", 0.25), 3: ("void", None),
            4: ("resolved", None)}  # fmt: skip
# Seconds in the lake, and whether the journal may lack some of them: then it is not asked alone.
STORED = [(0, False), (5, False), (5, True), (NUM, True)]


def varied(second: int, symbol: str, run: str) -> DecisionRecord:
    """Return a record whose cnn acts and is confident as its second says."""
    made = record(second, symbol=symbol, run=run)
    outputs = tuple(
        dataclasses.replace(p, action=SAID[second % 3], confidence=second / 10)
        if p.model == "cnn"
        else p
        for p in made.decision.predictions
    )
    return dataclasses.replace(
        made, decision=dataclasses.replace(made.decision, predictions=outputs)
    )


def example(second: int, run: str, *, version: int = 1) -> dict[str, Any]:
    state, hit = EXAMPLES[second]
    about = {"symbol": SYMBOLS[0], "event_ns": instant(second), "model": "cnn"}
    return {
        **about,
        "inference_id": inference_id(run=run, **about),  # type: ignore[arg-type]
        "known_ns": instant(second + 60),
        "version": version,
        "state": state,
        "hit": hit,
        "loss": 0.5,
        "stratum": "ETH/USDT|H",
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def run(home: Home) -> Run:
    return start(home)


def fill(history: InferenceHistory, run: Run, *, num_flushed: int, is_lake_only: bool) -> None:
    """Append 8 seconds of both symbols; the first ones go to the lake."""
    for second in range(NUM):
        made = [varied(second, symbol, run.id) for symbol in SYMBOLS]
        asyncio.run(history.append(made))
        if second in EXAMPLES:
            answered = dataclasses.replace(outcome(second, "1m", run=run.id), hit=second % 2)
            asyncio.run(history.settle([answered]))
            asyncio.run(history.note("examples", [example(second, run.id)]))
        if second == num_flushed - 1:
            asyncio.run(history.flush())
    if is_lake_only:
        journal = Journal(run.journal_path, run=run.id)
        journal.remark(LAKE_ONLY, str(instant(NUM)))
        journal.close()


def named(stored: tuple[int, bool]) -> str:
    return f"{stored[0]}-in-lake{'-alone' if stored[1] else ''}"


@pytest.fixture(params=STORED, ids=named)
def history(request: pytest.FixtureRequest, home: Home, run: Run) -> Iterator[InferenceHistory]:
    """Return a history that a test may write on."""
    history = InferenceHistory(home, run=run, settings=Storage())
    fill(history, run, num_flushed=request.param[0], is_lake_only=request.param[1])
    yield history
    history.close()


@pytest.fixture(scope="module", params=STORED, ids=named)
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceHistory]:
    """Return a history that all who only ask share."""
    home = Home(tmp_path_factory.mktemp("home"))
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())
    fill(history, run, num_flushed=request.param[0], is_lake_only=request.param[1])
    yield history
    history.close()


def seconds(frame: pd.DataFrame) -> list[int]:
    return sorted({(ns - instant(0)) // (instant(1) - instant(0)) for ns in frame["event_ns"]})


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"action": "sell"}, [1, 4, 7]),
        ({"action": "buy", "min_confidence": 0.3}, [3, 6]),
        ({"min_confidence": 0.2, "max_confidence": 0.4}, [2, 3, 4]),
        ({"decision": "buy"}, list(range(NUM))),
        ({"decision": "sell"}, []),
        ({"outcome": "hit"}, [0, 1]),
        ({"outcome": "missed"}, [2]),
        ({"outcome": "void"}, [3]),
        ({"outcome": "pending"}, [5, 6, 7]),
        ({"outcome": "pending", "max_confidence": 0.6}, [5, 6]),
        ({"outcome": "hit", "from_ns": instant(1)}, [1]),
        ({"from_ns": instant(2), "to_ns": instant(4)}, [2, 3]),
        ({"from_ns": instant(4), "to_ns": instant(7)}, [4, 5, 6]),
        ({"to_ns": instant(1), "action": "buy"}, [0]),
    ],
)
def test_inferences_are_found_by_what_they_are_and_became(
    kept: InferenceHistory, asked: dict[str, Any], expected: list[int], limit: int | None
) -> None:
    found = ask(kept, Query(model="cnn", symbol=SYMBOLS[0], limit=limit, **asked))

    assert seconds(found) == (expected if limit is None else expected[-limit:])
    assert len(found) == len(seconds(found))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [("hit", [1, 3]), ("missed", [0, 2, 4]), ("void", []), ("pending", [5, 6, 7])],
)
def test_predictions_are_found_by_their_own_answer(
    kept: InferenceHistory, outcome: str, expected: list[int]
) -> None:
    asked = Query(table="predictions", symbol=SYMBOLS[0], timeframe="1m", outcome=outcome)

    assert seconds(ask(kept, asked)) == expected


def test_prediction_without_an_answer_of_a_concluded_inference_is_void(
    kept: InferenceHistory,
) -> None:
    asked = Query(table="predictions", symbol=SYMBOLS[0], timeframe="1h", outcome="void")
    pending = dataclasses.replace(asked, outcome="pending")

    assert seconds(ask(kept, asked)) == sorted(EXAMPLES)
    assert seconds(ask(kept, pending)) == [5, 6, 7]


def test_newest_definitions_say_which_outcome_it_was(history: InferenceHistory, run: Run) -> None:
    again = {"state": "resolved", "hit": 1.0}
    rows = [example(second, run.id, version=2) | again for second in (2, 3)]
    asyncio.run(history.note("examples", rows))

    hit = ask(history, Query(model="cnn", outcome="hit"))

    assert seconds(hit) == [0, 1, 2, 3]
    assert ask(history, Query(outcome="void")).empty


@pytest.mark.parametrize("limit", [1, 3, 5, 48, 1000])
@pytest.mark.parametrize("table", ["inferences", "predictions", "outcomes", "examples"])
def test_pages_make_the_whole_answer(kept: InferenceHistory, table: str, limit: int) -> None:
    whole = ask(kept, Query(table=table))
    query: Query | None = Query(table=table, limit=limit)
    pages: list[pd.DataFrame] = []
    while query and len(pages) <= len(whole):
        pages.insert(0, ask(kept, query))
        query = next_page(query, pages[0])

    assert query is None
    joined = pd.concat([page for page in pages if len(page)], ignore_index=True)
    pd.testing.assert_frame_equal(joined, whole, check_dtype=False)
    assert all(len(page) == limit for page in pages[1:])


def test_pages_stand_still_while_rows_are_appended_and_flushed(
    history: InferenceHistory,
    run: Run,
) -> None:
    before = ask(history, Query())
    query = Query(limit=7)
    first = ask(history, query)

    asyncio.run(history.append([varied(NUM, SYMBOLS[0], run.id)]))
    asyncio.run(history.flush())
    following = next_page(query, first)
    assert following is not None
    second = ask(history, following)

    ids = [*second["id"], *first["id"]]
    assert ids == before["id"].tolist()[-14:]


def test_cursor_is_one_word_and_comes_back(kept: InferenceHistory) -> None:
    query = Query(limit=2)
    following = next_page(query, ask(kept, query))

    word = cursor_of(following)

    assert following is not None
    assert word is not None
    assert word.replace("-", "").replace("_", "").isalnum()
    assert after_of("inferences", word) == following.after
    assert cursor_of(None) is None


def word(*said: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "e30", word("inferences"), word("outcomes", 1, "a", "b", "c"),
     word("inferences", "1", "a", "b", "c"), word("inferences", 1, "a", "b", "c", "d")],
)  # fmt: skip
def test_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="after: expected the `next` of a page of inferences"):
        after_of("inferences", cursor)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"table": "rows"}, r"query\.table: expected one of inferences, predictions, outcomes"),
        ({"action": "short"}, r"query\.action: expected one of buy, sell, hold, was 'short'"),
        ({"decision": ""}, r"query\.decision: expected one of"),
        ({"outcome": "won"}, r"query\.outcome: expected one of hit, missed, pending, void"),
        ({"min_confidence": 1.5}, r"expected 0 <= min_confidence <= max_confidence <= 1, was 1\.5"),
        ({"min_confidence": 0.6, "max_confidence": 0.5}, "swap or widen"),
        ({"max_confidence": float("nan")}, "was None and nan"),
        ({"from_ns": 2, "to_ns": 1}, r"query\.from_ns: expected at most to_ns, was 2 and 1"),
        ({"limit": 0}, r"query\.limit: expected 1 or more, was 0"),
    ],
)
def test_query_that_cannot_be_is_not_built(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Query(**asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"timeframe": "1m"}, "expected table predictions or outcomes, was inferences"),
        ({"table": "outcomes", "min_confidence": 0.5}, "expected table inferences or predictions"),
        ({"table": "predictions", "action": "buy"}, "expected table inferences or outcomes"),
        ({"table": "outcomes", "decision": "buy"}, "expected table inferences, was outcomes"),
        ({"table": "orders", "model": "cnn"}, "orders have none"),
        ({"table": "examples", "outcome": "hit"}, "expected table inferences or predictions"),
        ({"after": (1, "ETH/USDT")}, r"query\.after: expected event_ns, symbol, model, run"),
    ],
)
def test_query_of_what_a_table_has_not_is_told(
    home: Home,
    asked: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(InferenceHistory(home, settings=Storage()), Query(**asked))


def test_rows_written_twice_by_two_journals_of_a_run_fill_a_page_once(
    home: Home,
    run: Run,
) -> None:
    for _ in range(2):  # the journal is lost, and the run made again
        history = InferenceHistory(home, run=run, settings=Storage())
        asyncio.run(history.append([record(second, run=run.id) for second in range(6)]))
        asyncio.run(history.flush())
        history.close()
        for file in run.path.glob("journal.sqlite*"):
            file.unlink()
    reader = InferenceHistory(home, settings=Storage())

    newest = ask(reader, Query(limit=5))

    assert len(set(newest["id"])) == 5
    assert seconds(newest) == [4, 5]


def forget(run: Run, *, until: int) -> None:
    """Remove the decisions of the first seconds from the journal, as retention does: lake alone."""
    with closing(sqlite3.connect(run.journal_path)) as db, db:
        sql = "SELECT number FROM decisions WHERE event_ns <= ?"
        remove_decisions(db, [number for (number,) in db.execute(sql, (instant(until),))])
    journal = Journal(run.journal_path, run=run.id)
    journal.remark(LAKE_ONLY, str(instant(until)))
    journal.close()


@pytest.mark.parametrize("table", ["inferences", "predictions", "packages"])
def test_what_only_the_lake_still_has_is_found(home: Home, run: Run, table: str) -> None:
    history = InferenceHistory(home, run=run, settings=Storage())
    for second in range(NUM):
        asyncio.run(history.append([record(second, run=run.id)]))
    asyncio.run(history.flush())
    history.close()
    reader = HistoryReader(runs=home.runs_path, lake_uri=str(home.path / "lake"))
    spans = [Span(), Span(instant(2), instant(5)), Span(instant(3)), Span(instant(5))]
    asked = [
        Asked(table, {"run": run.id, "event_ns": span}, limit=limit)
        for span in spans
        for limit in (None, 5, 500)
    ]
    before = [reader.find(one) for one in asked]

    forget(run, until=3)

    for one, expected in zip(asked, before, strict=True):
        assert reader.find(one).equals(expected), one


def test_home_under_a_name_that_is_a_pattern_is_read(home: Home, run: Run) -> None:
    history = InferenceHistory(home, run=run, settings=Storage())
    asyncio.run(history.append([record(0, run=run.id)]))
    asyncio.run(history.flush())
    history.close()
    for file in run.path.glob("journal.sqlite*"):
        file.unlink()
    odd = home.path.parent / "it's [1] home?"
    shutil.copytree(home.path, odd)

    found = ask(InferenceHistory(Home(odd), settings=Storage()), Query(action="hold"))

    assert len(found) == 3


def test_orders_rounds_and_alerts_are_found(history: InferenceHistory) -> None:
    order = {"order_id": "o1", "inference_id": "ab" * 16, "symbol": SYMBOLS[0],
             "event_ns": instant(1), "purpose": "entry"}  # fmt: skip
    alert = {"id": "cd" * 16, "symbol": "ALL", "event_ns": instant(2), "code": "LakeBehind",
             "message": "m", "remedy": "r", "raised_at": "2024-08-07T00:00:00Z"}  # fmt: skip
    asyncio.run(history.note("orders", [order]))
    asyncio.run(history.note("alerts", [alert]))

    orders = ask(history, Query(table="orders", symbol=SYMBOLS[0], from_ns=instant(1)))
    alerts = ask(history, Query(table="alerts", limit=3))

    assert orders[list(order)].to_dict("records") == [order]
    assert alerts[list(alert)].to_dict("records") == [alert]
    assert ask(history, Query(table="orders", symbol=SYMBOLS[1])).empty
    assert ask(history, Query(table="training_rounds", model="cnn")).empty


def test_run_and_foreign_run_are_kept_apart(history: InferenceHistory, home: Home) -> None:
    other = start(home)
    second = InferenceHistory(home, run=other, settings=Storage())
    asyncio.run(second.append([record(NUM + 1, run=other.id)]))

    newest = ask(history, Query(limit=3))
    named = ask(history, Query(limit=1, run=other.id))

    assert set(newest["run"]) == set(named["run"]) == {other.id}
    assert ask(history, Query(run=RUN)).empty
    second.close()
