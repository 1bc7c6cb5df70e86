"""Hold the Williams structure to vectors worked out by hand."""

from __future__ import annotations

import pytest

from alphapulse.domain.market import Pivot, Timeframe
from alphapulse.features.pivots import WilliamsStructure

# Source: the project's ML notes, 1.5 (V1-V7, worked out by hand).
# A bar is (high, low, open, close); a pivot is written KindBar=price@confirmBar.
Shape = tuple[float, float, float, float]
TF = Timeframe.M1


def up(high: float, low: float) -> Shape:
    return high, low, low, high


def down(high: float, low: float) -> Shape:
    return high, low, high, low


VECTORS: dict[str, tuple[list[Shape], str]] = {
    "V1 plain": (
        [up(10, 8), up(12, 9), down(11, 7), up(13, 10), down(12, 9), up(14, 11), down(12.5, 8.5)],
        "H1=12@2 L2=7@3 H3=13@4 L4=9@5 H5=14@6",
    ),
    "V2 inside bars delay": (
        [up(10, 8), up(12, 9), up(11.5, 9.5), up(11, 8.5), up(10.5, 8.6), up(12.5, 9)],
        "H1=12@3 L3=8.5@5",
    ),
    "V3 inside bar then new high": (
        [up(10, 8), up(12, 9), up(11.5, 9.5), up(13, 10), up(12, 9.5)],
        "H3=13@4",
    ),
    "V4 equal highs": (
        [up(10, 8), up(12, 9), up(12, 10), up(11, 8.5), up(10.5, 8), up(11, 8.6)],
        "H1=12@3 L4=8@5",
    ),
    "V5 outside bar closing up": (
        [up(10, 8), up(11, 9), (12, 7, 9.5, 11.8), up(13, 9), up(12, 8)],
        "H1=11@2 L2=7@2 H3=13@4",
    ),
    "V6 outside bar closing down": (
        [up(10, 8), up(11, 9), (12, 7, 10.5, 7.2), up(10, 6.5), up(10.5, 7)],
        "H2=12@2 L3=6.5@4",
    ),
}
HIGHS_V7 = (1, 3, 2, 6, 2.1, 4, 1.2, 9, 3, 5, 2.2, 7, 2.3, 4.1, 1.1, 2.5, 0.5)
V7 = [up(h, h - 1.5) if i % 2 else down(h, h - 1.5) for i, h in enumerate(HIGHS_V7)]
LEVELS_V7 = {
    1: "H1=3@2 L2=0.5@3 H3=6@4 L4=0.6@5 H5=4@6 L6=-0.3@7 H7=9@8 L8=1.5@9 H9=5@10 L10=0.7@11 "
    "H11=7@12 L12=0.8@13 H13=4.1@14 L14=-0.4@15 H15=2.5@16",
    2: "H3=6@6 L6=-0.3@9 H7=9@10 L10=0.7@13 H11=7@14",
    3: "H7=9@14",
}


def pivots_of(bars: list[Shape]) -> list[Pivot]:
    structure = WilliamsStructure("ETH/USDT", TF)
    found: list[Pivot] = []
    for i, (high, low, open_, close) in enumerate(bars):
        found += structure.update(i * TF.ns, open_, high, low, close)
    return found


def written(pivots: list[Pivot], level: int) -> str:
    return " ".join(
        f"{p.kind.value}{p.pivot_ns // TF.ns}={round(p.price, 9):g}@{p.confirm_ns // TF.ns - 1}"
        for p in pivots
        if p.level == level
    )


@pytest.mark.parametrize("name", VECTORS)
def test_level_one_equals_the_vector(name: str) -> None:
    bars, expected = VECTORS[name]

    pivots = pivots_of(bars)

    assert written(pivots, 1) == expected


@pytest.mark.parametrize("level", LEVELS_V7)
def test_every_level_of_v7_equals_the_vector(level: int) -> None:
    pivots = pivots_of(V7)

    assert written(pivots, level) == LEVELS_V7[level]


def test_equal_neighbours_count_as_one_the_first() -> None:
    highs = (1, 5, 2, 7, 3, 7, 2, 7, 1, 4, 0.5)  # the three sevens are one pivot of level 2
    bars = [up(h, h - 1.5) if i % 2 else down(h, h - 1.5) for i, h in enumerate(highs)]

    assert written(pivots_of(bars), 1).split()[::2] == [
        "H1=5@2",
        "H3=7@4",
        "H5=7@6",
        "H7=7@8",
        "H9=4@10",
    ]
    assert written(pivots_of(bars), 2).split()[-1] == "H3=7@10"
