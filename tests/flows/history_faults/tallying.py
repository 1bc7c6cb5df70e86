"""What a number of kills came to, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.flows.history_faults.board import INSIDE, JOURNAL, Board, Count, Kind, Mark, Phase

DEFECTS = ("lost", "doubled", "half", "altered", "strange", "unreadable", "died", "stuck")


@dataclass
class Tally:
    """Counts over many kills; `defects` has what must be zero."""

    kills: int = 0
    inside: int = 0
    in_lake: int = 0
    seconds: float = 0.0
    phases: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Return whether nothing was wrong."""
        return not self.defects.total()

    def add_kill(self, phases: list[Phase]) -> None:
        """Count a kill by what the writer did just then."""
        self.kills += 1
        self.inside += not INSIDE.isdisjoint(phases)
        self.in_lake += not (INSIDE - JOURNAL).isdisjoint(phases)
        self.phases["+".join(p.name.lower() for p in phases if p is not Phase.IDLE) or "idle"] += 1

    def add_found(self, found: dict[str, Any]) -> None:
        """Count what a check found."""
        self.defects.update({name: found[name] for name in DEFECTS if found.get(name)})
        self.counts["batches"] += found.get("batches", 0)
        self.said += found["said"]

    def add_history(self, board: Board) -> None:
        """Count what the writers of one history were promised and refused."""
        for kind in Kind:
            for mark in (Mark.OFFERED, Mark.ACKNOWLEDGED):
                name = f"{kind.name.lower()}s_{mark.name.lower()}"
                self.counts[name] += len(board.numbers(kind, mark))
        self.counts.update({count.name.lower(): int(board.counts[count]) for count in Count})

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "kills": self.kills,
            "inside_a_commit_or_compaction": self.inside,
            "of_these_in_the_lake": self.in_lake,
            "seconds": round(self.seconds, 1),
            **{name: self.defects[name] for name in DEFECTS},
            **dict(sorted(self.counts.items())),
            "phases": dict(self.phases.most_common()),
            "said": self.said[:20],
        }
