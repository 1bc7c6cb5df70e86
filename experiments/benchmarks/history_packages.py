"""How fast is a decision kept, and in how many bytes, beside naive layouts of whole packages?"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alphapulse.domain.inference import DecisionRecord
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.journal.writer import Journal
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.upkeep import Upkeep
from experiments.benchmarks.history_exact import differing
from experiments.benchmarks.history_naive import write_naive
from experiments.benchmarks.history_records import INSTRUMENTS, SETTINGS, Collected, new_run
from experiments.benchmarks.peer import in_turn, rate_row
from experiments.benchmarks.result import Row

APPEND_GOAL, JOURNAL_GOAL, LAKE_GOAL = 10.0, 120.0, 220.0  # TARGETS.md, history
APPENDS_S, JOURNAL_BYTES, LAKE_BYTES = 5_000, 2_800, 1_450  # what is meant by good
NUM_FIRST = len(INSTRUMENTS)  # decisions of the first instant carry the bars before it, once
BATCH = 200  # decisions: each day consists of several files before they are joined
NAIVE = {"parquet": "one zstd Parquet file each", "sqlite": "zstd blobs", "duckdb": "a row each"}


def rows(collected: Collected, folder: Path, *, runs: int) -> list[Row]:
    """Return `append`, `bytes_journal`, `bytes_lake` and the bytes of the naive layouts."""
    packages = write_naive(collected)
    first = collected.num_short
    naive = {name: naive_bytes(name, packages, first, folder / name) for name in NAIVE}
    return [
        append_row(collected, folder, runs=runs),
        *bytes_rows(collected, folder, naive),
        *(
            Row(
                name=f"bytes_naive_{name}",
                value=num_bytes,
                unit="B",
                peer=version,
                goal=f"report: {NAIVE[name]}, the same decisions",
                met=num_bytes > 0,
            )
            for name, (version, num_bytes) in naive.items()
        ),
    ]


def append_row(collected: Collected, folder: Path, *, runs: int) -> Row:
    """Return acknowledged appends a second, one decision each, beside SQLite with zstd blobs."""
    latencies_s: list[float] = []
    prepared = iter([begun(collected, folder / f"append-{i}") for i in range(runs + 1)])

    def run() -> None:
        latencies_s.extend(append_each(*next(prepared)))

    timed = in_turn(
        run, "history_packages", ("sqlite", collected.folder, NUM_FIRST, folder / "b"), runs=runs
    )
    count = len(collected.records) - NUM_FIRST
    row = rate_row("append", timed, events=count, goal=APPEND_GOAL)
    p50_ms, p99_ms = np.percentile(latencies_s[count:], [50, 99]) * 1e3
    goal = f"{row.goal}; >= {APPENDS_S:,}/s; p50 {p50_ms:.3g} ms, p99 {p99_ms:.3g} ms"
    return replace(row, goal=goal)


def begun(collected: Collected, folder: Path) -> tuple[Journal, Sequence[DecisionRecord]]:
    """Return a journal that has the first instant and so the windows before, and the rest."""
    run = new_run(Home(folder))
    records = collected.of(run.id)
    journal = Journal(run.journal_path, run=run.id)
    journal.append(records[:NUM_FIRST])
    return journal, records[NUM_FIRST:]


def append_each(journal: Journal, records: Sequence[DecisionRecord]) -> list[float]:
    """Append decision by decision, close, and return the seconds each took."""
    latencies_s = []
    for record in records:
        begin = time.perf_counter()
        journal.append([record])
        latencies_s.append(time.perf_counter() - begin)
    journal.close()
    return latencies_s


def bytes_rows(
    collected: Collected, folder: Path, naive: Mapping[str, tuple[str, float]]
) -> list[Row]:
    """Return what a decision takes in journal and lake once the windows are full, all columns.

    Every decision of the window is rebuilt, from the journal and then from the lake alone.
    """
    num_short = collected.num_short
    count = len(collected.records) - num_short
    whole = asyncio.run(stored(collected.records, folder / "whole"))
    first = asyncio.run(stored(collected.records[:num_short], folder / "first"))
    journal_bytes = (journal_size(whole) - journal_size(first)) / count
    journal_exact = differing(whole, collected)
    for home in (whole, first):
        shutil.rmtree(home.runs_path)
    lake_bytes = (lake_size(whole) - lake_size(first)) / count
    lake_exact = differing(whole, collected)
    peer, peer_bytes = naive["parquet"]
    return [
        bytes_row(
            "bytes_journal",
            *(journal_bytes, JOURNAL_BYTES, JOURNAL_GOAL),
            *(peer, peer_bytes, journal_exact),
        ),
        bytes_row("bytes_lake", lake_bytes, LAKE_BYTES, LAKE_GOAL, peer, peer_bytes, lake_exact),
    ]


def bytes_row(
    name: str,
    num_bytes: float,
    most: float,
    goal: float,
    peer: str,
    peer_bytes: float,
    differing: int,
) -> Row:
    """Return the bytes of both, and whether the peer takes `goal` times ours and all is exact."""
    ratio = peer_bytes / num_bytes
    return Row(
        name=name,
        value=num_bytes,
        unit="B",
        peer=peer,
        peer_value=peer_bytes,
        ratio=ratio,
        goal=f">= {goal:g} x the peer and <= {most:,} B, no decision differs: {differing} do",
        met=ratio >= goal and num_bytes <= most and differing == 0,
    )


async def stored(records: Sequence[DecisionRecord], folder: Path) -> Home:
    """Return a home that holds the records in its journal and its compacted lake."""
    home = Home(folder)
    run = new_run(home)
    history = InferenceHistory(home, run=run, settings=SETTINGS.storage)
    for number, record in enumerate(records):
        await history.append([replace(record, run=run.id)])
        if number % BATCH == BATCH - 1:
            await history.flush()
    await history.flush()
    history.close()
    upkeep = Upkeep(Lake(str(home.path / "lake")))
    while upkeep.step(everything=True):
        pass
    return home


def journal_size(home: Home) -> int:
    """Return the bytes of the journals of a home that nobody writes."""
    return sum(size_of(path) for path in home.runs_path.glob("*/journal.sqlite*"))


def lake_size(home: Home) -> int:
    """Return the bytes of the data files the tables of a home consist of now."""
    return sum(sum(live_files(table).values()) for table in (home.path / "lake").iterdir())


def live_files(table: Path) -> dict[str, int]:
    """Return the bytes of the data files of a Delta table by their path, from its log."""
    live: dict[str, int] = {}
    for commit in sorted((table / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                live[action["add"]["path"]] = action["add"]["size"]
            elif "remove" in action:
                live.pop(action["remove"]["path"], None)
    return live


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def naive_bytes(layout: str, packages: Path, first: int, store: Path) -> tuple[str, float]:
    """Return the version of a peer and the bytes a decision takes in its layout, 0 without it."""
    timed = in_turn(lambda: None, "history_packages", (layout, packages, first, store), runs=0)
    if not store.exists():
        return timed.peer, 0.0
    count = len(json.loads((packages / "said.json").read_text())) - first
    num_bytes = size_of(store) / count
    shutil.rmtree(store)
    return timed.peer, num_bytes
