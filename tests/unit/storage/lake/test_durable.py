"""What a table in a folder is read from is brought to the disk, file by file, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.durable import bring_to_disk
from tests.unit.storage.lake.lakes import journal_of


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    journal: Journal = journal_of(tmp_path / "journal.sqlite", seconds=12, batches=6)
    lake = Lake(str(tmp_path / "lake"))
    lake.take(journal, writer=journal.name())
    yield lake
    journal.close()


def snapshot(lake: Lake, table: str) -> set[Path]:
    """Return the data files of a table as its newest version names them."""
    return set(map(Path, DeltaTable(f"{lake.uri}/{table}").file_uris()))


def synced(lake: Lake, table: str, **of: set[str]) -> list[Path]:
    done: list[Path] = []
    bring_to_disk(lake, table, sync=done.append, **of)
    return done


def test_all_files_of_the_newest_version_then_their_folders(lake: Lake) -> None:
    root = Path(lake.uri)
    DeltaTable(f"{lake.uri}/inferences").optimize.compact()
    log = root / "inferences" / "_delta_log"

    done = synced(lake, "inferences")

    files, folders = [p for p in done if p.is_file()], [p for p in done if p.is_dir()]
    assert set(files) == snapshot(lake, "inferences") | set(log.glob("*.json"))
    assert set(folders) == {f for p in files for f in p.parents if f.is_relative_to(root)} | {
        root.parent
    }
    assert done == files + folders, "a name is of use only where its content is"
    assert len(files) == len(set(files))


def test_a_checkpoint_stands_for_the_commits_before_it(lake: Lake) -> None:
    table = DeltaTable(f"{lake.uri}/inferences")
    table.load_as_version(table.version() - 2)
    table.create_checkpoint()
    log = Path(lake.uri) / "inferences" / "_delta_log"

    done = {path.name for path in synced(lake, "inferences") if path.parent == log}

    assert done == {
        f"{4:020}.checkpoint.parquet",
        "_last_checkpoint",
        f"{5:020}.json",
        f"{6:020}.json",
    }


def test_only_the_partitions_asked_for(lake: Lake) -> None:
    done = synced(lake, "packages", symbols={"ETH/USDT"}, days={"2024-08-07"})

    data = {path for path in done if path.suffix == ".parquet"}
    assert data == {
        path
        for path in snapshot(lake, "packages")
        if "ETH" in str(path) and "day=2024-08-07" in str(path)
    }
    assert data


def test_a_file_that_is_gone_is_told(lake: Lake) -> None:
    next(iter(snapshot(lake, "packages"))).unlink()

    with pytest.raises(StoreError, match="packages"):
        bring_to_disk(lake, "packages")


def test_a_table_that_is_not_there_and_an_object_store_need_nothing(tmp_path: Path) -> None:
    assert synced(Lake(str(tmp_path / "none")), "rows") == []
    assert synced(Lake("s3://no-such-host/lake"), "rows") == []
