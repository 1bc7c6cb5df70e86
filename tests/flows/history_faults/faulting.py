"""Disks that fail on order: by calls that a preloaded shim lets fail, or by having no room."""

from __future__ import annotations

import errno
import mmap
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum, auto
from pathlib import Path
from typing import NoReturn

import numpy as np

_SOURCE = Path(__file__).with_name("disk_faults.c")
_ORDERS, _FOLDER = "DISK_FAULTS_ORDERS", "DISK_FAULTS_FOLDER"
DISK_MB = 48  # holds what fifteen writers leave
LEFT_KB = 512  # at most, on a disk that is full


class Call(IntEnum):
    """Kinds of system calls, numbered as in disk_faults.c."""

    CREATE = 0  # a file
    OPEN = auto()  # one that is there
    WRITE = auto()
    SYNC = auto()
    RESIZE = auto()
    RENAME = auto()  # and link
    MKDIR = auto()
    READ = auto()
    UNLINK = auto()


FAILING = {  # a full disk refuses what needs room, a broken one anything
    "enospc": (Call.CREATE, Call.WRITE, Call.RENAME, Call.MKDIR),
    "eio": tuple(Call),
}
# as in disk_faults.c
_ARMED, _ERROR, _KINDS, _SKIP, _CHANCE, _MOST, _DICE, _CUTS, _CALLS = range(9)
_FAULTS = _CALLS + len(Call)
_CUT = _FAULTS + len(Call)
_SIZE = 8 * (_CUT + 1)


class FailingCalls:
    """Calls of this process and its forks fail below one folder, by lot.

    `run_preloaded` started the process: see there.
    """

    def __init__(self, name: str) -> None:
        """Have calls fail with `enospc` or `eio`."""
        self._name = name
        with Path(os.environ[_ORDERS]).open("r+b") as file:
            self._orders = np.frombuffer(mmap.mmap(file.fileno(), _SIZE), np.int64)

    def arm(self, lot: random.Random) -> None:
        """Begin to fail: all calls after one, or a share of them; of one kind, or of all."""
        kinds = FAILING[self._name]
        self._orders[_DICE] = lot.getrandbits(62)
        self._orders[_CUTS] = lot.randint(0, 1)
        self.fail(
            (lot.choice(kinds),) if lot.random() < 0.5 else kinds,
            after=int(10 ** lot.uniform(0, 3)),
            share=lot.choice((1, 0.3, 0.03, 0.01)),
            most=lot.choice((1, 2, 5, 2**62, 2**62)),
        )

    def fail(
        self, kinds: Sequence[Call], *, after: int, share: float = 1, most: int = 2**62
    ) -> None:
        """Have a share of the calls of some kinds fail, after a number of them, so many at most."""
        self._orders[_ERROR] = getattr(errno, self._name.upper())
        self._orders[_KINDS] = sum(1 << call for call in kinds)
        self._orders[_SKIP] = after
        self._orders[_CHANCE] = int(2**31 * share)
        self._orders[_MOST] = most
        self._orders[_ARMED] = 1

    def heal(self) -> None:
        """Fail no longer."""
        self._orders[_ARMED] = 0

    def counts(self) -> dict[str, int]:
        """Return how many calls there were while armed and how many failed, by kind."""
        seen = {f"calls_{call.name.lower()}": int(self._orders[_CALLS + call]) for call in Call}
        failed = {f"faults_{call.name.lower()}": int(self._orders[_FAULTS + call]) for call in Call}
        return seen | failed | {"faults_write_in_part": int(self._orders[_CUT])}


class FullDisk:
    """A small file system of its own that is filled to the brim, and emptied again."""

    def __init__(self, folder: Path) -> None:
        """Mount it at `folder`, in the mount namespace `run_apart` gave this process."""
        self._folder = folder
        self._ballast = folder / "ballast"
        self._filled = 0
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
        subprocess.run(command, check=True)

    def arm(self, lot: random.Random) -> None:
        """Leave next to no room."""
        disk = os.statvfs(self._ballast.parent)
        left = lot.randint(0, LEFT_KB) * 1024 // disk.f_frsize
        size = max(disk.f_bavail - left, 1) * disk.f_frsize
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        self._filled += 1

    def heal(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """Return how often it was filled."""
        return {"times_filled": self._filled}

    def unmount(self) -> None:
        """Take it away; what was on it is gone."""
        subprocess.run(["umount", str(self._folder)], check=True)


def is_preloaded() -> bool:
    """Return whether this process can make its calls fail."""
    return _ORDERS in os.environ


def run_preloaded(command: Sequence[str], folder: Path) -> int:
    """Run a command whose calls below `folder` can be made fail, and return its exit code."""
    with tempfile.TemporaryDirectory() as beside:
        shim, orders = Path(beside) / "disk_faults.so", Path(beside) / "orders"
        build = ["gcc", "-O2", "-Wall", "-Werror", "-fPIC", "-shared", "-o", str(shim)]
        subprocess.run([*build, str(_SOURCE), "-ldl"], check=True)
        orders.write_bytes(bytes(_SIZE))
        variables = {"LD_PRELOAD": str(shim), _ORDERS: str(orders), _FOLDER: f"{folder}/"}
        return subprocess.run(command, env=os.environ | variables, check=False).returncode


def run_apart(command: Sequence[str]) -> NoReturn:
    """Become a command in a mount namespace of its own: what it mounts ends with it."""
    os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--mount", *command])


def can_run_apart() -> bool:
    """Return whether this machine lets its users have mount namespaces."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return sys.platform == "linux" and not subprocess.run(command, check=False).returncode
