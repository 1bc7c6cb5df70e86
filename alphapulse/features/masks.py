"""Say which optional streams of an input are masked at its newest slot."""

from __future__ import annotations

from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.market import BarFlag
from alphapulse.domain.quality import Reason
from alphapulse.features.rows import BOOK_COLUMN

VALID = int(BarFlag.VALID)
MID = BOOK_COLUMN["mid"]


def substitutes(input: ModelInput) -> tuple[Reason, ...]:
    """Return what the decided symbol of `input` is without at the instant.

    NO_SECONDS: the next timeframe stands in for the seconds. BOOK_UNKNOWN: nothing stands in for
    the book. Older slots that are masked are told by `ModelInput.substitutions`.
    """
    found = []
    if not input.flags_SFT[0, 0, -1] & VALID:
        found.append(Reason.NO_SECONDS)
    if not input.known_STB[0, -1, MID]:
        found.append(Reason.BOOK_UNKNOWN)
    return tuple(found)
