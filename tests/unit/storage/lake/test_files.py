"""The files of a lake's tables are remembered, and never longer than the table is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from alphapulse.storage.asking.conditions import Asked, Span
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.files import LakeFiles, Snapshot
from alphapulse.storage.lake.upkeep import Upkeep
from tests.unit.storage.lake.lakes import journal_of
from tests.unit.storage.records import RUN, SYMBOLS, instant, record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = journal_of(tmp_path / "journal.sqlite", seconds=10, batches=2)
    yield journal
    journal.close()


def look(files: LakeFiles, journal: Journal, table: str = "inferences") -> Snapshot:
    found = files.at(table, writers=[journal.name()])
    assert found is not None
    return found


def test_table_nobody_committed_to_is_not_listed_again(lake: Lake, journal: Journal) -> None:
    files = LakeFiles(lake)

    first, second = look(files, journal), look(files, journal)

    assert second.files is first.files
    assert second.reached == first.reached == (2,)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_commit_of_another_process_is_seen_at_once(
    tmp_path: Path, lake: Lake, journal: Journal, is_checkpointed: bool
) -> None:
    files = LakeFiles(lake)
    before = look(files, journal)
    journal.append([record(10 + i, symbol=symbol) for i in range(2) for symbol in SYMBOLS])
    journal.name_batch(max_decisions=100)

    Lake(lake.uri).take(journal, writer=journal.name())
    if is_checkpointed:  # and the commits it covers are gone
        with Lake(lake.uri).opened("inferences") as delta:
            assert delta is not None
            delta.create_checkpoint()
        for commit in (tmp_path / "lake" / "inferences" / "_delta_log").glob("0*.json"):
            commit.unlink()

    after = look(files, journal)
    assert (before.reached, after.reached) == ((2,), (3,))
    assert sum(f.num_rows for f in after.files) == sum(f.num_rows for f in before.files) + 12
    assert look(files, journal).reached == (3,)


def test_writer_asked_for_later_is_looked_up(lake: Lake, journal: Journal) -> None:
    files = LakeFiles(lake)
    files.at("inferences", writers=["nobody"])

    found = files.at("inferences", writers=[journal.name(), "nobody"])

    assert found is not None
    assert found.reached == (2, 0)


def test_files_are_told_apart_by_symbol_time_and_run(lake: Lake, journal: Journal) -> None:
    snapshot = look(LakeFiles(lake), journal)

    def num(**where: object) -> int:
        return len(snapshot.holding(Asked("inferences", where)))

    assert num() == len(snapshot.files)
    assert num(symbol=SYMBOLS[0]) == num(symbol=SYMBOLS[1]) == len(snapshot.files) // 2
    assert num(run=RUN) == len(snapshot.files)
    assert num(run="0") == num(run="f" * 16) == num(symbol="XRP/USDT") == 0
    assert 0 < num(event_ns=Span(last=instant(0))) < len(snapshot.files)
    assert num(event_ns=Span(first=instant(10))) == 0


@pytest.mark.parametrize("is_joined", [False, True])
def test_filter_of_ids_passes_over_row_groups_without_the_one_asked_for(
    tmp_path: Path, lake: Lake, journal: Journal, is_joined: bool
) -> None:
    if is_joined:
        upkeep = Upkeep(lake)
        while upkeep.step(everything=True):
            pass
    files = look(LakeFiles(lake), journal).files
    paths = [str(tmp_path / "lake" / "inferences" / file.path) for file in files]
    ids = {path: pq.read_table(path, columns=["id"])["id"].to_pylist() for path in paths}

    def is_passed_over(path: str, id_: str) -> bool:
        probe = "SELECT bool_and(bloom_filter_excludes) FROM parquet_bloom_probe(?, 'id', ?)"
        return bool(duckdb.execute(probe, [path, id_]).fetchall()[0][0])

    assert not any(is_passed_over(path, id_) for path in paths for id_ in ids[path])
    absent = [f"{i:032x}" for i in range(200)]
    read = sum(not is_passed_over(path, id_) for path in paths for id_ in absent)
    assert read < 0.2 * len(paths) * len(absent)  # one in twenty is meant
