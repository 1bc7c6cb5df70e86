"""The history finds each inference once, in journal and lake, from any process, over all runs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.errors import ConfigError, StoreError
from alphapulse.domain.inference import inference_id
from alphapulse.domain.learning import Cursor, Outcome
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.writer import MAX_OTHERS
from tests.unit.storage.journal.old_journal import make_old_journal
from tests.unit.storage.records import SYMBOLS, instant, outcome, record

READER = """
import asyncio, json, sys
from pathlib import Path
from alphapulse.config import Storage
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
history = InferenceHistory(Home(Path(sys.argv[1])), settings=Storage())
print(json.dumps(asyncio.run(history.query(Query()))["id"].tolist()))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def run(home: Home) -> Run:
    return start(home)


@pytest.fixture
def history(home: Home, run: Run) -> Iterator[InferenceHistory]:
    history = InferenceHistory(home, run=run, settings=Storage(flush_rows=12))
    yield history
    history.close()


def start(home: Home) -> Run:
    return home.open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=True,
    )


def fill(history: InferenceHistory, run: Run, *, flushed: int, unflushed: int) -> None:
    """Append decisions of both symbols a second; the first `flushed` seconds go to the lake."""
    for second in range(flushed + unflushed):
        records = [record(second, symbol=symbol, run=run.id) for symbol in SYMBOLS]
        asyncio.run(history.append(records))
        asyncio.run(history.settle([outcome(second, symbol=s, run=run.id) for s in SYMBOLS]))
        if second == flushed - 1:
            asyncio.run(history.flush())


def ask(history: InferenceHistory, query: Query) -> pd.DataFrame:
    return asyncio.run(history.query(query))


@pytest.mark.parametrize(("flushed", "unflushed"), [(0, 8), (5, 3), (8, 0)])
def test_journal_and_lake_answer_the_same_each_once(
    history: InferenceHistory, run: Run, flushed: int, unflushed: int
) -> None:
    fill(history, run, flushed=flushed, unflushed=unflushed)

    found = ask(history, Query())
    forecasts = ask(history, Query(table="predictions"))

    keys = found[["event_ns", "symbol", "model"]].to_records(index=False).tolist()
    assert keys == [
        (instant(second), symbol, model)
        for second in range(8)
        for symbol in sorted(SYMBOLS)
        for model in ("cnn", "moe", "rl")
    ]
    assert len(forecasts) == 8 * 2 * 4
    assert found["confidence"].isna().sum() == 16  # the rl of the records says NaN


def test_the_answer_is_the_same_before_and_after_a_flush(
    history: InferenceHistory, run: Run
) -> None:
    fill(history, run, flushed=0, unflushed=6)
    tables = ("inferences", "predictions", "outcomes")
    before = {table: ask(history, Query(table=table)) for table in tables}

    asyncio.run(history.flush())

    for table, frame in before.items():
        pd.testing.assert_frame_equal(ask(history, Query(table=table)), frame, check_exact=True)


def test_queries_restrict_by_symbol_model_timeframe_range_and_count(
    history: InferenceHistory, run: Run
) -> None:
    fill(history, run, flushed=4, unflushed=4)
    asked = Query(table="predictions", symbol="ETH/USDT", model="cnn", timeframe="1m")

    ranged = ask(history, Query(symbol="BTC/USDT", from_ns=instant(3), to_ns=instant(6)))
    minutes = ask(history, asked)
    newest = ask(history, Query(limit=4))

    assert set(ranged["symbol"]) == {"BTC/USDT"}
    assert sorted(set(ranged["event_ns"])) == [instant(3), instant(4), instant(5)]
    assert minutes["timeframe"].tolist() == ["1m"] * 8
    assert newest["event_ns"].tolist() == [instant(7)] * 4
    assert newest["symbol"].tolist() == ["BTC/USDT"] + ["ETH/USDT"] * 3
    assert ask(history, Query(run="no such run")).empty


def test_all_runs_answer_together_and_one_alone(home: Home) -> None:
    runs = [start(home), start(home)]
    for run in runs:
        history = InferenceHistory(home, run=run, settings=Storage())
        fill(history, run, flushed=1, unflushed=1)
        history.close()

    reader = InferenceHistory(home, settings=Storage())

    assert ask(reader, Query())["run"].value_counts().to_dict() == {run.id: 12 for run in runs}
    assert set(ask(reader, Query(run=runs[1].id))["run"]) == {runs[1].id}


