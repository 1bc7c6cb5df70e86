"""A run: what it was started from, written once in its folder, and where its files are."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from alphapulse.config import Settings
from alphapulse.domain.errors import StoreError
from alphapulse.storage.journal.reader import JournalReader

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
        lock_hash: sha256 of the requirement lock, empty without one.
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
        return cls(path, _read_manifest(path))


def new_manifest(
    number: int,
    *,
    source: str,
    recording: str,
    content_hash: str,
    settings: Settings,
    checkpoints: Mapping[str, str],
) -> Manifest:
    """Return the manifest of a run that starts now."""
    return Manifest(
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
        commit=source_commit(),
        lock_hash=_lock_hash(),
        created_at=now(),
    )


def _read_manifest(folder: Path) -> Manifest:
    try:
        manifest = Manifest(**json.loads((folder / "manifest.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{folder / 'manifest.json'}: expected the manifest of run {folder.name}, was "
            f"{error!r}; restore the file from a backup, or move {folder} out of the home"
        ) from None
    if manifest.schema_version != MANIFEST_VERSION or str(manifest.number) != folder.name:
        raise StoreError(
            f"{folder / 'manifest.json'}: expected schema version {MANIFEST_VERSION} and number "
            f"{folder.name}, was {manifest.schema_version} and {manifest.number}; use the "
            f"AlphaPulse version that wrote it, or move the folder {folder} out of the home"
        )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into the folder of a run and wait for the disk."""
    with (folder / "manifest.json").open("w") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def run_id(
    source: str, content_hash: str, config_hash: str, *, checkpoints: Mapping[str, str], number: int
) -> str:
    """Return the id of a run: 16 hex digits of sha256 over what it starts from."""
    origin = {"source": source, "content_hash": content_hash, "config_hash": config_hash}
    identity = origin | {"checkpoints": dict(checkpoints), "number": number}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def now() -> str:
    """Return the wall clock, ISO-8601 Z."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def source_commit() -> str:
    """Return the commit of the source tree, empty outside one."""
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
    lock = _SOURCE_TREE / "requirements" / "lock.txt"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""
