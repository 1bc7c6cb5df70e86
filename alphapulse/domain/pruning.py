"""What retention did to the history, or would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What one look at the limits came to.

    Attributes:
        decisions: that left the history, each with all that belongs to it.
        trimmed: that left a journal and are in the lake alone from now on; nothing of them is lost.
        num_bytes: what the decisions took in lake and journals [bytes], about.
        reasons: how many decisions left for which reason: age, count, bytes, disk.
        missed: by how much a limit stays exceeded, decisions or bytes: only what is protected is
            in the way.
        protected: how many decisions each protection holds.
        archive: address of what left; empty if it was removed without one.
        alerts: what a person must know, by code, one sentence each.
    """

    decisions: int = 0
    trimmed: int = 0
    num_bytes: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    protected: Mapping[str, int] = field(default_factory=dict)
    archive: str = ""
    alerts: Mapping[str, str] = field(default_factory=dict)
