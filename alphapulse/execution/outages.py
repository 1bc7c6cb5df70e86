"""Remember what an outage of the store did to records, and have it kept once it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from alphapulse.domain.errors import AlphaPulseError
from alphapulse.domain.inference import MODELS, DecisionRecord, inference_id, trace_id
from alphapulse.logs import describe, get_logger

Key = tuple[str, str, int]  # run, symbol, decision instant [ns UTC]: what names a record
Told = tuple[str, str, int]  # code of an alert, message, decision instant [ns UTC]
Note = Callable[[Sequence[Told]], Awaitable[object]]
log = get_logger("execution")


async def to_nobody(told: Sequence[Told]) -> None:
    """Take what happened where no store keeps alerts; the log has it."""


class Outages:
    """The outages of a run's store as this process saw them.

    Attributes:
        lost: number of records that neither store nor spill nor memory could hold.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._flagged: list[int] = []  # first and last instant that are not told yet
        self._untold: dict[int, list[str]] = {}  # ids lost, by instant
        self.lost = 0

    def flag(self, records: Iterable[DecisionRecord]) -> None:
        """Count records to the outage under way."""
        self._widen([record.decision.event_ns for record in records])

    def lose(self, keys: Sequence[Key], reason: str) -> None:
        """Report records lost: at once in the log, and by `tell` where alerts are kept."""
        self.lost += len(keys)
        for key in keys:
            report_lost(key, reason)
            self._untold.setdefault(key[2], []).extend(ids_of(key))

    async def tell(self, counters: Mapping[str, int]) -> None:
        """Have the outage that is over kept; what the store does not take goes with the next."""
        flagged, lost = self._flagged, self._untold
        if not (flagged or lost):
            return
        self._flagged, self._untold = [], {}
        told: list[Told] = [
            ("RecordLost", f"inferences {', '.join(ids)}", event_ns)
            for event_ns, ids in lost.items()
        ]
        if flagged:
            first, last = flagged
            counts = ", ".join(f"{name} {count}" for name, count in counters.items())
            told.append(("StoreFailed", f"decisions from {first} to {last}; {counts}", last))
        try:
            await self._note(told)
        except AlphaPulseError as error:
            log.warning("alerts not stored", **describe(error))
            self._widen(flagged)
            self._untold = lost | self._untold

    def _widen(self, instants: Sequence[int]) -> None:
        if instants:
            self._flagged = [min([*self._flagged, *instants]), max([*self._flagged, *instants])]


def key_of(record: DecisionRecord) -> Key:
    """Return what names a record."""
    return record.run, record.decision.symbol, record.decision.event_ns


def ids_of(key: Key) -> list[str]:
    """Return the ids of the inferences of a record, one a model."""
    run, symbol, event_ns = key
    return [inference_id(run=run, symbol=symbol, event_ns=event_ns, model=m) for m in MODELS]


def report_lost(key: Key, reason: str) -> None:
    """Log that a record is lost, with the ids of its inferences."""
    run, symbol, event_ns = key
    log.error(
        "record lost",
        code="RecordLost",
        trace_id=trace_id(run=run, symbol=symbol, event_ns=event_ns),
        symbol=symbol,
        event_ns=event_ns,
        ids=ids_of(key),
        reason=f"{symbol} at {event_ns}: {reason}",
        remedy="bring the store back; on a recording, `alphapulse up` makes the decision anew",
    )
