"""Forming rows are in the lake once an instant and symbol, and packages read as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, StreamRef
from alphapulse.storage.asking.conditions import Asked
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.journal.decoding import package_of
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.columns import arrow_schema
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.forming import STREAM, put_together, split
from alphapulse.storage.tables import COLUMNS
from tests.unit.storage.lake.lakes import contents
from tests.unit.storage.records import RUN, SYMBOLS, instant, record

ETH, BTC = SYMBOLS


def shows_both(second: int, symbol: str, *, of_btc: float = 7.0) -> DecisionRecord:
    """Return a decision whose input showed forming rows of both symbols, its own first."""
    made = record(second, symbol=symbol)
    values = {ETH: 3.0 + second, BTC: of_btc + second}
    refs = [
        StreamRef(one, timeframe, 0, -1, 0, instant(second), 7, np.full(4, values[one] * scale))
        for one in (symbol, made.package.reference)
        for timeframe, scale in (("1m", 1.0), ("1h", 2.0))
    ]
    return replace(made, package=replace(made.package, streams=tuple(refs)))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite", run=RUN)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def moved(journal: Journal, lake: Lake, *, max_decisions: int = 100) -> None:
    """Move all there is to the lake, in batches of so many decisions."""
    while journal.name_batch(max_decisions=max_decisions):
        lake.take(journal, writer=journal.name())


def forming_rows(lake: Lake) -> list[tuple[str, int]]:
    rows = contents(lake, "rows")
    rows = rows.filter(pc.equal(rows["stream"], STREAM))
    return sorted(zip(rows["symbol"].to_pylist(), rows["ts_ns"].to_pylist(), strict=True))


def assert_read_back(lake: Lake, journal: Journal, tmp_path: Path) -> None:
    """Assert that what is read from the lake alone is what the journal has."""
    reader = HistoryReader(runs=tmp_path / "none", lake_uri=lake.uri)
    found = {(row["event_ns"], row["symbol"]): row for row in reader.fetch("packages", {})}
    names = list(COLUMNS["packages"])
    stored = [dict(zip(names, row, strict=True)) for row in journal.select("packages")]
    assert found == {(row["event_ns"], row["symbol"]): row for row in stored}
    for row in stored:
        package_of(found[row["event_ns"], row["symbol"]])
    assert reader.find(Asked("rows", {})).num_rows == len(journal.select("rows"))
    reader.close()


@pytest.mark.parametrize("max_decisions", [1, 3, 100])
def test_what_two_inputs_of_an_instant_show_is_there_once(
    journal: Journal, lake: Lake, tmp_path: Path, max_decisions: int
) -> None:
    for second in range(4):
        journal.append([shows_both(second, symbol) for symbol in SYMBOLS])

    moved(journal, lake, max_decisions=max_decisions)

    both = [(symbol, instant(second)) for symbol in SYMBOLS for second in range(4)]
    assert forming_rows(lake) == sorted(both)
    assert set(contents(lake, "packages")["forming"].to_pylist()) == {None}
    assert_read_back(lake, journal, tmp_path)


def test_a_reference_that_is_not_decided_about_brings_its_own(
    journal: Journal, lake: Lake, tmp_path: Path
) -> None:
    journal.append([shows_both(0, ETH)])

    moved(journal, lake)

    assert forming_rows(lake) == [(BTC, instant(0)), (ETH, instant(0))]
    assert_read_back(lake, journal, tmp_path)


@pytest.mark.parametrize("max_decisions", [1, 100])
def test_an_input_that_shows_something_else_keeps_its_own(
    journal: Journal, lake: Lake, tmp_path: Path, max_decisions: int
) -> None:
    journal.append([shows_both(0, ETH), shows_both(0, BTC, of_btc=8.0)])

    moved(journal, lake, max_decisions=max_decisions)

    kept = contents(lake, "packages").select(["symbol", "forming"]).to_pylist()
    assert {row["symbol"] for row in kept if row["forming"] is not None} == {BTC}
    assert_read_back(lake, journal, tmp_path)


def test_a_row_that_is_gone_is_told(journal: Journal, lake: Lake, tmp_path: Path) -> None:
    journal.append([shows_both(0, ETH)])
    moved(journal, lake)
    day = "2024-08-06"
    lake.remove("rows", symbol=BTC, day=day, leaves=lambda b: np.ones(b.num_rows, np.bool_))
    reader = HistoryReader(runs=tmp_path / "none", lake_uri=lake.uri)

    with pytest.raises(StoreError, match=r"forming rows of BTC/USDT: expected 32 bytes, was 0"):
        reader.find(Asked("packages", {}))

    assert reader.find(Asked("packages", {}, columns=("symbol",))).num_rows == 1
    reader.close()


def test_parts_that_are_not_next_to_each_other_are_put_together() -> None:
    streams = (
        '[["a","1m",0,-1,0,1,7,2],["b","1m",0,-1,0,1,7,1],'
        '["b","book",0,1,1,null,0,null],["a","1h",0,-1,0,1,7,1]]'
    )
    forming = np.arange(4.0).tobytes()

    parts = split(streams, forming, "<f8[4]")

    assert parts == {"a": np.array([0.0, 1.0, 3.0]).tobytes(), "b": np.array([2.0]).tobytes()}
    assert put_together(streams, parts, "<f8[4]") == forming


def test_an_older_lake_keeps_what_it_has(journal: Journal, lake: Lake, tmp_path: Path) -> None:
    journal.append([shows_both(0, ETH), shows_both(0, BTC)])
    whole = [dict(zip(COLUMNS["packages"], row, strict=True)) for row in journal.select("packages")]
    lake.add("packages", pa.Table.from_pylist(whole, arrow_schema("packages")), name="older")

    reader = HistoryReader(runs=tmp_path / "none", lake_uri=lake.uri)
    found = reader.fetch("packages", {})
    reader.close()

    assert sorted(r["forming"] for r in found) == sorted(r["forming"] for r in whole)
