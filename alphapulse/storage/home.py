"""A home: the folder that holds everything AlphaPulse keeps, and the runs inside."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alphapulse.config import Settings
from alphapulse.domain.errors import HomeInUse, StoreError
from alphapulse.storage.journal_reader import JournalReader
from alphapulse.storage.manifest import Manifest, new_manifest, now, read_manifest, write_manifest


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a home.

    Attributes:
        path: its folder, `runs/<number>`.
    """

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Return the id its rows carry."""
        return self.manifest.id

    @property
    def number(self) -> int:
        """Return its number in the home."""
        return self.manifest.number

    @property
    def journal_path(self) -> Path:
        """Return where its journal is."""
        return self.path / "journal.sqlite"

    @property
    def ended_ns(self) -> int | None:
        """Return the event time at which its source ended [ns UTC], None while it has not."""
        if not self.journal_path.exists():
            return None
        journal = JournalReader(self.journal_path)
        try:
            ended = journal.meta("ended_ns")
        finally:
            journal.close()
        return None if ended is None else int(ended)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the run in `path`; raises StoreError if its manifest is missing or damaged."""
        manifest = read_manifest(path)
        return cls(path, manifest)


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
    def logs_path(self) -> Path:
        """Return the folder of the logs."""
        return self.path / "logs"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for this process; the lock ends with the process, however it ends.

        Raises HomeInUse if another process holds it.
        """
        with _writing(self.path), (self._made() / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise HomeInUse(
                    f"{self.path} is in use by {holder}; stop it with `alphapulse down`, "
                    "or choose another home"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} since {now()}\n")
            file.flush()
            yield

    def token(self) -> str:
        """Return the token HTTP routes ask for, made at the first call, for this user only."""
        path = self.path / "token"
        with _writing(path):
            if not path.exists():
                self._made()
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
        return [Run.read(self.runs_path / str(number)) for number in numbers]

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
        unborn = (
            self.runs_path / f".{manifest.number}"
        )  # a kill before the rename leaves no half a run
        with _writing(path):
            shutil.rmtree(unborn, ignore_errors=True)
            unborn.mkdir(parents=True)
            write_manifest(unborn, manifest)
            unborn.rename(path)
        return Run(path, manifest)

    def _made(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path


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
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path}: {error}; make it writable by this user, free space, or choose another home"
        ) from error
