"""What leaves the history is in the archive before it goes, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from alphapulse.config import Settings, Storage
from alphapulse.domain.learning import Cursor, ShownBar
from alphapulse.domain.pruning import Pruned
from alphapulse.interfaces import Query
from alphapulse.storage.alerts import store_alerts
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.retention.inventory import take_stock
from alphapulse.storage.retention.pruning import Pruning
from tests.unit.storage.asking.test_rebuild import assert_rebuilt, replayed
from tests.unit.storage.records import SYMBOLS, instant, outcome
from tests.unit.storage.retention.past import (
    OWNED,
    bits,
    everything,
    example,
    fill,
    in_lake,
    made,
    seconds,
    sliding,
    start,
    stored,
)

KEEP_8 = Storage(max_decisions=8, audit_share=0.0)
ROOM = (10**12, 10**12)  # free, total


def prune(
    path: Path,
    settings: Storage = KEEP_8,
    *,
    free: tuple[int, int] = ROOM,
    step: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> Pruned:
    pruning = Pruning(
        Home(path),
        lake=Lake(str(path / "lake")),
        settings=settings,
        disk=lambda _: free,
        step=step,
    )
    return pruning.prune(dry_run=dry_run)


def journal_counts(run_path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(run_path / "journal.sqlite")) as db:
        tables = ("decisions", "outputs", "forecasts", "settled", "noted_examples", "closed_rows")
        return {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}


def test_the_oldest_leave_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    run = made(tmp_path)
    before = everything(tmp_path)

    pruned = prune(tmp_path)

    kept = {symbol: [8, 9, 10, 11] for symbol in SYMBOLS}
    gone = {symbol: list(range(8)) for symbol in SYMBOLS}
    for table in OWNED:
        late = (8, 9) if table in ("outcomes", "examples") else (8, 12)  # answered by then
        assert seconds(stored(tmp_path, table)) == {s: list(range(*late)) for s in SYMBOLS}, table
        assert seconds(in_lake(tmp_path / "archive", table)) == gone, table
    assert everything(tmp_path) == before
    counts = journal_counts(run.path)
    assert (counts["decisions"], counts["outputs"], counts["forecasts"]) == (8, 24, 32)
    assert (counts["settled"], counts["noted_examples"]) == (2, 2)
    assert (pruned.decisions, pruned.reasons, pruned.missed) == (16, {"count": 16}, {})
    assert pruned.alerts == {}
    assert not (tmp_path / "retention" / "round.json").exists()
    assert seconds(stored(tmp_path, "packages")) == kept


def test_pruning_again_changes_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    prune(tmp_path)
    before = everything(tmp_path)

    again = prune(tmp_path)

    assert (again.decisions, again.reasons) == (0, {})
    assert everything(tmp_path) == before


def test_a_dry_run_says_the_same_and_touches_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    before = sorted((p, p.stat().st_size) for p in (tmp_path / "lake").rglob("*"))

    said = prune(tmp_path, dry_run=True)

    assert sorted((p, p.stat().st_size) for p in (tmp_path / "lake").rglob("*")) == before
    assert not (tmp_path / "archive").exists()
    assert not (tmp_path / "retention").exists()
    done = prune(tmp_path)
    assert said == done


def test_pending_ordered_and_audited_decisions_stay(tmp_path: Path) -> None:
    made(tmp_path, ordered=(2, 5))
    policy = Storage(max_decisions=1, audit_share=0.0)

    pruned = prune(tmp_path, policy)
    audited = prune(tmp_path, replace(policy, audit_share=1.0))

    kept = {SYMBOLS[0]: [2, 5, 8, 9, 10, 11], SYMBOLS[1]: [8, 9, 10, 11]}
    assert seconds(stored(tmp_path, "packages")) == kept
    assert pruned.missed == {"count": 9}
    assert pruned.protected["pending"] == 8
    assert "9" in pruned.alerts["RetentionBlocked"]
    assert audited.protected["audit"] == 10
    assert (audited.decisions, audited.missed) == (0, {"count": 9})


def test_rows_nothing_shows_any_more_leave_and_are_in_the_archive(tmp_path: Path) -> None:
    run = made(tmp_path)
    before = Counter(bits(stored(tmp_path, "rows")))

    prune(tmp_path)

    left = stored(tmp_path, "rows")
    oldest = {
        s: min(left.filter(pa.compute.equal(left["stream"], s))["ts_ns"].to_pylist())
        for s in ("1s", "book")
    }
    assert oldest == {"1s": instant(5), "book": instant(6)}  # the input at second 8 shows three
    archived = in_lake(tmp_path / "archive", "rows")
    assert set(before) == set(bits(left)) | set(bits(archived))
    assert max(Counter(bits(archived)).values()) == 1
    assert journal_counts(run.path)["closed_rows"] == left.num_rows


def test_bars_of_a_run_that_goes_on_stay_while_book_rows_leave(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=KEEP_8)
    fill(history, run, seconds=12, answered=8)

    asyncio.run(history.prune())
    history.close()

    left = Counter(stored(tmp_path, "rows")["stream"].to_pylist())
    assert left == {"1s": 24, "book": 12}
    with closing(sqlite3.connect(run.journal_path)) as db:
        journal = dict(db.execute("SELECT stream, count(*) FROM closed GROUP BY stream"))
    assert journal == {"1s": 24, "book": 12}


def test_numbers_are_never_given_twice_and_later_batches_arrive(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=Storage(max_decisions=1, audit_share=0.0))
    fill(history, run, seconds=6, answered=6)
    newest = outcome(0, "1m", symbol=SYMBOLS[0], run=run.id)
    asyncio.run(history.settle([newest]))
    asyncio.run(history.flush())

    asyncio.run(history.prune())
    late = [outcome(5, "1m", symbol=s, run=run.id) for s in SYMBOLS]
    asyncio.run(history.append([sliding(6, symbol=s, run=run.id) for s in SYMBOLS]))
    asyncio.run(history.settle(late))
    asyncio.run(
        history.note("examples", [example(6, "cnn", symbol=SYMBOLS[0], run=run.id, loss=1.0)])
    )
    asyncio.run(history.flush())
    counts = history.counters()
    history.close()

    assert (counts["decisions"], counts["inferences"], counts["outcomes"]) == (14, 42, 15)
    assert counts["unbatched"] == 0
    lake = tmp_path / "lake"
    assert in_lake(lake, "outcomes")["timeframe"].to_pylist().count("1m") == 3
    assert seconds(in_lake(lake, "packages")) == {SYMBOLS[0]: [0, 5, 6], SYMBOLS[1]: [5, 6]}
    assert seconds(in_lake(lake, "examples"))[SYMBOLS[0]] == [0, 5, 6]


def test_what_the_lake_has_not_taken_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=KEEP_8)
    fill(history, run, seconds=12, answered=12)
    late = outcome(2, "1m", symbol=SYMBOLS[0], run=run.id)
    asyncio.run(history.settle([late, outcome(11, "1m", symbol=SYMBOLS[0], run=run.id)]))
    # no flush: decision 2 is not whole in the lake

    asyncio.run(history.prune())
    asyncio.run(history.flush())
    history.close()

    assert 2 in seconds(stored(tmp_path, "packages"))[SYMBOLS[0]]
    assert late.timeframe in stored(tmp_path, "outcomes")["timeframe"].to_pylist()


def test_an_archive_that_gives_back_other_bits_stops_everything(tmp_path: Path) -> None:
    made(tmp_path)

    def spoil(name: str) -> None:
        if name == "archived inferences":  # a zero loses its sign
            archived = in_lake(tmp_path / "archive", "inferences").to_pylist()
            for row in archived:
                row["utility_r"] = row["utility_r"] + 0.0
            day = [{**row, "day": "2024-08-06"} for row in archived]
            schema = DeltaTable(tmp_path / "archive" / "inferences").to_pyarrow_dataset().schema
            content = pa.Table.from_pylist(day, schema=schema)
            write_deltalake(tmp_path / "archive" / "inferences", content, mode="overwrite")

    spoilt = prune(tmp_path, step=spoil)

    assert (spoilt.decisions, spoilt.reasons) == (0, {})
    assert "differ or are missing; nothing was removed" in spoilt.alerts["ArchiveFailed"]
    kept = {symbol: list(range(12)) for symbol in SYMBOLS}
    assert seconds(stored(tmp_path, "packages")) == kept
    assert not (tmp_path / "retention" / "round.json").exists()


def test_an_archive_out_of_reach_stops_everything_and_is_tried_again(tmp_path: Path) -> None:
    made(tmp_path)
    before = everything(tmp_path)
    (tmp_path / "archive").write_text("in the way")

    failed = prune(tmp_path)
    (tmp_path / "archive").unlink()
    untouched = everything(tmp_path)
    again = prune(tmp_path)

    assert (failed.decisions, list(failed.alerts)) == (0, ["ArchiveFailed"])
    assert untouched == before
    assert (again.decisions, again.alerts) == (16, {})


def test_without_an_archive_what_left_is_listed(tmp_path: Path) -> None:
    run = made(tmp_path)

    pruned = prune(tmp_path, replace(KEEP_8, archive_uri="none"))

    (path,) = (tmp_path / "retention" / "removed").iterdir()
    listed = json.loads(path.read_text())
    gone = [instant(second) for second in range(8)]
    assert listed["keys"] == {run.id: dict.fromkeys(SYMBOLS, gone)}
    assert listed["reasons"] == {"count": 16}
    assert (pruned.archive, pruned.decisions) == ("", 16)
    assert not (tmp_path / "archive").exists()


def test_a_disk_below_its_watermark_first_loses_only_what_the_lake_holds_too(
    tmp_path: Path,
) -> None:
    run = made(tmp_path)
    settings = Storage(audit_share=0.0, disk_free_pct=0.0, disk_free_gb=2.0)
    before = {table: bits(stored(tmp_path, table)) for table in (*OWNED, "rows")}
    frees = iter([1, 1, *[3] * 100])  # low until the journal was trimmed [GB]

    pruning = Pruning(
        Home(tmp_path),
        lake=Lake(str(tmp_path / "lake")),
        settings=settings,
        disk=lambda _: (next(frees) * 10**9, 10**12),
    )
    pruned = pruning.prune()

    assert (pruned.decisions, pruned.trimmed) == (0, 16)
    assert {table: bits(stored(tmp_path, table)) for table in before} == before
    assert journal_counts(run.path)["decisions"] == 8
    assert JournalReader(run.journal_path).meta("lake_only_ns") == str(instant(7))
    assert not (tmp_path / "archive").exists()
    assert not list((tmp_path / "retention").rglob("*.json"))


def test_a_disk_that_stays_low_loses_the_lowest_values_without_an_archive(tmp_path: Path) -> None:
    made(tmp_path, ordered=(7,))
    settings = Storage(audit_share=0.0, disk_free_pct=0.0, disk_free_gb=2.0)
    low = 2 * 10**9 - 1000  # the tenth above the watermark is missing: all that may go, goes

    pruned = prune(tmp_path, settings, free=(low, 10**12))

    kept = {SYMBOLS[0]: [7, 8, 9, 10, 11], SYMBOLS[1]: [8, 9, 10, 11]}
    assert seconds(stored(tmp_path, "packages")) == kept
    assert pruned.reasons == {"disk": 15}
    assert set(pruned.alerts) == {"DiskLow", "EvictedByValue", "RetentionBlocked"}
    assert str(tmp_path / "retention" / "removed") in pruned.alerts["EvictedByValue"]
    assert not (tmp_path / "archive").exists()


def test_a_low_disk_asks_for_no_more_than_it_needs(tmp_path: Path) -> None:
    made(tmp_path)
    settings = Storage(audit_share=0.0, disk_free_pct=0.0, disk_free_gb=1e-4)

    said = prune(tmp_path, settings, free=(10**5 - 1, 10**12), dry_run=True)

    assert 0 < said.decisions < 16  # some are enough for 10 kB
    assert said.reasons == {"disk": said.decisions}


def alive(path: Path) -> int:
    """Return what is alive in the lake and the journal of a home [bytes]."""
    journal = JournalReader(path / "runs" / "1" / "journal.sqlite")
    stock = take_stock(Lake(str(path / "lake")), [journal], audit_share=0.0)
    journal.close()
    return int(stock.candidates.bytes_N.sum()) + stock.other_bytes


def test_bytes_alive_stay_below_their_limit(tmp_path: Path) -> None:
    made(tmp_path)
    limit = int(alive(tmp_path) * 0.9)

    pruned = prune(tmp_path, Storage(max_bytes=limit, audit_share=0.0))

    assert pruned.missed == {}
    assert 0 < pruned.decisions <= 16
    assert set(pruned.reasons) == {"bytes"}
    assert alive(tmp_path) <= limit


def test_queries_meanwhile_find_each_row_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=KEEP_8)
    fill(history, run, seconds=12, answered=8)
    before = asyncio.run(history.query(Query()))
    done, answers = threading.Event(), []

    def ask() -> None:
        reading = InferenceHistory(home, settings=Storage())
        while not done.is_set() or not answers:
            answers.append(asyncio.run(reading.query(Query()))["id"].tolist())
        reading.close()

    asking = threading.Thread(target=ask)
    asking.start()
    asyncio.run(history.prune())
    done.set()
    asking.join()
    after = asyncio.run(history.query(Query()))["id"].tolist()
    history.close()

    assert len(after) == 24
    for ids in answers:
        assert len(ids) == len(set(ids))
        assert set(after) <= set(ids) <= set(before["id"])


def test_what_is_left_is_followed_as_before(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=KEEP_8)
    fill(history, run, seconds=12, answered=8)
    before = asyncio.run(history.follow(Cursor(), 100)).events

    asyncio.run(history.prune())
    after = asyncio.run(history.follow(Cursor(), 100)).events
    history.close()

    left = [e for e in before if isinstance(e, ShownBar) or e.event_ns >= instant(8)]
    assert repr(after) == repr(tuple(left))


def test_a_run_without_its_folder_is_evicted_from_the_lake(tmp_path: Path) -> None:
    run = made(tmp_path)
    shutil.rmtree(run.path)

    pruned = prune(tmp_path)

    assert pruned.decisions == 16
    assert seconds(stored(tmp_path, "packages")) == {s: [8, 9, 10, 11] for s in SYMBOLS}


def test_the_oldest_run_leaves_first_and_its_newest_decision_stays(tmp_path: Path) -> None:
    first = made(tmp_path, seconds=4, answered=4)
    second = made(tmp_path, seconds=4, answered=4)

    prune(tmp_path, Storage(max_decisions=2, audit_share=0.0))

    left = Counter(stored(tmp_path, "packages")["run"].to_pylist())
    assert left == {first.id: 2, second.id: 2}


def test_a_look_is_due_with_a_limit_at_once_and_then_by_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    watched = {"disk_free_pct": 0.0, "disk_free_gb": 0.0}
    without = InferenceHistory(home, run=run, settings=Storage(**watched))
    limited = InferenceHistory(home, run=run, settings=replace(KEEP_8, **watched))

    before = (without.prune_due(), limited.prune_due())
    asyncio.run(limited.prune())
    after = limited.prune_due()
    without.close()
    limited.close()

    assert (before, after) == ((False, True), False)


def test_counters_say_what_the_newest_look_came_to(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = start(home)
    history = InferenceHistory(home, run=run, settings=replace(KEEP_8, max_decisions=3))
    fill(history, run, seconds=12, answered=8)

    asyncio.run(history.prune())
    found = history.counters()
    history.close()

    assert (found["pruned"], found["retention_blocked"], found["archive_down"]) == (16, 1, 0)
    codes = [alert.code for alert in store_alerts(found, event_ns=7)]
    assert codes == ["RetentionBlocked"]


def test_the_command_prunes_a_stopped_home_and_refuses_a_running_one(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "config.toml").write_text("[storage]\nmax_decisions = 8\naudit_share = 0.0\n")
    asked = [sys.executable, "-m", "alphapulse.cli", "history", "prune", "--json"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        command = [*asked, "--home", str(tmp_path), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with Home(tmp_path).lock():
        refused, said = call(), call("--dry-run")
    done = call()

    assert refused.returncode != 0
    assert json.loads(refused.stdout)["error"] == "HomeInUse"
    assert json.loads(said.stdout)["decisions"] == json.loads(done.stdout)["decisions"] == 16
    assert seconds(stored(tmp_path, "packages")) == {s: [8, 9, 10, 11] for s in SYMBOLS}


def test_recorded_inputs_are_rebuilt_from_what_is_kept_and_from_the_archive(
    recordings: Path, tmp_path: Path
) -> None:
    home, settings = Home(tmp_path), Settings()
    begun = {"source": "recording", "recording": recordings.name, "content_hash": "as recorded"}
    run = home.open_run(**begun, settings=settings, checkpoints={}, fresh=False)
    history = InferenceHistory(home, run=run, settings=replace(KEEP_8, max_decisions=4))
    inputs = asyncio.run(replayed(recordings, history, run))
    said = asyncio.run(history.query(Query())).to_dict("records")
    times = sorted({row["event_ns"] for row in said})
    labels = [_label(row) for row in said if row["event_ns"] < times[-2]]
    labels += [_label(row) for row in said if row["event_ns"] == times[-2]][:1]
    asyncio.run(history.note("examples", labels))
    asyncio.run(history.flush())

    pruned = asyncio.run(history.prune())

    kept, gone = list(inputs)[-4:], list(inputs)[:-4]
    assert pruned.decisions == len(gone) == 8
    assert_rebuilt(history, {id_: inputs[id_] for id_ in (*kept, *gone)})
    shown = asyncio.run(history.show(gone[0]))
    assert shown is not None
    assert (shown.inference["id"], shown.problem) == (gone[0], "")
    history.close()
    archive = HistoryReader(runs=tmp_path / "nowhere", lake_uri=str(tmp_path / "archive"))
    for id_, rebuilt in archive.inputs(gone).items():
        assert rebuilt.content_hash == inputs[id_].content_hash
    archive.close()


def _label(row: dict[str, Any]) -> dict[str, Any]:
    second = (row["event_ns"] - instant(0)) // 10**9
    return example(second, row["model"], symbol=row["symbol"], run=row["run"], loss=1.0)
