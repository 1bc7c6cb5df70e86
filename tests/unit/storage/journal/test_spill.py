"""The spill keeps records through a kill, gives them back bit for bit, and says what it cannot."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord
from alphapulse.storage.home import Home
from alphapulse.storage.journal.spill import MIB, Key, Spill
from tests.unit.storage.journal.test_journal import bits
from tests.unit.storage.records import RUN, SYMBOLS, instant, record, row

ROOT = Path(__file__).parents[4]
SPILLER = """
import asyncio, sys
from pathlib import Path
from alphapulse.storage.journal.spill import MIB, Spill
from tests.unit.storage.records import RUN, record
async def main():
    spill = Spill(Path(sys.argv[1]), run=RUN, max_bytes=MIB)
    for second in range(10**6):
        await spill.put([record(second)])
        print(second, flush=True)
asyncio.run(main())
"""


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    spill = Spill(tmp_path / "spill.sqlite", run=RUN, max_bytes=MIB)
    yield spill
    spill.close()


def key(second: int, symbol: str = SYMBOLS[0]) -> Key:
    return RUN, symbol, instant(second)


def overwrite(path: Path, *, holding: bytes) -> None:
    """Turn the bytes of a file that hold a text into others of the same length."""
    content = path.read_bytes()
    assert holding in content
    path.write_bytes(content.replace(holding, b"\xff" * len(holding)))


@pytest.mark.parametrize("second", range(6))
def test_records_come_back_bit_for_bit(spill: Spill, second: int) -> None:
    given = record(second)

    async def scenario() -> list[DecisionRecord]:
        await spill.put([given])
        return await spill.get(await spill.keys())

    assert bits(tuple(asyncio.run(scenario()))) == bits((given,))


def test_records_of_an_instant_share_its_closed_rows(spill: Spill) -> None:
    first = dataclasses.replace(record(0), rows=(row("SOL/USDT", "1s", ts_ns=5),))
    second = dataclasses.replace(record(0, symbol=SYMBOLS[1]), rows=())

    async def scenario() -> list[DecisionRecord]:
        await spill.put([first, second])
        return await spill.get(await spill.keys())

    assert bits(tuple(asyncio.run(scenario()))) == bits((first, second))


def test_rows_of_an_instant_stay_until_its_last_record_is_forgotten(spill: Spill) -> None:
    first = record(0)
    second = dataclasses.replace(record(0, symbol=SYMBOLS[1]), rows=())

    async def scenario() -> list[DecisionRecord]:
        await spill.put([first, second])
        await spill.drop([key(0)])
        return await spill.get(await spill.keys())

    (left,) = asyncio.run(scenario())

    assert bits(left) == bits(dataclasses.replace(second, rows=first.rows))


def test_order_is_that_of_arrival_and_a_repeated_record_counts_once(spill: Spill) -> None:
    async def scenario() -> list[Key]:
        await spill.put([record(7, symbol=SYMBOLS[1]), record(7)])
        await spill.put([record(7), record(8)])
        return await spill.keys()

    assert asyncio.run(scenario()) == [key(7, SYMBOLS[1]), key(7), key(8)]


def test_file_is_there_only_while_records_wait(spill: Spill) -> None:
    async def scenario() -> list[bool]:
        seen = [spill.path.exists()]
        await spill.put([record(0), record(1)])
        await spill.drop([key(0)])
        seen.append(spill.path.exists())
        await spill.drop([key(1)])
        return [*seen, spill.path.exists()]

    assert asyncio.run(scenario()) == [False, True, False]
    assert list(spill.path.parent.iterdir()) == []


def test_emptied_spill_takes_records_again(spill: Spill) -> None:
    async def scenario() -> list[Key]:
        for second in (0, 1):
            await spill.put([record(second)])
            await spill.drop([key(second)])
        await spill.put([record(2)])
        return await spill.keys()

    assert asyncio.run(scenario()) == [key(2)]


def test_beyond_its_size_it_takes_no_more_until_some_are_forgotten(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill.sqlite", run=RUN, max_bytes=MIB)

    async def put(taken: list[int]) -> None:
        for second in range(2000):
            await spill.put([record(second)])
            taken.append(second)

    async def scenario() -> tuple[int, int]:
        seconds: list[int] = []
        with pytest.raises(StoreError, match=r"was full at 1 MiB; .* storage\.spill_mb"):
            await put(seconds)
        taken = len(seconds)
        await spill.drop([key(second) for second in range(taken // 2)])
        await spill.put([record(taken)])
        return taken, len(await spill.keys())

    taken, left = asyncio.run(scenario())

    assert taken > 100
    assert left == taken - taken // 2 + 1
    assert spill.path.stat().st_size < 1.2 * MIB
    spill.close()


def test_records_of_another_run_are_refused(spill: Spill) -> None:
    with pytest.raises(StoreError, match="expected records of run"):
        asyncio.run(spill.put([record(0, run="another")]))


def test_what_was_taken_survives_a_kill(spill: Spill) -> None:
    command = [sys.executable, "-c", SPILLER, str(spill.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20)]
        process.kill()
        said += process.stdout.readlines()
    taken = [int(line) for line in said if line.endswith("\n")]

    async def scenario() -> list[DecisionRecord]:
        return await spill.get(await spill.keys())

    found = asyncio.run(scenario())

    assert len(taken) >= 20
    assert len(found) - len(taken) in (0, 1)  # the last one may have been taken but not told
    assert bits(tuple(found)) == bits(tuple(record(second) for second in range(len(found))))


def test_damaged_record_is_left_out_and_still_named(spill: Spill) -> None:
    async def fill() -> None:
        await spill.put([record(second) for second in range(40)])

    asyncio.run(fill())
    spill.close()
    with closing(sqlite3.connect(spill.path)) as db:
        (streams,) = db.execute(
            "SELECT content FROM pieces JOIN decisions ON streams_piece = pieces.number "
            "WHERE event_ns = ?",
            (instant(16),),  # none leans on it
        ).fetchone()
    overwrite(spill.path, holding=streams)
    damaged = Spill(spill.path, run=RUN, max_bytes=MIB)

    async def scenario() -> tuple[list[Key], list[DecisionRecord]]:
        keys = await damaged.keys()
        return keys, await damaged.get(keys)

    keys, found = asyncio.run(scenario())

    assert keys == [key(second) for second in range(40)]
    read = [second for second in range(40) if second != 16]
    assert bits(tuple(found)) == bits(tuple(record(second) for second in read))
    damaged.close()


def test_unreadable_file_is_told_with_what_to_do(spill: Spill) -> None:
    spill.path.write_bytes(b"not a database, and long enough to be told from an empty file" * 99)

    with pytest.raises(StoreError, match=r"spill\.sqlite.*move it away"):
        asyncio.run(spill.keys())


def test_locked_file_is_no_damage(spill: Spill) -> None:
    spill.path.mkdir()

    with pytest.raises(StoreError, match=r"CANTOPEN|IOERR"):
        asyncio.run(spill.get([key(0)]))


def test_place_is_the_runs_folder_or_the_one_of_the_settings(tmp_path: Path) -> None:
    run = Home(tmp_path).open_run(
        source="recording",
        recording="by hand",
        content_hash="c0ffee",
        settings=Settings(),
        checkpoints={},
        fresh=False,
    )
    elsewhere = Storage(spill_dir=str(tmp_path / "other disk"))

    assert Spill.of(run, Storage()).path == run.path / "spill.sqlite"
    assert Spill.of(run, elsewhere).path == tmp_path / "other disk" / f"{run.id}.spill.sqlite"
