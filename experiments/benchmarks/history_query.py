"""How long do an hour, a day and the newest outputs of a long history take to find?

The history is filled with the decisions of a recorded window, said again at other instants: load,
not a market anybody is shown. Inputs are left out of it, no query here reads them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alphapulse.domain.inference import DecisionRecord
from alphapulse.domain.market import SECOND_NS, Timeframe
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from experiments.benchmarks import history_find
from experiments.benchmarks.history_records import INSTRUMENTS, SETTINGS, Collected, new_run
from experiments.benchmarks.peer import best_of, in_turn, ms_row
from experiments.benchmarks.result import Row

QUERY_GOAL, LAST_GOAL = 0.66, 0.33  # TARGETS.md, history
RECENT_MS, LAST_MS = 2.0, 1.0
EVERY_NS = 6 * SECOND_NS  # between two decisions of a symbol: a million inferences in eleven days
HOUR_NS, DAY_NS = 3600 * SECOND_NS, 86_400 * SECOND_NS
START_NS = 1_722_470_400 * SECOND_NS  # 2024-08-01
AT_ONCE = 1_000  # decisions an append
SYMBOL, TIMEFRAME = INSTRUMENTS[0].symbol, Timeframe.M1.value
ENGINES = ("duckdb", "polars", "pyarrow")
LOOPS = 20  # of a question that takes far less than a millisecond, a run


def rows(collected: Collected, folder: Path, *, inferences: int, runs: int) -> list[Row]:
    """Return `query_1h`, `query_1h_recent`, `query_1d`, `last_of_model` and `find_by_id`."""
    home, moved_ns = asyncio.run(filled(collected, folder / "million", inferences))
    end_ns = asyncio.run(newest(home)) + 1
    history = InferenceHistory(home, run=home.runs()[-1], settings=SETTINGS.storage)
    past_ns = START_NS + (moved_ns - START_NS) // HOUR_NS // 2 * HOUR_NS
    day_ns = past_ns // DAY_NS * DAY_NS
    found = [
        lake_row("query_1h", history, home, past_ns, past_ns + HOUR_NS, runs=runs),
        lake_row("query_1d", history, home, day_ns, day_ns + DAY_NS, runs=runs),
        recent_row(history, folder, end_ns - HOUR_NS, end_ns, runs=runs),
        last_row(history, folder, runs=runs),
    ]
    history.close()
    return [*found, *history_find.rows(home, past_ns, folder, runs=runs)]


async def filled(collected: Collected, folder: Path, inferences: int) -> tuple[Home, int]:
    """Return a home with that many inferences and until when [ns UTC] they are in the lake.

    The hour after that is in the journal alone. One that is there already is used again.
    """
    home = Home(folder)
    num_models = len(collected.records[0].decision.predictions)
    num_instants = inferences // num_models // len(INSTRUMENTS)
    moved_ns = START_NS + num_instants * EVERY_NS
    if home.runs_path.exists():
        return home, moved_ns
    run = new_run(home)
    history = InferenceHistory(home, run=run, settings=SETTINGS.storage)
    instants = range(START_NS, moved_ns, EVERY_NS)
    for records in repeated(collected, run, instants):
        await history.append(records)
        if history.flush_due():
            await history.flush()
    await history.flush()
    for records in repeated(collected, run, range(moved_ns, moved_ns + HOUR_NS, EVERY_NS)):
        await history.append(records)
    history.close()
    return home, moved_ns


def repeated(
    collected: Collected, run: Run, instants: Sequence[int]
) -> Iterator[list[DecisionRecord]]:
    """Yield the recorded decisions in turn, said again at `instants` [ns UTC]."""
    num_symbols = len(INSTRUMENTS)
    thin = [without_input(record) for record in collected.records]
    batch: list[DecisionRecord] = []
    for i, at_ns in enumerate(instants):
        begin = i * num_symbols % len(thin)
        batch.extend(at(record, run, at_ns) for record in thin[begin : begin + num_symbols])
        if len(batch) >= AT_ONCE:
            yield batch
            batch = []
    yield batch


def without_input(record: DecisionRecord) -> DecisionRecord:
    """Return a record whose input showed nothing."""
    package = record.package
    nothing = replace(package, streams=(), peers_KP=np.zeros_like(package.peers_KP))
    return replace(record, package=nothing, rows=())


def at(record: DecisionRecord, run: Run, event_ns: int) -> DecisionRecord:
    """Return a record as if it had been made at another instant of another run."""
    decision = record.decision
    said = tuple(replace(prediction, event_ns=event_ns) for prediction in decision.predictions)
    return replace(
        record,
        run=run.id,
        package=replace(record.package, event_ns=event_ns),
        decision=replace(decision, event_ns=event_ns, predictions=said),
    )


async def newest(home: Home) -> int:
    """Return the newest instant of a home [ns UTC]."""
    history = InferenceHistory(home, settings=SETTINGS.storage)
    frame = await history.query(Query(table="predictions", symbol=SYMBOL, limit=1))
    history.close()
    return int(frame["event_ns"].iloc[-1])


def hour(from_ns: int, to_ns: int) -> Query:
    """Return the query of the forecasts of one symbol and timeframe."""
    return Query(
        table="predictions", symbol=SYMBOL, timeframe=TIMEFRAME, from_ns=from_ns, to_ns=to_ns
    )


def lake_row(
    name: str, history: InferenceHistory, home: Home, from_ns: int, to_ns: int, *, runs: int
) -> Row:
    """Return the time of a query the lake answers, beside the best engine on the same files."""
    query = hour(from_ns, to_ns)
    with asyncio.Runner() as loop:
        frame = loop.run(history.query(query))
        table, columns = home.path / "lake" / query.table, ",".join(frame.columns)
        asked = (columns, SYMBOL, TIMEFRAME, from_ns, to_ns)
        best, others = best_of(
            lambda: loop.run(asking(history, query)),
            "history_query",
            ENGINES,
            (table, *asked),
            runs=runs,
        )
    return ms_row(
        name, best, f">= {QUERY_GOAL:g} x the best of: {others}; {len(frame)} rows", goal=QUERY_GOAL
    )


# What a loop's `run` returns it also writes out (Python 3.11), which takes longer than to find it.
async def asking(history: InferenceHistory, query: Query) -> None:
    """Ask once."""
    await history.query(query)


async def asking_last(history: InferenceHistory) -> None:
    """Ask for the newest outputs, `LOOPS` times."""
    for _ in range(LOOPS):
        await history.last(SYMBOL)


def recent_row(
    history: InferenceHistory, folder: Path, from_ns: int, to_ns: int, *, runs: int
) -> Row:
    """Return the time of a query the journal answers, beside a SQLite table with an index."""
    query = hour(from_ns, to_ns)
    with asyncio.Runner() as loop:
        frame = loop.run(history.query(query))
        path = folder / "hour.sqlite"
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as db:
            everything = loop.run(history.query(Query(table="predictions", from_ns=from_ns)))
            everything.to_sql("hour", db, index=False)
            db.execute("CREATE INDEX asked ON hour (symbol, timeframe, event_ns)")
        timed = in_turn(
            lambda: loop.run(asking(history, query)),
            "history_sqlite",
            ("hour", path, SYMBOL, TIMEFRAME, from_ns, to_ns),
            runs=runs,
        )
    row = ms_row("query_1h_recent", timed, f"< {RECENT_MS:g} ms; {len(frame)} rows", goal=0)
    return replace(row, met=row.value < RECENT_MS)


def last_row(history: InferenceHistory, folder: Path, *, runs: int) -> Row:
    """Return the time of the newest outputs of all models, beside a SQLite table of them."""
    with asyncio.Runner() as loop:
        last = loop.run(history.last(SYMBOL))
        path = folder / "last.sqlite"
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as db:
            db.execute(
                "CREATE TABLE last (symbol, model, version, event_ns, action, p_buy, p_sell, "
                "p_hold, confidence, utility_r, hidden, forecasts, PRIMARY KEY (symbol, model)) "
                "WITHOUT ROWID"
            )
            db.executemany(
                "INSERT INTO last VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        *(p.symbol, p.model, p.version, p.event_ns, p.action.value, p.p_buy),
                        *(p.p_sell, p.p_hold, p.confidence, p.utility_r, p.hidden_H.tobytes()),
                        repr(p.forecasts),
                    )
                    for p in last
                ),
            )
        timed = in_turn(
            lambda: loop.run(asking_last(history)),
            "history_sqlite",
            (f"last*{LOOPS}", path, SYMBOL),
            runs=runs,
        )
    row = ms_row(
        "last_of_model",
        timed,
        f">= {LAST_GOAL:g} x the peer, rows as stored, and < {LAST_MS:g} ms; {LOOPS} times a run",
        goal=LAST_GOAL,
        times=LOOPS,
    )
    return replace(row, met=row.met and row.value < LAST_MS)
