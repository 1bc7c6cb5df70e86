"""A home: the folder that holds everything AlphaPulse keeps, and the runs inside."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from alphapulse.config import Settings
from alphapulse.domain.errors import HomeInUse, StoreError
from alphapulse.storage.run import Manifest, Run, new_manifest, now, run_id, write_manifest

__all__ = ["Home", "Run", "run_id"]

LOCK_TRIES = 4
LOCK_PAUSE_S = 0.02  # between two tries [s]


@dataclass(frozen=True, slots=True)
class Home:
    """The folder `user_data/`, and what is where in it.

    `config.toml token registry.sqlite runs/<n>/ lake/ checkpoints/ mlflow/ logs/`

    ```python
    home = Home(Path("user_data"))
    with home.lock():
        run = home.open_run(source="recording", fresh=False, ...)
    ```
    """

    path: Path

    @property
    def runs_path(self) -> Path:
        """Return the folder of the runs."""
        return self.path / "runs"

    @property
    def checkpoints_path(self) -> Path:
        """Return the folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def registry_path(self) -> Path:
        """Return the registry of models."""
        return self.path / "registry.sqlite"

    @property
    def backtests_path(self) -> Path:
        """Return the folder of the backtests' ledgers."""
        return self.path / "backtests"

    @property
    def control_path(self) -> Path:
        """Return the wishes of people: what is to run."""
        return self.path / "control.sqlite"

    @property
    def logs_path(self) -> Path:
        """Return the folder of the logs."""
        return self.path / "logs"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for this process; the lock ends with the process, however it ends.

        Raises HomeInUse if another process holds it.
        """
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+")
        with file:
            self._take(file)
            yield

    def _take(self, file: TextIO) -> None:
        if not _flocked(file, fcntl.LOCK_EX):
            file.seek(0)
            raise HomeInUse(
                f"{self.path} is in use by {file.read().strip() or 'another process'}; "
                "stop it with `alphapulse down`, or choose another home"
            )
        with _writing(self.path):
            file.truncate(0)
            file.write(f"process {os.getpid()} since {now()}\n")
            file.flush()

    def holder(self) -> int | None:
        """Return the process that holds the home, None if it is free."""
        try:
            file = (self.path / "lock").open()
        except FileNotFoundError:
            return None
        with file:
            if _flocked(file, fcntl.LOCK_SH):
                return None
            said = file.read().split()
        return int(said[1]) if len(said) > 1 else None

    def announce(self, facts: Mapping[str, Any]) -> None:
        """Write down how others reach the process that holds the home."""
        path = self.path / "up.json"
        with _writing(path):
            path.with_suffix(".new").write_text(json.dumps(facts, indent=2))
            path.with_suffix(".new").replace(path)

    def announcement(self) -> dict[str, Any] | None:
        """Return what was announced last, None if nothing was; its writer may be gone."""
        try:
            facts: dict[str, Any] = json.loads((self.path / "up.json").read_text())
        except FileNotFoundError:
            return None
        return facts

    def token(self) -> str:
        """Return the token HTTP routes ask for, made at the first call, for this user only."""
        path = self.path / "token"
        with _writing(path):
            if not path.exists():
                self.path.mkdir(parents=True, exist_ok=True)
                _write_once(path, secrets.token_urlsafe(32))
            token = path.read_text().strip()
        if not token:
            raise StoreError(
                f"{path}: expected a token, was empty; remove the file and start again"
            )
        return token

    def runs(self) -> list[Run]:
        """Return every run, oldest first; raises StoreError if a manifest is missing or damaged."""
        if not self.runs_path.exists():
            return []
        numbers = sorted(
            int(path.name) for path in self.runs_path.iterdir() if path.name.isdecimal()
        )
        return [self.run(number) for number in numbers]

    def run(self, number: int) -> Run:
        """Return a run by its number; raises StoreError if it is missing or damaged."""
        return Run.read(self.runs_path / str(number))

    def open_run(
        self,
        *,
        source: str,
        recording: str,
        content_hash: str,
        settings: Settings,
        checkpoints: Mapping[str, str],
        fresh: bool,
    ) -> Run:
        """Return the newest run if it has this source, content and config, else a new one.

        `fresh` asks for a new one. A run that goes on keeps its manifest's starting checkpoints.
        Raises StoreError if a manifest is damaged or a new one cannot be written.
        """
        runs = self.runs()
        wanted = (source, content_hash, settings.hash)
        if runs and not fresh:
            newest = runs[-1].manifest
            if (newest.source, newest.content_hash, newest.config_hash) == wanted:
                return runs[-1]
        number = runs[-1].number + 1 if runs else 1
        manifest = new_manifest(
            number,
            source=source,
            recording=recording,
            content_hash=content_hash,
            settings=settings,
            checkpoints=checkpoints,
        )
        return self._start(manifest)

    def _start(self, manifest: Manifest) -> Run:
        path = self.runs_path / str(manifest.number)
        unborn = self.runs_path / f".{manifest.number}"  # a kill leaves no half a run
        with _writing(path):
            shutil.rmtree(unborn, ignore_errors=True)
            unborn.mkdir(parents=True)
            write_manifest(unborn, manifest)
            unborn.rename(path)
        return Run(path, manifest)


def _flocked(file: TextIO, kind: int) -> bool:
    for _ in range(LOCK_TRIES):  # a glance of `holder` may be in the way for a moment
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def _write_once(path: Path, content: str) -> None:
    unborn = path.with_name(f".{path.name}.{os.getpid()}")
    unborn.unlink(missing_ok=True)
    with os.fdopen(os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(unborn)  # whole or not at all; a process that came first keeps its own
    except FileExistsError:
        pass
    finally:
        unborn.unlink()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error}; make it writable by this user, free space, or choose another home"
        ) from error
