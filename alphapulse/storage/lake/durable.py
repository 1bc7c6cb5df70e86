"""Bring a lake's tables to the disk before what they replace goes: deltalake itself never does."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.object_store import is_object_store

VERSION_DIGITS = 20  # that a file of a table's log begins with


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, would survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        for path in files:
            sync(path)
        folders = {f for path in files for f in path.parents if f.is_relative_to(root)}
        for folder in sorted({root.parent, *folders}, reverse=True):
            sync(folder)


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
    commits = [
        log / f"{number:0{VERSION_DIGITS}}.json" for number in range(at + 1, delta.version() + 1)
    ]
    hints = [log / "_last_checkpoint"] if checkpoints else []
    return [*checkpoints[-1:], *hints, *commits]
