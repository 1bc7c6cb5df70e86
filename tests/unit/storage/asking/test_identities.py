"""An inference is found by its id wherever it is kept, and soon."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from alphapulse.config import Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import inference_id
from alphapulse.storage.asking.identities import FIRST_FILES, located, scanned
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.showing import show
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.removing import remove_decisions
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake, day_of
from alphapulse.storage.tables import LAKE_ONLY
from tests.unit.storage.records import SYMBOLS, instant, record
from tests.unit.storage.test_history import start

NUM, IN_LAKE = 8, 5  # seconds, and those of them in the lake
UNKNOWN = "ab" * 16


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def run(home: Home) -> Run:
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())
    for second in range(NUM):
        asyncio.run(history.append([record(second, symbol=s, run=run.id) for s in SYMBOLS]))
        if second == IN_LAKE - 1:
            asyncio.run(history.flush())
    history.close()
    return run


@pytest.fixture
def reader(home: Home, run: Run) -> Iterator[HistoryReader]:
    reader = HistoryReader(runs=home.runs_path, lake_uri=str(home.path / "lake"))
    yield reader
    reader.close()


def remark(run: Run, until: int) -> None:
    """Let the journal remember that it may lack seconds up to one: it is no longer asked alone."""
    journal = Journal(run.journal_path, run=run.id)
    journal.remark(LAKE_ONLY, str(instant(until)))
    journal.close()


def forget(run: Run, *, until: int) -> None:
    """Remove the first seconds from the journal, as retention does once the lake has them."""
    with closing(sqlite3.connect(run.journal_path)) as db, db:
        sql = "SELECT number FROM decisions WHERE event_ns <= ?"
        remove_decisions(db, [number for (number,) in db.execute(sql, (instant(until),))])
    remark(run, until)


def id_of(run: Run, second: int, *, symbol: str = SYMBOLS[0], model: str = "cnn") -> str:
    return inference_id(run=run.id, symbol=symbol, event_ns=instant(second), model=model)


def places(reader: HistoryReader, ids: list[str]) -> dict[str, int]:
    """Return the instant of each inference that is found by id, each id once."""
    rows, failure = located(reader, ids, ("id", "event_ns"))
    assert failure is None
    assert len(rows) == len({row["id"] for row in rows})
    return {row["id"]: row["event_ns"] for row in rows}


@pytest.mark.parametrize("is_asked_alone", [True, False])
@pytest.mark.parametrize("forgotten", [None, 0, IN_LAKE - 1])
def test_id_is_found_before_and_after_its_batch_and_after_the_journal_gave_it_up(
    reader: HistoryReader, run: Run, forgotten: int | None, is_asked_alone: bool
) -> None:
    if forgotten is not None:
        forget(run, until=forgotten)
    elif not is_asked_alone:
        remark(run, NUM)
    ids = [id_of(run, s, model=m) for s in range(NUM) for m in ("cnn", "rl", "moe")]

    apart = {id_: ns for one in ids for id_, ns in places(reader, [one]).items()}
    together = places(reader, [*ids, UNKNOWN])

    expected = {id_of(run, s, model=m): instant(s) for s in range(NUM) for m in ("cnn", "rl")}
    assert apart == together
    assert expected.items() <= apart.items()
    assert len(apart) == len(ids)


def test_id_is_found_in_the_oldest_of_many_files(home: Home) -> None:
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage())
    num_files = FIRST_FILES + 2
    for second in range(num_files):
        asyncio.run(history.append([record(second, run=run.id)]))
        asyncio.run(history.flush())
    history.close()
    remark(run, num_files)
    reader = HistoryReader(runs=home.runs_path, lake_uri=str(home.path / "lake"))
    every = [id_of(run, second) for second in range(num_files)]

    assert len(reader.extent("inferences")[0]) == num_files
    assert places(reader, every[:1]) == {every[0]: instant(0)}
    assert places(reader, every) == {id_: instant(second) for second, id_ in enumerate(every)}
    assert places(reader, [UNKNOWN]) == {}
    reader.close()


def test_id_in_no_batch_yet_is_found_without_reading_a_file_of_the_lake(
    home: Home, reader: HistoryReader, run: Run
) -> None:
    remark(run, NUM)
    for file in (home.path / "lake" / "inferences").rglob("*.parquet"):
        file.write_bytes(b"no Parquet")

    assert places(reader, [id_of(run, NUM - 1)]) == {id_of(run, NUM - 1): instant(NUM - 1)}
    assert isinstance(located(reader, [id_of(run, 0)])[1], StoreError)


def test_id_is_found_while_the_lake_is_away(home: Home, reader: HistoryReader, run: Run) -> None:
    remark(run, NUM)
    for table in (home.path / "lake").iterdir():
        shutil.rmtree(table / "_delta_log")
        (table / "_delta_log").write_text("not a folder")

    found = scanned(reader, [id_of(run, 0), UNKNOWN], ("id", "event_ns"))

    assert [(row["id"], row["event_ns"]) for row in found] == [(id_of(run, 0), instant(0))]
    with pytest.raises(StoreError, match="lake"):
        show(reader, UNKNOWN)
    with pytest.raises(StoreError, match="lake"):
        reader.inputs([UNKNOWN])


def test_id_whose_row_the_lake_lost_is_found_in_the_journal(
    home: Home, reader: HistoryReader, run: Run
) -> None:
    lake = Lake(str(home.path / "lake"))
    for symbol in SYMBOLS:
        lake.remove(
            "inferences",
            symbol=symbol,
            day=day_of(instant(0)),
            leaves=lambda batch: np.array(batch["event_ns"]) == instant(0),
        )
    remark(run, NUM)

    assert places(reader, [id_of(run, 0)]) == {}
    shown = show(reader, id_of(run, 0))
    assert shown is not None
    assert shown.inference["event_ns"] == instant(0)
    assert show(reader, UNKNOWN) is None


def test_inference_the_archive_has_is_shown_from_there(
    tmp_path: Path, home: Home, run: Run
) -> None:
    shutil.move(home.path / "lake", tmp_path / "archive")
    shutil.rmtree(run.path)
    reader = HistoryReader(
        runs=home.runs_path,
        lake_uri=str(home.path / "lake"),
        archive_uri=str(tmp_path / "archive"),
    )

    shown = show(reader, id_of(run, 0))

    assert shown is not None
    assert shown.inference["event_ns"] == instant(0)
    assert show(reader, id_of(run, NUM - 1)) is None
    reader.close()


def test_row_that_two_journals_of_a_run_wrote_is_found_once(home: Home, run: Run) -> None:
    for file in run.path.glob("journal.sqlite*"):
        file.unlink()
    again = InferenceHistory(home, run=run, settings=Storage())
    asyncio.run(again.append([record(second, run=run.id) for second in range(IN_LAKE)]))
    asyncio.run(again.flush())
    again.close()
    assert len(DeltaTable(home.path / "lake" / "inferences").to_pyarrow_table()) == 45
    reader = HistoryReader(runs=home.runs_path, lake_uri=str(home.path / "lake"))

    assert places(reader, [id_of(run, 1), id_of(run, 2)]).keys() == {id_of(run, 1), id_of(run, 2)}
    reader.close()
