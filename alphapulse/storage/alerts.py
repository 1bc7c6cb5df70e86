"""Name every state of the store a person must know of, with its cause and its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from alphapulse.domain.quality import Explanation
from alphapulse.domain.status import Alert


class StoreCode(StrEnum):
    """What `GET /alerts` and the table `alerts` call it."""

    LAKE_BEHIND = "LakeBehind"
    STORE_FAILING = "StoreFailing"
    STORE_FAILED = "StoreFailed"
    RECORDS_PENDING = "RecordsPending"
    RECORDS_SPILLED = "RecordsSpilled"
    RECORDS_LOST = "RecordsLost"
    RECORD_LOST = "RecordLost"


EXPLAINED: Mapping[StoreCode, Explanation] = {
    StoreCode.LAKE_BEHIND: Explanation(
        "the lake has not taken what waits for it in the journal",
        "check that the folder or object store of storage.lake_uri can be reached and has room; "
        "nothing is lost meanwhile",
    ),
    StoreCode.STORE_FAILING: Explanation(
        "the journal did not take what was given to it",
        "see the newest error in `alphapulse errors` for the disk; decisions go on and are flagged",
    ),
    StoreCode.STORE_FAILED: Explanation(
        "the store did not take decisions for a while, and does again",
        "nothing to do, if none is reported lost: the others are stored; docs/failures.md has why",
    ),
    StoreCode.RECORDS_PENDING: Explanation(
        "decisions wait in memory because the store does not take them",
        "see the newest error in `alphapulse errors` for the disk; they are stored as soon as the "
        "store answers, and go to the local spill meanwhile",
    ),
    StoreCode.RECORDS_SPILLED: Explanation(
        "decisions wait in the local spill because the store does not take them",
        "bring the store back: they are stored then, or at the next `alphapulse up` of the run; "
        "the spill takes storage.spill_mb",
    ),
    StoreCode.RECORDS_LOST: Explanation(
        "neither store nor spill took decisions, and memory was full",
        "bring the store back, then ask the table alerts for RecordLost: it has their ids; give "
        "the spill room on another disk (storage.spill_dir)",
    ),
    StoreCode.RECORD_LOST: Explanation(
        "these inferences are in no store, though their decisions were acted on",
        "on a recording `alphapulse up --fresh` makes them anew; live they are gone, and what "
        "learns from the history does without them",
    ),
}


def store_alerts(store: Mapping[str, int], *, event_ns: int) -> list[Alert]:
    """Return what a person must know of the history.

    Args:
        store: what `InferenceHistory.counters` says.
        event_ns: newest decision instant [ns UTC].
    """
    states = {
        StoreCode.STORE_FAILING: (store["journal_down"], f"{store['failures']} calls failed"),
        StoreCode.LAKE_BEHIND: (store["lake_down"], f"{store['unbatched']} inferences wait"),
    }
    return [
        Alert(code, f"{told}: {EXPLAINED[code].cause}", EXPLAINED[code].remedy, event_ns)
        for code, (holds, told) in states.items()
        if holds
    ]


def alert_of(code: str, message: str, event_ns: int) -> Alert:
    """Return what happened to the store at an instant, with its cause and what to do about it."""
    known = EXPLAINED[StoreCode(code)]
    return Alert(code, f"{known.cause}: {message}", known.remedy, event_ns)


def record_alerts(records: Mapping[str, int], *, event_ns: int) -> list[Alert]:
    """Return what a person must know of the records that were not durable at once.

    Args:
        records: what the trader's view `records` says; `pending`, `spilled`, `lost` are read.
        event_ns: newest decision instant [ns UTC].
    """
    counts = {
        StoreCode.RECORDS_PENDING: records["pending"] - records["spilled"],
        StoreCode.RECORDS_SPILLED: records["spilled"],
        StoreCode.RECORDS_LOST: records["lost"],
    }
    return [alert_of(code, str(count), event_ns) for code, count in counts.items() if count]
