"""Count what the history of a process took, moved and failed at, and what the last look found."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TypeVar

from alphapulse.domain.errors import StoreError
from alphapulse.domain.pruning import Pruned
from alphapulse.storage.alerts import StoreCode

LOOKED: Mapping[str, StoreCode] = {  # what the newest look at the limits came to
    "disk_low": StoreCode.DISK_LOW,
    "retention_blocked": StoreCode.RETENTION_BLOCKED,
    "archive_down": StoreCode.ARCHIVE_FAILED,
    "evicted_by_value": StoreCode.EVICTED_BY_VALUE,
}
COUNTED = (
    "appended",
    "repeated",
    "settled",
    "noted",
    "commits",
    "failures",
    "journal_down",
    "lake_down",
    "pruned",
    "trimmed",
    *LOOKED,
)  # what ends in `down` is 1 from a failure until it works again
_T = TypeVar("_T")


class Counters:
    """One number for each of COUNTED, from 0."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)

    def add(self, name: str, num: int) -> None:
        """Count `num` more."""
        self._counts[name] += num

    def looked(self, pruned: Pruned) -> None:
        """Keep what a look at the limits came to until the next one."""
        self.add("pruned", pruned.decisions)
        self.add("trimmed", pruned.trimmed)
        self._counts |= {name: int(code in pruned.alerts) for name, code in LOOKED.items()}
        self._counts["evicted_by_value"] = pruned.reasons.get("disk", 0)

    async def watch(self, down: str, work: Awaitable[_T]) -> _T:
        """Return what a work comes to, and let `down` say whether it failed; raises StoreError."""
        try:
            done = await work
        except StoreError:
            self.add("failures", 1)
            self._counts[down] = 1
            raise
        self._counts[down] = 0
        return done

    def plain(self) -> dict[str, int]:
        """Return all of them."""
        return dict(self._counts)
