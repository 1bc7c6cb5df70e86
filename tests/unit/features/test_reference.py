"""Hold the table of docs/features.md to the registry."""

from __future__ import annotations

import re
from pathlib import Path

from alphapulse.features.registry import CONTEXT, DERIVED, INDICATORS, Indicator

REFERENCE = Path(__file__).parents[3] / "docs" / "features.md"
ROW = r"^\| (`.+`) \| (\w+\(.*\) of .+) \| (\w+) \| (\d+) \|"


def test_reference_lists_every_indicator_with_parameters_unit_and_warm_up() -> None:
    listed = re.findall(ROW, REFERENCE.read_text(), re.MULTILINE)

    assert listed == [
        (
            " ".join(f"`{name}`" for name in indicator.columns),
            f"{indicator.function}({parameters(indicator)}) of {' '.join(indicator.reads)}",
            indicator.unit.value,
            str(indicator.warm_up),
        )
        for indicator in INDICATORS
    ]


def parameters(indicator: Indicator) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in indicator.parameters.items())


def test_reference_names_what_is_made_of_them() -> None:
    text = REFERENCE.read_text()

    assert [name for name in DERIVED if f"`{name}`" not in text] == []
    assert {name for name in CONTEXT if not name.startswith("l")} == {"extreme", "direction"}
