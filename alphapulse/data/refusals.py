"""Remember how many events were refused in the last minutes, and why."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from alphapulse.domain.market import SECOND_NS

RECENT_NS = 300 * SECOND_NS  # people are told for five minutes after it happened


class Refusals:
    """Turns counters that only rise into what was counted in the last five minutes of event time.

    Attributes:
        recent: number of refused events by reason.
    """

    def __init__(self) -> None:
        self.recent: Counter[str] = Counter()
        self._totals: Mapping[str, int] = {}
        self._risen: deque[tuple[int, str, int]] = deque()  # one an instant and reason at most

    def note(self, event_ns: int, totals: Mapping[str, int]) -> None:
        """Take the counters as they are at the instant `event_ns` [ns UTC]."""
        for code, total in totals.items():
            risen = total - self._totals.get(code, 0)
            if risen > 0:
                self._risen.append((event_ns, code, risen))
                self.recent[code] += risen
        self._totals = dict(totals)
        while self._risen and self._risen[0][0] <= event_ns - RECENT_NS:
            _, code, risen = self._risen.popleft()
            self.recent[code] -= risen
            if not self.recent[code]:
                del self.recent[code]
