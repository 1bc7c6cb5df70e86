"""What people are shown and what they ask: snapshots, alerts and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person must know, with what to do about it."""

    code: str
    message: str
    remedy: str
    event_ns: int


@dataclass(frozen=True, slots=True)
class Command:
    """Something a person asks for, such as a new threshold."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the cluster at one moment, as a panel sees it.

    Attributes:
        event_ns: newest decision instant [ns UTC], None before the first.
        sections: by name: processes, market, decisions, counters.
    """

    event_ns: int | None
    sections: Mapping[str, Any]
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the errors table.

    Attributes:
        code: name of the error.
        count: how often it was logged.
        first_at: ISO-8601 Z.
        last_at: ISO-8601 Z.
        trace_id: of the newest occurrence, empty if it had none.
        message: of the newest occurrence.
        remedy: what to do.
    """

    code: str
    count: int
    first_at: str
    last_at: str
    trace_id: str
    message: str
    remedy: str
