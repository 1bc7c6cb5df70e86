"""What the writers of a history hand to it: of a number, the same in every life."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alphapulse.domain.inference import DecisionRecord
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import SECOND_NS
from alphapulse.storage.tables import NOTES
from tests.flows.history_faults.board import Kind
from tests.unit.storage.records import START_NS, SYMBOLS, instant, outcome, record

# by table, how many rows one of each kind brings
OF_A_DECISION: Mapping[str, int] = {"inferences": 3, "predictions": 4, "packages": 1, "rows": 2}
OF_A_KIND: Mapping[str, Kind] = {
    "outcomes": Kind.OUTCOME,
    "orders": Kind.ORDER,
    "examples": Kind.EXAMPLE,
    "training_rounds": Kind.TRAINING_ROUND,
    "alerts": Kind.ALERT,
}
TABLES: Mapping[Kind, str] = {kind: table for table, kind in OF_A_KIND.items()}


def decision(number: int, *, run: str) -> DecisionRecord:
    """Return the decision of a number: the symbols take turns, a second each."""
    return record(number // len(SYMBOLS), symbol=SYMBOLS[number % len(SYMBOLS)], run=run)


def changed(number: int, *, run: str) -> DecisionRecord:
    """Return what must change nothing where the decision of this number is stored already."""
    return dataclasses.replace(decision(number, run=run), config_hash="d" * 64, last_book_id=7)


def answer(number: int, *, run: str) -> Outcome:
    """Return the outcome of the decision of a number."""
    return outcome(number // len(SYMBOLS), symbol=SYMBOLS[number % len(SYMBOLS)], run=run)


def numbers_of(table: str, found: pa.Table) -> npt.NDArray[np.int64]:
    """Return the number each row of a table belongs to."""
    seconds = (found["event_ns"].to_numpy() - START_NS) // SECOND_NS
    if table in NOTES:
        return seconds  # see tests.unit.storage.records.note
    turns = pc.index_in(found["symbol"], pa.array(SYMBOLS)).to_numpy()
    return seconds * len(SYMBOLS) + turns


def event_ns_of(table: str, number: int) -> int:
    """Return the instant of the rows a number has in a table [ns UTC]."""
    return instant(number if table in NOTES else number // len(SYMBOLS))
