"""Answer actions: what a long and a short entered at the instant of each would have earned."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from dataclasses import dataclass

from alphapulse.domain.inference import Action
from alphapulse.domain.learning import NAN, Inference, Outcome, PastDecision, ShownBar
from alphapulse.domain.market import Timeframe

HORIZON = 300  # bars after which a side is left, if nothing ended it before
STOP, REVERSAL, WHOLE, VOID = "stop", "reversal", "horizon", "void"
LONG, SHORT = 1, -1
SIDE_OF = {Action.BUY: LONG, Action.SELL: SHORT}


@dataclass(frozen=True, slots=True)
class _Exit:
    """How one side was left; `move` is the market's [R], rising prices positive."""

    reason: str
    ended_ns: int
    known_ns: int
    price: float
    move: float


@dataclass(slots=True, eq=False)
class _Entry:
    """A long and a short entered together, with what ended each so far.

    Attributes:
        risk: R [log price].
        first_ns: open of the first bar that counts [ns UTC].
        last_ns: close of the bar that ends the horizon [ns UTC].
    """

    decision: PastDecision
    inference: Inference
    risk: float
    first_ns: int
    last_ns: int
    exits: dict[int, _Exit]

    def stop(self, side: int) -> float:
        """Return the price at which a side is stopped, one R away."""
        return self.decision.price * math.exp(-side * self.risk)

    def move_to(self, price: float) -> float:
        return math.log(price / self.decision.price) / self.risk


class _Side:
    """The entries whose long, or whose short, is still open."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._by_stop: list[tuple[float, int]] = []  # nearest first; some have ended otherwise
        self._open: dict[int, _Entry] = {}  # by instant, oldest first

    def begin(self, entry: _Entry) -> None:
        instant = entry.decision.event_ns
        self._open[instant] = entry
        heapq.heappush(self._by_stop, (-self._side * entry.stop(self._side), instant))

    def stopped(self, bar: ShownBar) -> list[_Entry]:
        """Take out and return those whose stop the bar reached."""
        worst = -self._side * (bar.low if self._side == LONG else bar.high)
        found = []
        while self._by_stop and self._by_stop[0][0] <= worst:
            entry = self._open.pop(heapq.heappop(self._by_stop)[1], None)
            if entry is not None:
                found.append(entry)
        return found

    def expired(self, close_ns: int) -> list[_Entry]:
        """Take out and return those whose horizon ends at a bar's close."""
        found = []
        while self._open:
            oldest = next(iter(self._open))
            if self._open[oldest].last_ns > close_ns:
                break
            found.append(self._open.pop(oldest))
        return found

    def all(self) -> list[_Entry]:
        """Take out and return every one."""
        found = list(self._open.values())
        self._open.clear()
        self._by_stop.clear()
        return found


