"""How long does one inference of a long history take to find by its id?

The lake is as upkeep leaves it: a file a day and symbol, but for the newest days.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from alphapulse.domain.market import SECOND_NS
from alphapulse.interfaces import Query
from alphapulse.storage.asking.identities import located
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.showing import show
from alphapulse.storage.home import Home
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.upkeep import Upkeep
from experiments.benchmarks.history_records import INSTRUMENTS
from experiments.benchmarks.peer import best_of, ms_row, seconds
from experiments.benchmarks.result import Row

TABLE = "inferences"
MINUTE_NS = 60 * SECOND_NS
ENGINES = ("duckdb", "polars", "pyarrow")


def rows(home: Home, past_ns: int, folder: Path, *, runs: int) -> list[Row]:
    """Return `find_by_id`: of an inference said at about `past_ns`, which the lake has."""
    kept = joined(home, folder / "joined")
    table = kept.path / "lake" / TABLE
    reader = HistoryReader(runs=kept.path / "runs", lake_uri=str(table.parent))
    some = Query(table=TABLE, symbol=INSTRUMENTS[0].symbol, limit=1)
    newest = str(reader.query(some).id[0])
    old = str(reader.query(replace(some, from_ns=past_ns, to_ns=past_ns + MINUTE_NS)).id[0])
    best, others = best_of(
        lambda: located(reader, [old]), "history_find", ENGINES, (table, old), runs=runs
    )
    newest_ms = median_ms(lambda: located(reader, [newest]), runs=runs)
    shown_ms = median_ms(lambda: show(reader, old), runs=runs)
    reader.close()
    goal = f"report: beside {others}; the newest {newest_ms:.3g} ms; shown {shown_ms:.3g} ms"
    return [ms_row("find_by_id", best, goal, goal=0)]


def joined(home: Home, folder: Path) -> Home:
    """Return a home with the same journals and a lake whose inferences upkeep has joined."""
    if not folder.exists():
        lake = folder / "lake"
        shutil.copytree(home.path / "lake" / TABLE, lake / TABLE)
        (folder / "runs").symlink_to(home.runs_path.absolute())
        upkeep = Upkeep(Lake(str(lake)))
        while upkeep.step():
            pass
    return Home(folder)


def median_ms(run: Callable[[], object], *, runs: int) -> float:
    """Return the median time of a question [ms], asked once before."""
    return statistics.median([seconds(run) for _ in range(runs + 1)][1:]) * 1e3
