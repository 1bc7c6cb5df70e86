"""Does a history give back what was stored, every column of every decision, bit for bit?"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from alphapulse.domain.inference import DecisionRecord, Prediction, inference_id
from alphapulse.domain.inputs import DTYPES, ModelInput
from alphapulse.interfaces import Query
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home
from alphapulse.storage.journal.decoding import prediction_of
from experiments.benchmarks.history_records import SETTINGS, Collected

SLICE = 200  # decisions whose inputs are held at once
DECIDED = {  # columns of `inferences` that are the decision's: where a record has them
    "trace_id": lambda r: r.trace_id,
    "config_hash": lambda r: r.config_hash,
    "received_ns": lambda r: r.received_ns,
    "decided_at_ns": lambda r: r.decided_at_ns,
    "last_trade_id": lambda r: r.last_trade_id,
    "last_book_id": lambda r: r.last_book_id,
    "reference": lambda r: r.package.reference,
    "window_version": lambda r: r.package.window_version,
    "input_hash": lambda r: r.package.input_hash,
    "spec_version": lambda r: r.package.spec_version,
    "decision_action": lambda r: r.decision.action.value,
    "decision_confidence": lambda r: r.decision.confidence,
    "decision_utility_r": lambda r: r.decision.utility_r,
    "decision_reason": lambda r: r.decision.reason,
    "entry_threshold": lambda r: r.decision.thresholds.entry,
    "exit_threshold": lambda r: r.decision.thresholds.exit,
}


def differing(home: Home, collected: Collected) -> int:
    """Return how many decisions are missing in a home, or differ in any bit of any column."""
    return asyncio.run(_differing(home, collected))


async def _differing(home: Home, collected: Collected) -> int:
    history = InferenceHistory(home, settings=SETTINGS.storage)
    said = (await history.query(Query(table="inferences"))).to_dict("records")
    told = defaultdict(list)
    for row in (await history.query(Query(table="predictions"))).to_dict("records"):
        told[row["inference_id"]].append(row)
    by_id = {row["id"]: row for row in said}
    run = said[0]["run"]
    arrays = {name: collected.input_array(name) for name in DTYPES}
    wrong = 0
    for begin in range(0, len(collected.records), SLICE):
        places = range(len(collected.records))[begin : begin + SLICE]
        records = [replace(collected.records[i], run=run) for i in places]
        inputs = await history.inputs([ids_of(record)[0] for record in records])
        for i, record in zip(places, records, strict=True):
            ids = ids_of(record)
            fed = {name: arrays[name][i] for name in DTYPES}
            same = is_input(inputs[ids[0]], fed) and is_said(record, ids, by_id, told)
            wrong += not same
    history.close()
    return wrong


def ids_of(record: DecisionRecord) -> list[str]:
    """Return the ids of the inferences of a decision."""
    return [
        inference_id(run=record.run, symbol=p.symbol, event_ns=p.event_ns, model=p.model)
        for p in record.decision.predictions
    ]


def is_input(input: ModelInput, fed: Mapping[str, np.ndarray]) -> bool:
    """Return whether the arrays of an input are those a model was fed."""
    return all(getattr(input, name).tobytes() == array.tobytes() for name, array in fed.items())


def is_said(
    record: DecisionRecord,
    ids: Sequence[str],
    by_id: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Sequence[Mapping[str, Any]]],
) -> bool:
    """Return whether rows say what a record does."""
    predictions = record.decision.predictions
    return all(
        id_ in by_id
        and bits(prediction_of(by_id[id_], told[id_])) == bits(prediction)
        and all(repr(by_id[id_][name]) == repr(of(record)) for name, of in DECIDED.items())
        for id_, prediction in zip(ids, predictions, strict=True)
    )


def bits(prediction: Prediction) -> str:
    """Return a prediction as text that differs where a bit does."""
    forecasts = sorted(repr(astuple(f)) for f in prediction.forecasts)
    rest = replace(prediction, hidden_H=np.zeros(0, np.float32), forecasts=())
    return f"{rest!r} {prediction.hidden_H.tobytes().hex()} {forecasts}"
