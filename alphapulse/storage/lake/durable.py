"""Bring what a lake holds to the disk: deltalake itself never does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from alphapulse.storage.lake.object_store import is_object_store

if TYPE_CHECKING:
    from alphapulse.storage.lake.delta import Lake

VERSION_DIGITS = 20  # that a file of a table's log begins with


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, would survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def bring_commits_to_disk(
    folder: Path, versions: Iterable[int], *, sync: Callable[[Path], None] = sync
) -> None:
    """Return when commits of a table would survive a power failure, and the files they add.

    Half of one would make the whole table unreadable until a person has removed it.
    """
    commits = [_commit(folder, version) for version in versions]
    actions = [json.loads(line) for path in commits for line in path.read_text().splitlines()]
    added = [folder / unquote(action["add"]["path"]) for action in actions if "add" in action]
    _sync_all([*added, *commits], folder.parent, sync)


def bring_to_disk(
    lake: Lake,
    table: str,
    *,
    symbols: Collection[str] | None = None,
    days: Collection[str] | None = None,
    sync: Callable[[Path], None] = sync,
) -> None:
    """Return when a table in a folder would survive a power failure; an object store's does.

    Args:
        lake: of the table.
        table: its name; nothing is done before its first batch.
        symbols: whose files matter, None for all.
        days: of which days, None for all.
        sync: told each file, then each folder.

    Raises StoreError if a file cannot be read.
    """
    if is_object_store(lake.uri):
        return
    with lake.opened(table) as delta:
        if delta is None:
            return
        root = Path(lake.uri).absolute()
        files = [*_data(delta, root / table, symbols, days), *_log(delta, root / table)]
        _sync_all(files, root, sync)


def _sync_all(files: Sequence[Path], root: Path, sync: Callable[[Path], None]) -> None:
    """Sync files, then their folders up to the one that holds `root`."""
    for path in files:
        sync(path)
    folders = {f for path in files for f in path.parents if f.is_relative_to(root)}
    for folder in sorted({root.parent, *folders}, reverse=True):
        sync(folder)


def _commit(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:0{VERSION_DIGITS}}.json"


def _data(
    delta: DeltaTable,
    folder: Path,
    symbols: Collection[str] | None,
    days: Collection[str] | None,
) -> list[Path]:
    added = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    return [
        folder / unquote(file["path"])
        for file in added
        if (symbols is None or file["partition.symbol"] in symbols)
        and (days is None or file["partition.day"] in days)
    ]


def _log(delta: DeltaTable, folder: Path) -> list[Path]:
    """Return what the table is opened from: the newest checkpoint, and the commits after it."""
    log = folder / "_delta_log"
    checkpoints = sorted(log.glob("*.checkpoint*.parquet"))
    at = int(checkpoints[-1].name[:VERSION_DIGITS]) if checkpoints else -1
    commits = [_commit(folder, version) for version in range(at + 1, delta.version() + 1)]
    hints = [log / "_last_checkpoint"] if checkpoints else []
    return [*checkpoints[-1:], *hints, *commits]
