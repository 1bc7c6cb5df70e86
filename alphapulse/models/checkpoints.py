"""Keep models on disk, weights beside their layout, and the registry of who is champion.

Nothing is unpickled. A checkpoint is a folder of two files, written beside its place and renamed
into it, so that it is there whole or not at all; its id is the hash of what it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from alphapulse.domain.errors import CheckpointError
from alphapulse.domain.inference import MODELS
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec

Weights = Mapping[str, npt.NDArray[Any]]

WEIGHTS_FILE = "weights.safetensors"
LAYOUT_FILE = "layout.json"
SCHEMA_VERSION = 1
REMEDY = "restore it from a backup, or remove the folder and run the first training again"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved: id, layout (plain JSON values) and weights by name."""

    id: str
    layout: Mapping[str, Any]
    weights: Weights


def checkpoint_id(layout: Mapping[str, Any], weights: Weights) -> str:
    """Return the first 16 hex digits of sha256 over the canonical layout and the weights' bytes."""
    return _id(_canonical(layout), _packed(weights))


def directory_of(home: Path, *, model: str, id: str) -> Path:
    """Return where HOME keeps the checkpoint `id` of `model`."""
    return home / "checkpoints" / f"{model}-{id}"


def save_checkpoint(directory: Path, *, layout: Mapping[str, Any], weights: Weights) -> str:
    """Write a checkpoint and return its id.

    A folder that already holds the same one is left as it is. Raises CheckpointError if `directory`
    holds anything else.
    """
    text, packed = _canonical(layout), _packed(weights)
    id = _id(text, packed)
    if directory.exists() and any(directory.iterdir()):
        if _is_intact(directory, id):
            return id
        raise CheckpointError(
            f"{directory}: expected an empty or new folder for checkpoint {id}, was one "
            "with other files; choose another folder or remove this one"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write(beside / WEIGHTS_FILE, packed)
        _write(beside / LAYOUT_FILE, json.dumps({"id": id, "layout": json.loads(text)}).encode())
        _sync(beside)
        beside.rename(directory)
        _sync(directory.parent)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return id


def load_checkpoint(directory: Path, *, model: str | None = None) -> Checkpoint:
    """Return what `directory` holds.

    Args:
        directory: folder of the checkpoint.
        model: name it must be of; None takes any.

    Raises:
        CheckpointError: files are missing or damaged, the model is another, or the input spec is.
    """
    try:
        kept = json.loads((directory / LAYOUT_FILE).read_bytes())
        packed = (directory / WEIGHTS_FILE).read_bytes()
        id, layout = str(kept["id"]), dict(kept["layout"])
        if _id(_canonical(layout), packed) != id:
            raise CheckpointError(
                f"{directory}: expected content {id}, was something else; {REMEDY}"
            )
        weights = safetensors.load(packed)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{directory}: expected a checkpoint ({WEIGHTS_FILE}, {LAYOUT_FILE}), was "
            f"{type(error).__name__}: {error}; {REMEDY}"
        ) from None
    _check_kin(directory, layout, model)
    return Checkpoint(id, layout, weights)


def _check_kin(directory: Path, layout: Mapping[str, Any], model: str | None) -> None:
    if layout.get("model") not in (MODELS if model is None else (model,)):
        raise CheckpointError(
            f"{directory}: expected a checkpoint of {model or ', '.join(MODELS)}, was "
            f"{layout.get('model')!r}; give the folder of that model"
        )
    own = tuple(layout.get("own", ()))
    expected = (INPUT_SPEC.version, InputSpec(own=own).content_hash)
    was = (layout.get("spec_version"), layout.get("spec_hash"))
    if was != expected:
        raise CheckpointError(
            f"{directory}: expected input spec {expected[0]} ({expected[1]}), was {was[0]} "
            f"({was[1]}); train this model again for the present inputs"
        )


def spec_of(checkpoint: Checkpoint) -> InputSpec:
    """Return the inputs a model was trained with."""
    return InputSpec(own=tuple(checkpoint.layout["own"]))


