"""Name every state of the store a person must know of, with its cause and its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from alphapulse.domain.quality import Explanation


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
