"""What a writer says of itself, in memory it shares with the one who kills it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, auto

import numpy as np
import numpy.typing as npt

CAPACITY = 1 << 16  # numbers of one history


class Phase(IntEnum):
    """What a writer is doing: in the journal, on the way to the lake, in the lake's upkeep."""

    IDLE = 0
    OPENING = auto()
    WRITING = auto()  # inside a transaction of the journal, before its COMMIT
    COMMITTING = auto()  # inside the COMMIT itself
    TAKING = auto()  # reads what the lake lacks
    NAMING = auto()  # makes the name of a batch durable
    CREATING = auto()  # makes a Delta table
    LAKE_COMMITTING = auto()
    COMPACTING = auto()
    CHECKPOINTING = auto()
    VACUUMING = auto()


JOURNAL = frozenset({Phase.OPENING, Phase.WRITING, Phase.COMMITTING})
LAKE = frozenset({Phase.TAKING, Phase.NAMING, Phase.CREATING, Phase.LAKE_COMMITTING})
UPKEEP = frozenset({Phase.COMPACTING, Phase.CHECKPOINTING, Phase.VACUUMING})
LANES = (JOURNAL, LAKE, UPKEEP)  # each has its own thread
INSIDE = frozenset({Phase.COMMITTING, Phase.NAMING, Phase.CREATING, Phase.LAKE_COMMITTING}) | UPKEEP


class Mark(IntEnum):
    """What became of a row a writer had: in this order, never back."""

    UNKNOWN = 0
    OFFERED = auto()
    ACKNOWLEDGED = auto()


class Kind(IntEnum):
    """What a writer hands to the history: one of each for every number."""

    DECISION = 0
    OUTCOME = auto()
    ORDER = auto()
    EXAMPLE = auto()
    TRAINING_ROUND = auto()
    ALERT = auto()


class Count(IntEnum):
    """What a writer counts of its own, over all its lives in one history."""

    REFUSED = 0  # calls of append, settle and note that raised StoreError
    REFUSED_FLUSHES = auto()
    REFUSED_OPENINGS = auto()
    STORED_THOUGH_REFUSED = auto()  # offered again after StoreError, and there already


class Board:
    """One writer's marks and phases; they outlive it, whatever ends it.

    Attributes:
        marks: a Mark by Kind and number.
        counts: by Count.
    """

    def __init__(self) -> None:
        sizes = (len(Kind) * CAPACITY, 8 * len(Count), 8 * len(Phase), 8, len(LANES))
        self._memory = mmap.mmap(-1, sum(sizes))
        marks, counts, entries, asked, phases = np.split(
            np.frombuffer(self._memory, np.uint8), np.cumsum(sizes)[:-1]
        )
        self.marks: npt.NDArray[np.uint8] = marks.reshape(len(Kind), CAPACITY)
        self.counts: npt.NDArray[np.int64] = counts.view(np.int64)
        self._entries: npt.NDArray[np.int64] = entries.view(np.int64)
        self._said = asked
        self._phases = phases

    def begin_life(self) -> None:
        """Forget the phases of the writer before; what was offered and acknowledged stays."""
        self._entries[:] = 0
        self._phases[:] = Phase.IDLE
        self._said[:] = 0

    def enter(self, phase: Phase) -> Phase:
        """Say that the writer is in `phase` from now on and return what it was in before."""
        before = self._phases[_lane(phase)]
        self._phases[_lane(phase)] = phase
        self._entries[phase] += 1
        return Phase(int(before))

    def leave(self, phase: Phase, *, to: Phase = Phase.IDLE) -> None:
        """Say that the writer left `phase`."""
        self._phases[_lane(phase)] = to

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Say that the writer is in `phase` until the block ends."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.leave(phase, to=before)

    def entries(self, phase: Phase) -> int:
        """Return how often this writer entered `phase`."""
        return int(self._entries[phase])

    def phases(self) -> list[Phase]:
        """Return what the writer does now, by lane."""
        return [Phase(phase) for phase in self._phases.tolist()]

    @property
    def is_healed(self) -> bool:
        """Return whether the writer was told that nothing fails any longer."""
        return bool(self._said[0])

    def say_healed(self) -> None:
        """Tell the writer that nothing fails any longer."""
        self._said[0] = 1

    @property
    def has_recovered(self) -> bool:
        """Return whether the writer got through all it was refused, and a flush, once healed."""
        return bool(self._said[1])

    def say_recovered(self) -> None:
        """Tell the other side so."""
        self._said[1] = 1

    def numbers(self, kind: Kind, mark: Mark) -> set[int]:
        """Return the numbers whose row of a kind bears at least a mark."""
        return set(np.flatnonzero(self.marks[kind] >= mark).tolist())


def _lane(phase: Phase) -> int:
    return next(i for i, phases in enumerate(LANES) if phase in phases)
