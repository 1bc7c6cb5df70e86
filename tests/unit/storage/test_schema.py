"""The schema that is documented is the schema that is kept, in every column."""

from __future__ import annotations

import re
from pathlib import Path

from alphapulse.storage.lake.columns import arrow_schema
from alphapulse.storage.tables import COLUMNS

DOCUMENT = Path(__file__).parents[3] / "docs" / "history.md"


def test_every_column_is_documented_with_its_type_and_meaning() -> None:
    documented: dict[str, list[tuple[str, str]]] = {}
    table = ""
    for line in DOCUMENT.read_text().splitlines():
        if heading := re.fullmatch(r"### (\w+)", line):
            table = heading[1]
        elif column := re.fullmatch(r"\| `(\w+)` \| (\w+) \| (.+) \|", line):
            documented.setdefault(table, []).append((column[1], column[2]))

    kept = {
        table: [
            (field.name, str(field.type).replace("double", "float64"))
            for field in arrow_schema(table)
        ]
        for table in COLUMNS
    }
    assert {table: documented.get(table) for table in COLUMNS} == kept
