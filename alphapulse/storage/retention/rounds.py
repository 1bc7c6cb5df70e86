"""Keep on disk which round of eviction is under way, so that a killed one can be finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.storage.lake.durable import sync

Hull = tuple[str, str, str, int, int]  # run, symbol, stream, first and last instant of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What leaves in one piece.

    Attributes:
        id: names its commits in the archive.
        keys: instants of the decisions that leave [ns UTC], by run and symbol.
        archive: address it goes to first, empty for none.
        leaves_lake: whether it leaves the lake too, or only the journals.
        reasons: how many leave for which reason.
        hulls: where the rows are that they showed.
        is_removing: whether the archive holds it for certain, so that removing may have begun.
        begun_at: wall clock, ISO-8601 Z.
    """

    id: str
    keys: Mapping[str, Mapping[str, list[int]]]
    archive: str
    leaves_lake: bool
    reasons: Mapping[str, int]
    begun_at: str
    hulls: tuple[Hull, ...] = ()
    is_removing: bool = False

    def __len__(self) -> int:
        return sum(len(times) for of_run in self.keys.values() for times in of_run.values())


class Rounds:
    """The folder of rounds: one under way, and those whose decisions are in no archive.

    Attributes:
        folder: `retention` in a home.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "round.json"

    @property
    def removed_path(self) -> Path:
        """Return the folder with a file for each round that was removed without an archive."""
        return self.folder / "removed"

    def unfinished(self) -> Round | None:
        """Return the round under way; raises StoreError if its file is damaged."""
        try:
            content: dict[str, Any] = json.loads(self._path.read_bytes())
            hulls = tuple(tuple(hull) for hull in content.pop("hulls"))
            return Round(**content, hulls=hulls)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{self._path}: expected a round of eviction, was {error!r}; "
                "move the file away: nothing is lost, the next round plans afresh"
            ) from error

    def begin(self, round: Round) -> None:
        """Write down what is to leave, before anything is touched."""
        self._write(round)

    def removing(self, round: Round) -> Round:
        """Write down that removing begins, and return the round as it is now."""
        begun = replace(round, is_removing=True)
        self._write(begun)
        return begun

    def finish(self, round: Round) -> None:
        """Forget the round; its decisions stay listed if they left the history for no archive."""
        with _writing(self.folder):
            if round.leaves_lake and not round.archive:
                self.removed_path.mkdir(exist_ok=True)
                self._path.replace(self.removed_path / f"{round.id}.json")
                sync(self.removed_path)
            else:
                self._path.unlink()
            sync(self.folder)

    def undo(self) -> None:
        """Forget a round of which nothing was removed."""
        with _writing(self.folder):
            self._path.unlink(missing_ok=True)
            sync(self.folder)

    def _write(self, round: Round) -> None:
        unborn = self._path.with_suffix(".new")
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with unborn.open("w") as file:
                json.dump(asdict(round), file)
                file.flush()
                os.fsync(file.fileno())
            unborn.replace(self._path)
            sync(self.folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder}: {error}; make it writable by this user and free space on its disk; "
            "nothing was removed"
        ) from error
