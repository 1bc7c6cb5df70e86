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
