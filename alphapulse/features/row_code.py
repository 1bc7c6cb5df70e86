"""Write the function that makes a row, from the table of indicators.

Half the time of a closed bar would go into loops and argument lists: a plain function with one
local name a column has neither, as `dataclasses` and `namedtuple` do it. `source` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from struct import Struct
from typing import Any

from alphapulse.features.pivot_points import SESSION_LEVELS
from alphapulse.features.registry import CONTEXT, INDICATORS, SERIES
from alphapulse.features.rows import COLUMN, COLUMNS, OWN

# What a row is told: the last close before the bar, the structure's state and context, the
# session's levels, and what asks the users' indicators.
TOLD = ("before", "state", "context", "levels", "ask_own")
PRICES = ("open", "high", "low", "close", "volume")
OUTPUTS: tuple[str, ...] = tuple(name for i in INDICATORS for name in i.columns)
LEAST_VOLUME = 1e-6  # of 20 bars [base currency]: less is what rounding leaves of a sum of zeros

# Series that are not prices, then what is made of the outputs; each line may use those before it.
# A series that compares a bar with the one before is NaN on the first of a segment.
SERIES_CODE = {
    "returns": "log(close / before)",
    "activity": "log1p(volume)",
    "turnover": "(high + low + close) / 3 * volume",
    "obv_step": "volume if close > before else -volume if close < before else before - before",
    "ad_step": "(2 * close - high - low) / (high - low) * volume if high > low else 0.0",
}
DERIVED_CODE = {
    "volume_score": "(activity - volume_mean) / volume_std if volume_std > 0 else nan",
    "vwap20": f"turnover20 / volume20 if volume20 > {LEAST_VOLUME} else nan",
    "natr14": "100 * atr14 / close",
    "relative_volume": f"20 * volume / volume20 if volume20 > {LEAST_VOLUME} else nan",
    "log_return": "returns",
}
_LISTS = {
    "state": COLUMNS[COLUMN["l1_high"] : COLUMN[OWN[0]]],
    "context": CONTEXT,
    "levels": SESSION_LEVELS,
}
_WORLD = {"log": math.log, "log1p": math.log1p, "nan": math.nan}
Code = Callable[..., bytes]
SampleCode = Callable[..., tuple[float, ...]]


def source(columns: Sequence[str], own: Sequence[str], *, asks: bool) -> str:
    """Return the text of a function that returns a row as the bytes of its float64 columns.

    Args:
        columns: of the row, in their order.
        own: names of the users' indicators.
        asks: whether it takes the call of each handle (`update` or `peek`) and asks it, or takes
            the outputs themselves, one after the other.
    """
    given = "calls" if asks else "outputs"
    lines = [f"def row(pack, {given}, {', '.join((*PRICES, *TOLD))}):"]
    lines += [f"    {name} = {code}" for name, code in SERIES_CODE.items()]
    if asks:
        lines.append(f"    ({', '.join(f'ask{i}' for i in range(len(INDICATORS)))},) = calls")
        lines += [
            f"    {', '.join(indicator.columns)} = ask{i}({', '.join(indicator.reads)})"
            for i, indicator in enumerate(INDICATORS)
        ]
    else:
        lines.append(f"    ({', '.join(OUTPUTS)},) = outputs")
    lines += [f"    {name} = {code}" for name, code in DERIVED_CODE.items()]
    owned = (*OWN, *(f"own_{name}" for name in own))
    lines.append(f"    {', '.join(owned)}, = ask_own(({', '.join(PRICES)}), atr14)")
    starred = {name: f"*{name}" for name in _LISTS}
    laid: list[str] = []
    for column in columns:
        within = next((name for name, names in _LISTS.items() if column in names), "")
        if not within:
            laid.append(f"own_{column}" if column in own else column)
        elif starred[within] not in laid:
            laid.append(starred[within])
    lines.append(f"    return pack({', '.join(laid)})")
    return "\n".join(lines)


@cache
def row_code(columns: tuple[str, ...], own: tuple[str, ...], *, asks: bool) -> Code:
    """Return the function that `source` writes."""
    return _compiled(source(columns, own, asks=asks), "row")


@cache
def sample_code() -> SampleCode:
    """Return a function of the prices and the close before: what indicators read, as SERIES."""
    lines = [f"def sample({', '.join((*PRICES, 'before'))}):"]
    lines += [f"    {name} = {code}" for name, code in SERIES_CODE.items()]
    lines.append(f"    return {', '.join(SERIES)}")
    return _compiled("\n".join(lines), "sample")


def packer(columns: Sequence[str]) -> Callable[..., bytes]:
    """Return what packs a row's numbers."""
    return Struct(f"{len(columns)}d").pack


def _compiled(text: str, name: str) -> Callable[..., Any]:
    found: dict[str, Callable[..., Any]] = {}
    exec(compile(text, f"<{name} of features.row_code>", "exec"), dict(_WORLD), found)
    return found[name]