def test_another_process_reads_while_this_one_writes(
    history: InferenceHistory, home: Home, run: Run
) -> None:
    fill(history, run, flushed=2, unflushed=2)

    command = [sys.executable, "-c", READER, str(home.path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    asyncio.run(history.append([record(9, run=run.id)]))
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in both]

    acknowledged = {
        inference_id(run=run.id, symbol=symbol, event_ns=instant(second), model=model)
        for second in range(4)
        for symbol in SYMBOLS
        for model in ("cnn", "rl", "moe")
    }
    for answer in answers:
        assert acknowledged <= set(answer)
        assert len(set(answer)) == len(answer)


def test_a_flush_is_due_by_count(history: InferenceHistory, run: Run) -> None:
    asyncio.run(history.append([record(second, run=run.id) for second in range(3)]))
    before = history.flush_due()

    asyncio.run(history.append([record(3, run=run.id)]))
    due = history.flush_due()
    asyncio.run(history.flush())

    assert (before, due, history.flush_due()) == (False, True, False)


def test_a_lake_out_of_reach_leaves_appends_and_queries_working(home: Home, run: Run) -> None:
    lake = home.path / "lake"
    lake.write_text("in the way")
    history = InferenceHistory(home, run=run, settings=Storage())
    asyncio.run(history.append([record(0, run=run.id)]))

    with pytest.raises(StoreError, match="the journal keeps every batch"):
        asyncio.run(history.flush())
    asyncio.run(history.append([record(1, run=run.id)]))
    lake.unlink()

    assert [report.number for report in asyncio.run(history.flush())] == [1, 2]
    assert len(ask(history, Query())) == 6
    assert history.counters()["failures"] == 1
    history.close()


def test_a_flush_takes_all_that_was_there_a_bounded_batch_at_a_time(
    history: InferenceHistory, run: Run
) -> None:
    asyncio.run(history.append([record(second, run=run.id) for second in range(2)]))
    answers = [outcome(second, run=run.id) for second in range(2 * MAX_OTHERS + 1)]
    asyncio.run(history.settle(answers))

    moved = asyncio.run(history.flush())

    outcomes = [report.rows["outcomes"] for report in moved]
    assert outcomes == [MAX_OTHERS, MAX_OTHERS, 1]
    assert history.counters()["unbatched_rest"] == 0
    stored = asyncio.run(history.sql("SELECT count(*), count(DISTINCT event_ns) FROM outcomes"))
    assert stored.iloc[0].tolist() == [len(answers)] * 2


def test_the_last_outputs_and_the_end_are_there_after_a_restart(
    history: InferenceHistory, home: Home, run: Run
) -> None:
    fill(history, run, flushed=1, unflushed=2)
    asyncio.run(history.mark_ended(instant(3)))
    history.close()

    again = InferenceHistory(home, run=run, settings=Storage())

    assert asyncio.run(again.last_decision("ETH/USDT")) == instant(2)
    assert [p.model for p in asyncio.run(again.last("ETH/USDT"))] == ["rl", "cnn", "moe"]
    assert run.ended_ns == instant(3)
    again.close()


def test_what_cannot_be_asked_is_told(history: InferenceHistory, home: Home) -> None:
    with pytest.raises(ConfigError, match=r"query\.table: expected one of inferences, predictions"):
        ask(history, Query(table="rows"))
    with pytest.raises(ConfigError, match="inferences have none"):
        ask(history, Query(timeframe="1m"))
    with pytest.raises(StoreError, match=r"not in .*list ids with"):
        asyncio.run(history.rebuild("00" * 16))
    reading = InferenceHistory(home, settings=Storage())
    for call in (reading.append([]), reading.settle([]), reading.follow(Cursor(), 1)):
        with pytest.raises(StoreError, match="was opened for reading"):
            asyncio.run(call)


def test_outcomes_are_found_in_journal_and_lake_alike(history: InferenceHistory, run: Run) -> None:
    fill(history, run, flushed=3, unflushed=2)
    minutes = [outcome(second, "1m", run=run.id) for second in range(5)]
    asyncio.run(history.settle(minutes))
    asked = Query(table="outcomes", model="cnn", symbol="ETH/USDT", timeframe="1m")

    everything = ask(history, Query(table="outcomes"))
    found = ask(history, dataclasses.replace(asked, from_ns=instant(1), limit=2))
    asyncio.run(history.flush())

    assert len(everything) == 2 * 5 + 5
    assert found["event_ns"].tolist() == [instant(3), instant(4)]
    pd.testing.assert_frame_equal(ask(history, Query(table="outcomes")), everything)
    names = [field.name for field in dataclasses.fields(Outcome)]
    stored = [Outcome(**row) for row in ask(history, asked)[names].to_dict("records")]
    assert repr(stored) == repr(minutes)  # NaN is read as NaN


def test_outcomes_alone_make_a_flush_due(history: InferenceHistory, home: Home, run: Run) -> None:
    fill(history, run, flushed=2, unflushed=0)
    before = history.counters()["unbatched_rest"]
    asyncio.run(history.settle([outcome(0, "1m", run=run.id)]))
    history.close()

    impatient = InferenceHistory(home, run=run, settings=Storage(flush_s=0.0))

    assert (before, impatient.flush_due()) == (0, True)
    assert [report.rows for report in asyncio.run(impatient.flush())] == [{"outcomes": 1}]
    assert not impatient.flush_due()
    impatient.close()


def test_a_home_from_before_outcomes_is_queried_and_settled(home: Home, run: Run) -> None:
    records = [record(second, run=run.id) for second in range(2)]
    make_old_journal(run.journal_path, records, run=run.id)
    reader = InferenceHistory(home, settings=Storage())
    unread = ask(reader, Query(table="outcomes"))
    inferences = ask(reader, Query())

    history = InferenceHistory(home, run=run, settings=Storage())
    asyncio.run(history.flush())
    asyncio.run(history.settle([outcome(0, run=run.id)]))

    assert (len(unread), len(inferences)) == (0, 6)
    assert len(ask(reader, Query(table="outcomes"))) == 1
    asyncio.run(history.flush())
    assert len(ask(reader, Query(table="outcomes"))) == 1
    pd.testing.assert_frame_equal(ask(reader, Query()), inferences)
    history.close()


def test_a_run_replayed_after_its_journal_was_lost_is_seen_once(
    history: InferenceHistory, home: Home, run: Run
) -> None:
    fill(history, run, flushed=3, unflushed=0)
    history.close()
    for file in run.path.glob("journal.sqlite*"):
        file.unlink()
    again = InferenceHistory(home, run=run, settings=Storage())

    fill(again, run, flushed=4, unflushed=1)

    assert len(ask(again, Query())) == 5 * 2 * 3
    again.close()


def test_a_lake_lost_under_way_is_told_once_and_filled_again(
    history: InferenceHistory, home: Home, run: Run
) -> None:
    fill(history, run, flushed=3, unflushed=0)
    before = ask(history, Query())
    shutil.rmtree(home.path / "lake")

    with pytest.raises(StoreError, match="can be reached"):
        ask(history, Query())
    alone = ask(history, Query())
    asyncio.run(history.append([record(9, run=run.id)]))
    with pytest.raises(StoreError, match="can be reached"):
        asyncio.run(history.flush())
    asyncio.run(history.flush())

    pd.testing.assert_frame_equal(alone, before)
    assert len(ask(InferenceHistory(home, settings=Storage()), Query())) == 3 * 2 * 3 + 3


def test_last_answers_from_memory_what_became_durable(
    history: InferenceHistory, home: Home, run: Run
) -> None:
    fill(history, run, flushed=1, unflushed=1)
    asyncio.run(history.last())  # reads what is there
    asyncio.run(history.append([record(2, symbol=symbol, run=run.id) for symbol in SYMBOLS]))
    with pytest.raises(StoreError):
        asyncio.run(history.append([record(7, run="another run")]))
    asyncio.run(history.append([record(0, run=run.id)]))  # an old one again
    history.close()
    run.journal_path.rename(run.path / "away")  # nothing below is read from a file

    everything = asyncio.run(history.last())
    cnn = asyncio.run(history.last(model="cnn"))
    one = asyncio.run(history.last("ETH/USDT", model="moe"))

    models = ("rl", "cnn", "moe")
    assert [(p.symbol, p.model) for p in everything] == [
        (symbol, model) for symbol in sorted(SYMBOLS) for model in models
    ]
    assert {p.event_ns for p in everything} == {instant(2)}
    assert [p.symbol for p in cnn] == sorted(SYMBOLS)
    assert [(p.symbol, p.model) for p in one] == [("ETH/USDT", "moe")]
    assert asyncio.run(history.last("DOGE/USDT")) == ()
    (run.path / "away").rename(run.journal_path)
    again = InferenceHistory(home, run=run, settings=Storage())
    assert repr(asyncio.run(again.last())) == repr(everything)
    again.close()
