"""Tell all that is kept of one inference, with its input rebuilt and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from alphapulse.domain.inputs import ModelInput
from alphapulse.storage.asking.conditions import Asked, Where
from alphapulse.storage.asking.identities import inputs_of, located, scanned
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.rebuilding import UNREADABLE
from alphapulse.storage.journal.arrays import array_of

Row = dict[str, Any]
_JSON = ("substitutions", "timeframes", "completeness", "validation", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One inference and everything that belongs to it.

    Attributes:
        inference: its row; lists and mappings as such, the hidden state as numbers.
        forecasts: its rows of `predictions`.
        outcomes: what came of its forecasts and its action, so far.
        example: what came of it as a whole, None while it is pending.
        orders: sent because of it.
        input: what the model was fed, None if it cannot be rebuilt.
        problem: why there is no input, empty if there is one.
    """

    inference: Row
    forecasts: tuple[Row, ...]
    outcomes: tuple[Row, ...]
    example: Row | None
    orders: tuple[Row, ...]
    input: ModelInput | None
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values; of the input its hash and the shape of each array."""
        row, rebuilt = self.inference, self.input
        fed = {
            "hash": row["input_hash"],
            "is_whole": rebuilt is not None,
            "problem": self.problem,
            "shapes": {n: list(s) for n, s in rebuilt.spec.shapes().items()} if rebuilt else {},
            **{name: row[name] for name in ("timeframes", "completeness", "validation")},
            "substitutions": row["substitutions"],
        }
        return {
            "inference": row,
            "forecasts": list(self.forecasts),
            "outcomes": list(self.outcomes),
            "example": self.example,
            "orders": list(self.orders),
            "input": fed,
        }


def show(reader: HistoryReader, id: str) -> Shown | None:
    """Return everything about an inference, archived or not, None if there is none of that id.

    Raises StoreError if journal or lake cannot be read; an input that cannot be rebuilt is told.
    """
    found, failure = located(reader, [id])
    if not found and reader.archive and (archived := show(reader.archive, id)):
        return archived
    found = found or scanned(reader, [id])
    if not found:
        if failure:
            raise failure
        return None
    row = _plain(found[0])
    about = {name: row[name] for name in ("run", "symbol", "model", "event_ns")}
    examples = reader.fetch("examples", {**about, "inference_id": id})
    try:
        inputs, failure = inputs_of(reader, found[:1])
        problem = "" if inputs else str(failure or "its package is not stored")
    except UNREADABLE as error:
        inputs, problem = {}, str(error)
    return Shown(
        inference=row,
        forecasts=_rows(reader, "predictions", about),
        outcomes=_rows(reader, "outcomes", {**about, "inference_id": id}),
        example=examples[-1] if examples else None,
        orders=_rows(reader, "orders", {"run": row["run"], "inference_id": id}),
        input=inputs.get(id),
        problem=problem,
    )


def _rows(reader: HistoryReader, table: str, where: Where) -> tuple[Row, ...]:
    return tuple(reader.find(Asked(table, where)).to_pylist())


def _plain(row: Row) -> Row:
    hidden_H = array_of(row["hidden"], row["hidden_layout"])
    decoded = {name: json.loads(row[name]) for name in _JSON if row[name]}  # null in older rows
    return row | decoded | {"hidden": hidden_H.tolist()}
