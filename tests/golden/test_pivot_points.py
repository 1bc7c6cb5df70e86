"""Hold the pivot points of every variant to the vectors of the notes."""

from __future__ import annotations

import pytest

from alphapulse.features.pivot_points import LEVELS, PivotPoints, Variant

# Source: the project's ML notes, 1.1, four decimals: high 110, low 90, close 105 (Woodie: 108).
CLASSIC = PivotPoints.classic(high=110, low=90, close=105)
FIBONACCI = PivotPoints.fibonacci(high=110, low=90, close=105)
CAMARILLA = PivotPoints.camarilla(high=110, low=90, close=105)
WOODIE = PivotPoints.woodie(high=110, low=90, close=108)
VECTORS = [
    (CLASSIC, "p 101.6667 r1 113.3333 r2 121.6667 r3 133.3333 s1 93.3333 s2 81.6667 s3 73.3333"),
    (FIBONACCI, "p 101.6667 r1 109.3067 r2 114.0267 r3 121.6667 s1 94.0267 s2 89.3067 s3 81.6667"),
    (CAMARILLA, "r1 106.8333 r2 108.6667 r3 110.5 r4 116 s1 103.1667 s2 101.3333 s3 99.5 s4 94"),
    (WOODIE, "p 104 r1 118 r2 124 s1 98 s2 84"),
]


@pytest.mark.parametrize(("points", "expected"), VECTORS, ids=[p.variant for p, _ in VECTORS])
def test_levels_equal_the_vector(points: PivotPoints, expected: str) -> None:
    names = LEVELS[points.variant]

    assert " ".join(f"{name} {round(getattr(points, name), 4):.10g}" for name in names) == expected


@pytest.mark.parametrize(("points", "expected"), VECTORS, ids=[p.variant for p, _ in VECTORS])
def test_a_level_the_variant_lacks_is_nan(points: PivotPoints, expected: str) -> None:
    every = ("p", "r1", "r2", "r3", "r4", "s1", "s2", "s3", "s4")

    known = [name for name in every if getattr(points, name) == getattr(points, name)]

    assert known == list(LEVELS[points.variant])


def test_the_variant_of_woodie_is_stored_by_name() -> None:
    assert WOODIE.variant == Variant("woodie")
