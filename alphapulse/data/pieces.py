"""Hold the pieces of a recording under way in a hidden folder, and finish it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alphapulse.data.segments import merge_pieces, sync_folder
from alphapulse.domain.errors import InvalidRequest, StoreError

PIECES = "pieces"
UNDER_WAY = ".recording"  # how the hidden folder's name ends


def finish(folder: Path) -> Path | None:
    """Make a recording of what a killed process left of `folder`, and return it.

    None if there was nothing to do: no such process, it still records, or it left nothing. It is
    whole or not there at any moment, and finishing again after a kill gives the same bytes.

    Raises InvalidRecording if a piece cannot be read, StoreError if the folder cannot be written.
    """
    nothing_to_do = FileNotFoundError, NotADirectoryError, BlockingIOError
    with suppress(*nothing_to_do), _locked(folder) as hidden:
        return finish_held(hidden, folder)
    return None


def finish_all(root: Path) -> list[Path]:
    """Finish every recording a killed process left in `root`, and return those it made."""
    left = sorted(root.glob(f".*{UNDER_WAY}")) if root.is_dir() else []
    folders = [finish(root / path.name[1:].removesuffix(UNDER_WAY)) for path in left]
    return [folder for folder in folders if folder is not None]


def finish_held(hidden: Path, folder: Path) -> Path | None:
    """Merge the pieces and give the folder its name; a kill in between leaves it to be redone."""
    pieces, spent = hidden / PIECES, hidden / ".spent"
    with writing(folder):
        if pieces.is_dir():
            # a piece still hidden was being written when the process was killed
            merge_pieces(sorted(pieces.glob("[0-9]*")), hidden)
            pieces.rename(spent)
            sync_folder(hidden)
        shutil.rmtree(spent, ignore_errors=True)
        if not any(hidden.glob("*.parquet")):
            shutil.rmtree(hidden)
            return None
        hidden.rename(folder)
        sync_folder(folder.parent)
    return folder


@contextmanager
def hold_new(folder: Path) -> Iterator[Path]:
    """Make the hidden folder of a new recording, hold it against other processes, and give it.

    Raises InvalidRequest if the recording is there, or somebody records it; StoreError if the
    folder cannot be made.
    """
    finish(folder)
    hidden = _hidden(folder)
    if folder.exists() or hidden.exists():
        raise InvalidRequest(
            f"{folder}: expected no such folder, is there or being recorded; name another"
        )
    with writing(folder):
        hidden.mkdir(parents=True)
    with _locked(folder):
        with writing(folder):
            (hidden / PIECES).mkdir()
        yield hidden


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    hidden = _hidden(folder)
    handle = os.open(hidden, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it with us
        yield hidden
    finally:
        os.close(handle)


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{UNDER_WAY}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of what is written to `path` into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: expected to be written, was {type(error).__name__}: {error}; make room or "
            "correct the folder; what came before is kept"
        ) from None