class Entries:
    """The actions of one model for one symbol, settled on the bars of one timeframe.

    Both sides are entered at the price of the inference, whatever the action. A side is left at
    its stop, one R away, if a bar reaches it; else at the close of the bar at whose end the same
    model's action is the opposite of the side; else at the close of the 300th bar, whatever the
    model says at its end. A side that needs a bar that is missing is void.

    Attributes:
        num_open: actions without an answer yet.
    """

    def __init__(self, timeframe: Timeframe, *, cost: float) -> None:
        """Begin without entries; `cost` is that of one side of a trade [log price]."""
        self._timeframe = timeframe
        self._cost = cost
        self._coming: deque[_Entry] = deque()  # entered, their first bar has not come
        self._sides = {side: _Side(side) for side in (LONG, SHORT)}
        self._turns: OrderedDict[int, Action] = OrderedDict()  # said before the newest bar came
        self._newest: ShownBar | None = None
        self.num_open = 0

    def enter(self, decision: PastDecision, inference: Inference, *, risk: float) -> None:
        """Enter a long and a short at an instant; `risk` is R [log price]."""
        length = self._timeframe.ns
        first_ns = -(-decision.event_ns // length) * length
        last_ns = first_ns + HORIZON * length
        self._coming.append(_Entry(decision, inference, risk, first_ns, last_ns, {}))
        self.num_open += 1

    def said(self, event_ns: int, action: Action) -> list[Outcome]:
        """Take the model's action at an instant and return the entries it ends."""
        newest = self._newest
        if newest is not None and newest.close_ns == event_ns:
            return self._turn(newest, action)
        self._turns[event_ns] = action
        return []

    def closed(self, bar: ShownBar) -> list[Outcome]:
        """Take the next bar and return the entries it ends."""
        done: list[Outcome] = []
        if self._newest is not None and self._newest.close_ns != bar.open_ns:
            for side, entries in self._sides.items():
                done += self._void(entries.all(), side, self._newest.close_ns, bar)
        self._newest = bar
        while self._coming and self._coming[0].first_ns <= bar.open_ns:
            entry = self._coming.popleft()
            if entry.first_ns < bar.open_ns:
                for side in self._sides:
                    done += self._void([entry], side, entry.first_ns, bar)
                continue
            for entries in self._sides.values():
                entries.begin(entry)
        for side, entries in self._sides.items():
            for entry in entries.stopped(bar):
                price = entry.stop(side)
                done += self._leave(
                    entry, side, _Exit(STOP, bar.close_ns, bar.shown_ns, price, -float(side))
                )
        for side, entries in self._sides.items():
            for entry in entries.expired(bar.close_ns):
                done += self._leave(entry, side, _at_close(entry, WHOLE, bar))
        while self._turns and next(iter(self._turns)) <= bar.close_ns:
            said_ns, action = self._turns.popitem(last=False)
            if said_ns == bar.close_ns:
                done += self._turn(bar, action)
        return done

    def _turn(self, bar: ShownBar, action: Action) -> list[Outcome]:
        done: list[Outcome] = []
        if action in SIDE_OF:
            side = -SIDE_OF[action]
            for entry in self._sides[side].all():
                done += self._leave(entry, side, _at_close(entry, REVERSAL, bar))
        return done

    def _void(
        self, entries: list[_Entry], side: int, missing_ns: int, bar: ShownBar
    ) -> list[Outcome]:
        done: list[Outcome] = []
        for entry in entries:
            done += self._leave(entry, side, _Exit(VOID, missing_ns, bar.shown_ns, NAN, NAN))
        return done

    def _leave(self, entry: _Entry, side: int, exit: _Exit) -> list[Outcome]:
        entry.exits[side] = exit
        if len(entry.exits) < len(self._sides):
            return []
        self.num_open -= 1
        return [self._answer(entry)]

    def _answer(self, entry: _Entry) -> Outcome:
        decision, action = entry.decision, entry.inference.action
        paid = 2 * self._cost / entry.risk
        result = {side: side * exit.move - paid for side, exit in entry.exits.items()}
        if action in SIDE_OF:
            taken = entry.exits[SIDE_OF[action]]
            earned = result[SIDE_OF[action]]
            hit = NAN if math.isnan(earned) else float(earned > 0)
        else:
            taken = max((entry.exits[LONG], entry.exits[SHORT]), key=lambda exit: exit.ended_ns)
            earned, hit = 0.0, NAN
        return Outcome(
            inference_id=entry.inference.id,
            run=decision.run,
            symbol=decision.symbol,
            model=entry.inference.model,
            event_ns=decision.event_ns,
            known_ns=max(exit.known_ns for exit in entry.exits.values()),
            timeframe=self._timeframe.value,
            level=0,
            unit=entry.risk,
            ended_ns=taken.ended_ns,
            price=taken.price,
            move=taken.move,
            hit=hit,
            action=action.value,
            reason=taken.reason,
            result=earned,
            result_long=result[LONG],
            result_short=result[SHORT],
        )


def _at_close(entry: _Entry, reason: str, bar: ShownBar) -> _Exit:
    return _Exit(reason, bar.close_ns, bar.shown_ns, bar.close, entry.move_to(bar.close))
