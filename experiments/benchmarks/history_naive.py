"""The packages of a window as naive stores get them: whole inputs, and all that was said of them.

A package is one decision: its input as the models were fed it, and every other column of its
inferences as text that keeps all bits. Files in a folder hand them to a peer's own process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from alphapulse.domain.inference import DecisionRecord, inference_id
from experiments.benchmarks.history_records import Collected

TEXTS, HIDDEN = "said.json", "hidden.json"  # beside the arrays of the inputs


def write_naive(collected: Collected) -> Path:
    """Write what is not an input beside the inputs' arrays, and return the folder."""
    folder = collected.folder
    (folder / TEXTS).write_text(json.dumps([said(record) for record in collected.records]))
    hidden = [b"".join(hidden_of(record)).hex() for record in collected.records]
    (folder / HIDDEN).write_text(json.dumps(hidden))
    return folder


def hidden_of(record: DecisionRecord) -> Iterator[bytes]:
    """Yield the bytes of the hidden states of a decision, model by model."""
    return (prediction.hidden_H.tobytes() for prediction in record.decision.predictions)


def said(record: DecisionRecord) -> str:
    """Return all of a record but its input's arrays and hidden states, as JSON."""
    decision, package = record.decision, record.package
    return json.dumps(
        {
            "run": record.run,
            "trace_id": record.trace_id,
            "config_hash": record.config_hash,
            "last_trade_id": record.last_trade_id,
            "last_book_id": record.last_book_id,
            "received_ns": record.received_ns,
            "decided_at_ns": record.decided_at_ns,
            "symbol": decision.symbol,
            "reference": package.reference,
            "event_ns": decision.event_ns,
            "window_version": package.window_version,
            "input_hash": package.input_hash,
            "spec_version": package.spec_version,
            "substitutions": package.substitutions,
            "action": decision.action,
            "confidence": decision.confidence,
            "utility_r": decision.utility_r,
            "reason": decision.reason,
            "thresholds": [decision.thresholds.entry, decision.thresholds.exit],
            "predictions": [
                {
                    "id": inference_id(
                        run=record.run, symbol=p.symbol, event_ns=p.event_ns, model=p.model
                    ),
                    "model": p.model,
                    "version": p.version,
                    "action": p.action,
                    "numbers": [p.p_buy, p.p_sell, p.p_hold, p.confidence, p.utility_r],
                    "weights": dict(p.weights),
                    "forecasts": [
                        [
                            *(f.timeframe, f.level, f.p_high, f.p_low, f.pivot_ns, f.bars_ahead),
                            *(f.price, f.move, f.p_done, f.confidence),
                        ]
                        for f in p.forecasts
                    ],
                }
                for p in decision.predictions
            ],
        }
    )
