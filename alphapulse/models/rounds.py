"""The table of training rounds: what was tried, on what evidence, and what became of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.learning import RoundState, TrainingRound

SCHEMA_VERSION = 1
_COLUMNS = [field.name for field in fields(TrainingRound)]
_KEY = "run = ? AND model = ? AND confirm_ns = ?"


class Rounds:
    """The table `rounds` of HOME/registry.sqlite, beside the models; several processes may use it.

    ```python
    rounds = Rounds(home.registry_path)
    if rounds.begin(round):  # exactly once a run, model and confirm_ns
        ...
        rounds.update(replace(round, state=RoundState.REJECTED, reason="..."))
    ```
    """

    def __init__(self, path: Path) -> None:
        """Open the table, new or not; raises StoreError if the file cannot be used."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._ask(
            "CREATE TABLE IF NOT EXISTS rounds (run TEXT NOT NULL, model TEXT NOT NULL, "
            "confirm_ns INTEGER NOT NULL, trigger TEXT NOT NULL, state TEXT NOT NULL, "
            "champion TEXT NOT NULL, challenger TEXT NOT NULL, num_train INTEGER NOT NULL, "
            "num_compared INTEGER NOT NULL, figures TEXT NOT NULL, reason TEXT NOT NULL, "
            "job TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT NOT NULL, "
            "live_ns INTEGER, schema_version INTEGER NOT NULL, "
            "PRIMARY KEY (run, model, confirm_ns))"
        )

    def begin(self, round: TrainingRound) -> bool:
        """Add `round`; False if the run had one of this model and `confirm_ns` already."""
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        row = (*_values(round), SCHEMA_VERSION)
        return self._change(f"INSERT OR IGNORE INTO rounds VALUES ({marks})", row) == 1

    def update(self, round: TrainingRound) -> None:
        """Replace what is known of a round that was begun.

        Raises StoreError if it was not begun, or if it has another verdict already.
        """
        assigned = ", ".join(f"{name} = ?" for name in _COLUMNS)
        free = "state IN (?, ?)"  # a verdict never changes, what follows from it may be added
        changed = self._change(
            f"UPDATE rounds SET {assigned} WHERE {_KEY} AND {free}",
            (*_values(round), *_key(round), RoundState.RUNNING.value, round.state.value),
        )
        if not changed:
            had = self.get(round.run, round.model, round.confirm_ns)
            raise StoreError(
                f"{self._path}: round {_key(round)}: expected one that runs or is "
                f"{round.state}, was {had.state if had else 'none'}; "
                "begin it first, and leave a verdict as it is"
            )

    def get(self, run: str, model: str, confirm_ns: int) -> TrainingRound | None:
        """Return one round, None if there is none."""
        found = self._rounds(f"WHERE {_KEY}", (run, model, confirm_ns))
        return found[0] if found else None

    def all(self, run: str | None = None, *, limit: int | None = None) -> list[TrainingRound]:
        """Return the rounds of a run, or of all, oldest first; `limit`: the newest."""
        where, values = ("WHERE run = ?", [run]) if run else ("", [])
        newest = self._rounds(f"{where} ORDER BY rowid DESC LIMIT ?", (*values, limit or -1))
        return newest[::-1]

    def running(self, run: str) -> TrainingRound | None:
        """Return the round of `run` that is under way, the oldest if there are several."""
        found = self._rounds(
            "WHERE run = ? AND state = ? ORDER BY rowid LIMIT 1", (run, RoundState.RUNNING.value)
        )
        return found[0] if found else None

    def _rounds(self, clauses: str, values: tuple[Any, ...]) -> list[TrainingRound]:
        rows = self._ask(f"SELECT {', '.join(_COLUMNS)} FROM rounds {clauses}", values)
        return [_round(row) for row in rows]

    def _ask(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(self._open()) as db, db:
                return db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        try:
            with closing(self._open()) as db, db:
                return db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10.0)

    def _broken(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"{self._path}: {error}; make it writable by this user, free space, or restore it "
            "from a backup"
        )


def _key(round: TrainingRound) -> tuple[str, str, int]:
    return round.run, round.model, round.confirm_ns


def _values(round: TrainingRound) -> tuple[Any, ...]:
    plain = asdict(round)
    plain["state"] = round.state.value
    plain["figures"] = json.dumps(dict(round.figures), sort_keys=True)
    return tuple(plain[name] for name in _COLUMNS)


def _round(row: tuple[Any, ...]) -> TrainingRound:
    plain = dict(zip(_COLUMNS, row, strict=True))
    state, figures = RoundState(plain.pop("state")), json.loads(plain.pop("figures"))
    return TrainingRound(state=state, figures=figures, **plain)
