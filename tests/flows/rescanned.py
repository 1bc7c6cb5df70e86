"""Find all pivots of a whole segment at once, list by list: the notes' words, written once more.

Shares no code and no shape with `alphapulse.features.pivots`: nothing streams here, each step makes
a new list of the whole segment from the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

Shape = tuple[int, float, float, float, float]  # open_ns, open, high, low, close


class Found(NamedTuple):
    """A pivot by the numbers of its bars in the segment; kind is H or L."""

    level: int
    kind: str
    bar: int
    price: float
    confirm_bar: int


def rescan(bars: Sequence[Shape], *, levels: int) -> list[Found]:
    """Return the pivots of all levels; in each level and kind by confirmation."""
    found: list[Found] = []
    below = short_term(bars)
    for level in range(1, levels + 1):
        found += below
        below = [
            *middles([pivot for pivot in below if pivot.kind == "H"], level + 1, sign=1),
            *middles([pivot for pivot in below if pivot.kind == "L"], level + 1, sign=-1),
        ]
    return found


def short_term(bars: Sequence[Shape]) -> list[Found]:
    """Return level 1: the extreme of every run of moves that a move the other way ended."""
    runs = [list(run) for _, run in groupby(moves(bars), key=lambda move: move[0])]
    found = []
    for run, following in pairwise(runs):
        kind = run[0][0]
        extreme = (max if kind == "H" else min)(price for _, price, _ in run)
        bar = next(bar for _, price, bar in run if price == extreme)
        found.append(Found(1, kind, bar, extreme, following[0][2]))
    return found


def moves(bars: Sequence[Shape]) -> list[tuple[str, float, int]]:
    """Return the moves towards a high (H) or a low (L): where to, and in which bar."""
    mothers = [0]
    for i, (_, _, high, low, _) in enumerate(bars):
        _, _, mother_high, mother_low, _ = bars[mothers[-1]]
        if not (high <= mother_high and low >= mother_low):
            mothers.append(i)
    made: list[tuple[str, float, int]] = []
    for before, i in pairwise(mothers):
        _, open_, high, low, close = bars[i]
        up = [("H", high, i)] if high > bars[before][2] else []
        down = [("L", low, i)] if low < bars[before][3] else []
        made += down + up if close >= open_ else up + down
    return made


def middles(pivots: Sequence[Found], level: int, *, sign: int) -> list[Found]:
    """Return those strictly beyond both neighbours, of equal ones in a row the first."""
    rows = [list(equal) for _, equal in groupby(pivots, key=lambda pivot: pivot.price)]
    firsts = [row[0] for row in rows]
    return [
        Found(level, middle.kind, middle.bar, middle.price, right.confirm_bar)
        for left, middle, right in zip(firsts, firsts[1:], firsts[2:], strict=False)
        if sign * middle.price > max(sign * left.price, sign * right.price)
    ]
