"""Tell what was found: as plain values, and as rows that a screen has room for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alphapulse.features.depths import DEPTHS, Warming
from alphapulse.features.grid import iso
from alphapulse.features.lookahead import Finding
from alphapulse.features.skill import Skill

NUM_SHOWN = 5  # columns of a subject whose skill a screen shows


def for_people(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with the rows a screen has room for.

    Of the warm-up those columns that were off at some depth, of the skill the highest of
    each subject.
    """
    slow = [
        row
        for row in answer["warm_up"]
        if row["settled"] != DEPTHS[0] and any(row[f"{depth} bars"] for depth in DEPTHS)
    ]
    keen: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["subject"] for row in answer["skill"]):
        mine = [row for row in answer["skill"] if row["subject"] == name]
        keen += sorted(mine, key=lambda row: -abs(row["lag 0"] or 0.0))[:NUM_SHOWN]
    shown: dict[str, Any] = {
        name: [_sentence(row) for row in answer[name]] for name in ("leaks", "warnings")
    }
    shown["warm_up"] = [_short(row, "{:.0e}") for row in slow]
    shown["skill"] = [_short(row, "{:.2f}", but=("bars", "suspicious")) for row in keen]
    shown["checked"] = answer["checked"]
    return shown | {name: answer[name] for name in ("clean", "recording", "symbol")}


def _sentence(row: dict[str, Any]) -> dict[str, Any]:
    """Return a finding as place and sentence."""
    ahead = f", {row['bars_ahead']} bars ahead or more" if row["bars_ahead"] else ""
    moved = "" if row["became"] is row["was"] is None else f": {row['was']} -> {row['became']}"
    said = f"{row['check']}: {row['note']}{moved}{ahead}"
    return {"subject": row["subject"], "column": row["column"], "at": row["at"], "found": said}


def _short(row: dict[str, Any], form: str, *, but: Sequence[str] = ()) -> dict[str, Any]:
    return {
        name: form.format(value) if isinstance(value, float) else "" if value is None else value
        for name, value in row.items()
        if name not in but
    }


def finding_row(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain values."""
    return {
        "subject": finding.subject,
        "column": finding.column,
        "check": finding.check,
        "at": iso(finding.at_ns),
        "bars_ahead": finding.bars_ahead or None,
        "num_bars": finding.num_bars or None,
        "was": _plain(finding.was),
        "became": _plain(finding.became),
        "note": finding.note,
    }


def warming_row(subject: str, warming: Warming) -> dict[str, Any]:
    """Return how a column settles as plain values, a depth a field."""
    differences = {f"{d} bars": _plain(warming.difference.get(d, math.nan)) for d in DEPTHS}
    row = {"subject": subject, "column": warming.column, **differences}
    return row | {"settled": warming.settled, "path_dependent": warming.is_path_dependent}


def skill_row(subject: str, skill: Skill) -> dict[str, Any]:
    """Return the curve of a column as plain values, a lag a field."""
    curve = {f"lag {lag}": _plain(value) for lag, value in skill.curve.items()}
    row = {"subject": subject, "column": skill.column, "bars": skill.num_bars, **curve}
    return row | {"suspicious": skill.is_suspicious}


def _plain(value: float) -> float | None:
    """Return a number as JSON has it: nothing where it is not finite."""
    return value if math.isfinite(value) else None