def _canonical(layout: Mapping[str, Any]) -> str:
    return json.dumps(layout, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _packed(weights: Weights) -> bytes:
    packed: bytes = safetensors.save(
        {k: np.ascontiguousarray(v) for k, v in sorted(weights.items())}
    )
    return packed


def _id(text: str, packed: bytes) -> str:
    return hashlib.sha256(text.encode() + b"|" + packed).hexdigest()[:16]


def _is_intact(directory: Path, id: str) -> bool:
    try:
        return load_checkpoint(directory).id == id
    except CheckpointError:
        return False


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the registry.

    Attributes:
        role: challenger until it answers, then champion; rejected by the verdict of its round, or
            retired once another champion took its place.
        data_hash: content hash of what it was trained on.
        config_hash: `Settings.training_hash` it was trained with.
        created_event_ns: newest event it may have learned from [ns UTC].
        metrics: losses by head, plain JSON values.
    """

    id: str
    model: str
    role: str
    data_hash: str
    config_hash: str
    created_event_ns: int
    metrics: Mapping[str, Any]


class Registry:
    """The table `models` of HOME/registry.sqlite: champions and challengers over all runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as db, db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS models (id TEXT NOT NULL, model TEXT NOT NULL, "
                "role TEXT NOT NULL, data_hash TEXT NOT NULL, config_hash TEXT NOT NULL, "
                "created_event_ns INTEGER NOT NULL, metrics TEXT NOT NULL, "
                "schema_version INTEGER NOT NULL, PRIMARY KEY (id, data_hash, config_hash))"
            )

    def register(self, entry: Entry) -> None:
        """Add `entry`, or give the same one its role; a new champion retires the one before it."""
        with closing(self._open()) as db, db:
            if entry.role == "champion":
                self._retire(db, entry.model)
            db.execute(
                "INSERT INTO models VALUES (?,?,?,?,?,?,?,?) "
                "ON CONFLICT DO UPDATE SET role = excluded.role",
                (
                    entry.id,
                    entry.model,
                    entry.role,
                    entry.data_hash,
                    entry.config_hash,
                    entry.created_event_ns,
                    json.dumps(entry.metrics, sort_keys=True),
                    SCHEMA_VERSION,
                ),
            )

    def promote(self, id: str) -> None:
        """Make `id` the champion of its model; raises CheckpointError if it is not registered."""
        self.set_role(id, "champion")

    def set_role(self, id: str, role: str) -> None:
        """Give `id` a role; a new champion retires the one before it.

        Raises CheckpointError if it is not registered.
        """
        with closing(self._open()) as db, db:
            row = db.execute("SELECT model FROM models WHERE id = ?", (id,)).fetchone()
            if row is None:
                raise CheckpointError(
                    f"{self._path}: expected a registered checkpoint, was {id!r}; register it first"
                )
            if role == "champion":
                self._retire(db, row[0])
            db.execute("UPDATE models SET role = ? WHERE id = ?", (role, id))

    def model_of(self, id: str) -> str:
        """Return which model a checkpoint is of; raises CheckpointError if it is not registered."""
        for entry in self.entries():
            if entry.id == id:
                return entry.model
        raise CheckpointError(
            f"{self._path}: expected a registered checkpoint, was {id!r}; "
            "see `alphapulse models list`"
        )

    def champion(self, model: str) -> str | None:
        """Return the id of the champion of `model`, None before the first."""
        with closing(self._open()) as db:
            row = db.execute(
                "SELECT id FROM models WHERE model = ? AND role = 'champion'", (model,)
            ).fetchone()
        return None if row is None else str(row[0])

    def entries(self) -> tuple[Entry, ...]:
        """Return every row, oldest first."""
        with closing(self._open()) as db:
            rows = db.execute(
                "SELECT id, model, role, data_hash, config_hash, created_event_ns, metrics "
                "FROM models ORDER BY rowid"
            ).fetchall()
        names = [field.name for field in fields(Entry)]
        kept = [dict(zip(names, row, strict=True)) for row in rows]
        return tuple(Entry(**entry | {"metrics": json.loads(entry["metrics"])}) for entry in kept)

    def find_first(self, data_hash: str, config_hash: str) -> dict[str, str] | None:
        """Return {model: id} of the first training on this data and these settings, if any."""
        found: dict[str, str] = {}
        for entry in self.entries():
            if (entry.data_hash, entry.config_hash) == (data_hash, config_hash):
                found.setdefault(entry.model, entry.id)
        return found if set(found) == set(MODELS) else None

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10.0)

    @staticmethod
    def _retire(db: sqlite3.Connection, model: str) -> None:
        db.execute(
            "UPDATE models SET role = 'retired' WHERE model = ? AND role = 'champion'", (model,)
        )
