"""What the writers of a history hand to it: the n-th decision is the same in every life."""

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
from tests.unit.storage.records import START_NS, SYMBOLS, outcome, record

# rows a decision brings to each table; an answer brings one to `outcomes`
ROWS_EACH: Mapping[str, int] = {"inferences": 3, "predictions": 4, "packages": 1, "rows": 2}


def decision(number: int, *, run: str) -> DecisionRecord:
    """Return the decision of a number: the symbols take turns, a second each."""
    return record(number // len(SYMBOLS), symbol=SYMBOLS[number % len(SYMBOLS)], run=run)


def changed(number: int, *, run: str) -> DecisionRecord:
    """Return what must change nothing where the decision of this number is stored already."""
    return dataclasses.replace(decision(number, run=run), config_hash="d" * 64, last_book_id=7)


def answer(number: int, *, run: str) -> Outcome:
    """Return the outcome of the decision of a number."""
    return outcome(number // len(SYMBOLS), symbol=SYMBOLS[number % len(SYMBOLS)], run=run)


def numbers_of(found: pa.Table) -> npt.NDArray[np.int64]:
    """Return the number of the decision each row belongs to, from its instant and symbol."""
    turns = pc.index_in(found["symbol"], pa.array(SYMBOLS)).to_numpy()
    seconds = (found["event_ns"].to_numpy() - START_NS) // SECOND_NS
    return seconds * len(SYMBOLS) + turns
