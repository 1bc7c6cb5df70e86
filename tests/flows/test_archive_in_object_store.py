"""What leaves the history for an archive in an object store is there before it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from alphapulse.config import Storage
from alphapulse.domain.pruning import Pruned
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.home import Home
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.object_store import storage_options
from alphapulse.storage.retention.pruning import Pruning
from alphapulse.storage.tables import KEYS
from tests.flows.object_store import BUCKET, KEY, SECRET, aws, object_store, refuse_all
from tests.unit.storage.lake.lakes import contents
from tests.unit.storage.records import SYMBOLS
from tests.unit.storage.retention.past import OWNED, bits, made, seconds, stored

ARCHIVE = f"s3://{BUCKET}/what/left"
ALL = {symbol: list(range(12)) for symbol in SYMBOLS}
LEFT = {symbol: list(range(8)) for symbol in SYMBOLS}


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with object_store() as endpoint:
        for name, value in aws(endpoint).items():
            monkeypatch.setenv(name, value)
        yield endpoint


def prune(
    home: Path, *, archive: str = ARCHIVE, step: Callable[[str], None] = lambda _: None
) -> Pruned:
    settings = Storage(max_decisions=8, audit_share=0.0, archive_uri=archive)
    room = (10**12, 10**12)
    lake = Lake(str(home / "lake"))
    return Pruning(Home(home), lake=lake, settings=settings, disk=lambda _: room, step=step).prune()


def archived(table: str) -> pa.Table:
    if Lake(ARCHIVE).read(table, writers=[])[0] is None:
        return arrow_table(table, [])
    return contents(Lake(ARCHIVE), table)


def test_what_leaves_is_in_the_archive_bit_for_bit_and_once(tmp_path: Path) -> None:
    run = made(tmp_path)
    before = {table: stored(tmp_path, table) for table in OWNED}

    pruned = prune(tmp_path)
    again = prune(tmp_path)

    assert (pruned.decisions, again.decisions, pruned.archive) == (16, 0, ARCHIVE)
    assert seconds(archived("packages")) == LEFT
    for table in OWNED:
        both = pa.concat_tables([archived(table), stored(tmp_path, table)])
        assert bits(both.sort_by([(key, "ascending") for key in KEYS[table]])) == bits(
            before[table]
        ), table
    reader = HistoryReader(
        runs=tmp_path / "runs", lake_uri=str(tmp_path / "lake"), archive_uri=ARCHIVE
    )
    assert reader.archive is not None
    assert len(reader.archive.fetch("inferences", {"run": run.id})) == 16 * 3
    reader.close()


def test_a_round_killed_after_it_was_archived_is_given_to_the_archive_once(tmp_path: Path) -> None:
    made(tmp_path)

    def kill(name: str) -> None:
        if name == "removing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, step=kill)
    begun = seconds(stored(tmp_path, "packages")), seconds(archived("packages"))
    prune(tmp_path)

    assert begun == (ALL, LEFT)
    assert seconds(archived("packages")) == LEFT
    assert archived("inferences").num_rows == 16 * 3
    assert seconds(stored(tmp_path, "packages")) == {s: list(range(8, 12)) for s in SYMBOLS}


def test_an_archive_that_gives_back_other_bits_stops_everything(tmp_path: Path) -> None:
    made(tmp_path)

    def spoil(name: str) -> None:
        if name == "archived inferences":  # a zero loses its sign
            uri, options = f"{ARCHIVE}/inferences", storage_options(ARCHIVE)
            rows: list[dict[str, Any]] = archived("inferences").to_pylist()
            day = [{**r, "utility_r": r["utility_r"] + 0.0, "day": "2024-08-06"} for r in rows]
            schema = DeltaTable(uri, storage_options=options).to_pyarrow_dataset().schema
            content = pa.Table.from_pylist(day, schema=schema)
            write_deltalake(uri, content, mode="overwrite", storage_options=options)

    pruned = prune(tmp_path, step=spoil)

    assert pruned.decisions == 0
    assert "differ or are missing; nothing was removed" in pruned.alerts["ArchiveFailed"]
    assert seconds(stored(tmp_path, "packages")) == ALL


def test_an_archive_that_is_not_there_or_refuses_stops_everything_and_shows_no_secret(
    endpoint: str, tmp_path: Path
) -> None:
    made(tmp_path)

    nowhere = prune(tmp_path, archive="s3://no-such-bucket/what/left")
    refuse_all(endpoint)
    refused = prune(tmp_path)

    assert "no such bucket" in nowhere.alerts["ArchiveFailed"]
    assert "refused the credentials" in refused.alerts["ArchiveFailed"]
    assert (nowhere.decisions, refused.decisions) == (0, 0)
    assert not any(secret in str((nowhere, refused)) for secret in (KEY, SECRET))
    assert seconds(stored(tmp_path, "packages")) == ALL
