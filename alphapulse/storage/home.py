"""A home: the folder that holds everything AlphaPulse keeps, and the runs inside."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from alphapulse.config import Settings
from alphapulse.domain.errors import HomeInUse, StoreError
from alphapulse.storage.journal import JournalReader

MANIFEST_VERSION = 1
_SOURCE_TREE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a run was started from; it never changes.

    Attributes:
        number: of the run in its home, from 1.
        id: the same for every home that starts the same run: see `run_id`.
        source: `recording` or `live`.
        recording: name of the recording, empty for a live source.
        content_hash: of the recording's content, or of the live venue and instruments.
        config: all settings.
        config_hash: of those that can change a decision.
        checkpoints: starting checkpoint id by model.
        seed: of every random choice.
        commit: of the source tree, empty outside one.
        lock_hash: sha256 of the requirement locks, empty without them.
        created_at: wall clock, ISO-8601 Z.
    """

    number: int
    id: str
    schema_version: int
    source: str
    recording: str
    content_hash: str
    config: Mapping[str, Any]
    config_hash: str
    checkpoints: Mapping[str, str]
    seed: int
    commit: str
    lock_hash: str
    created_at: str


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
        try:
            manifest = Manifest(**json.loads((path / "manifest.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path / 'manifest.json'}: expected the manifest of run {path.name}, was {error!r}; restore the file "
                f"from a backup, or move the folder {path} out of the home"
            ) from None
        if manifest.schema_version != MANIFEST_VERSION or str(manifest.number) != path.name:
            raise StoreError(
                f"{path / 'manifest.json'}: expected schema version {MANIFEST_VERSION} and number {path.name}, was "
                f"{manifest.schema_version} and {manifest.number}; use the AlphaPulse version that wrote it, "
                f"or move the folder {path} out of the home"
            )
        return cls(path, manifest)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder `user_data/`: config.toml token registry.sqlite runs/<n>/ lake/ checkpoints/ mlflow/ logs/.

    ```python
    home = Home(Path("user_data"))
    with home.lock():
        run = home.open_run(source="recording", recording=..., content_hash=..., settings=..., checkpoints=..., fresh=False)
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
                    f"{self.path} is in use by {holder}; stop it with `alphapulse down`, or choose another home"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} since {_now()}\n")
            file.flush()
            yield

    def token(self) -> str:
        """Return the token every HTTP route asks for, made at the first call and readable by this user only."""
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
        """Return the newest run if it has this source, content and configuration, else (or if `fresh`) a new one.

        A run that goes on keeps the starting checkpoints of its manifest; `checkpoints` start a new one.
        Raises StoreError if a manifest is damaged or a new one cannot be written.
        """
        runs = self.runs()
        wanted = (source, content_hash, settings.hash)
        if runs and not fresh:
            newest = runs[-1].manifest
            if (newest.source, newest.content_hash, newest.config_hash) == wanted:
                return runs[-1]
        number = runs[-1].number + 1 if runs else 1
        manifest = Manifest(
            number=number,
            id=run_id(source, content_hash, settings.hash, checkpoints=checkpoints, number=number),
            schema_version=MANIFEST_VERSION,
            source=source,
            recording=recording,
            content_hash=content_hash,
            config=settings.as_dict(),
            config_hash=settings.hash,
            checkpoints=dict(checkpoints),
            seed=settings.training.seed,
            commit=_commit(),
            lock_hash=_lock_hash(),
            created_at=_now(),
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
            with (unborn / "manifest.json").open("w") as file:
                json.dump(asdict(manifest), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            unborn.rename(path)
        return Run(path, manifest)

    def _made(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path


def run_id(
    source: str, content_hash: str, config_hash: str, *, checkpoints: Mapping[str, str], number: int
) -> str:
    """Return the id of a run: the first 16 hex digits of sha256 over the canonical JSON of what it starts from."""
    origin = {"source": source, "content_hash": content_hash, "config_hash": config_hash}
    identity = origin | {"checkpoints": dict(checkpoints), "number": number}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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
            f"{path}: {error}; make the home writable by this user, free space, or choose another home"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _commit() -> str:
    if not (_SOURCE_TREE / ".git").exists():
        return ""
    asked = subprocess.run(
        ["git", "-C", str(_SOURCE_TREE), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _lock_hash() -> str:
    locks = sorted((_SOURCE_TREE / "requirements").glob("*.txt"))
    return (
        hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest() if locks else ""
    )
