"""The way from a decision's record to the values a journal keeps; `decoding` is the way back."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import (
    DecisionRecord,
    Forecast,
    InputPackage,
    Prediction,
    StoredRow,
    StreamRef,
    inference_id,
)
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.learning import Outcome
from alphapulse.domain.market import TIMEFRAMES, BarFlag
from alphapulse.storage.journal import decimals, packing
from alphapulse.storage.journal.arrays import layout_of, layout_of_shape
from alphapulse.storage.journal.schema import HEX, PLACES, note_columns

Values = tuple[Any, ...]
_BOOK = "book"  # its rows are sizes: decimals
_PLAIN = np.dtype("<f8")  # of closed rows: their layout is kept as their length
_ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class EncodedRecord:
    """A DecisionRecord as the values the journal's statements bind.

    Attributes:
        decision: one row of `decisions`, its columns `DECISION`.
        alike: the columns `ALIKE` of it.
        shown: the columns `SHOWN` of it.
        pieces: the columns `PIECES` of it: kind, content and width (see `Sharing.piece`) of each
            that is named.
        outputs: one row a model, the columns `OUTPUT`.
        made: the columns `MADE` of each output.
        forecasts: one row a model, timeframe and level, the columns `FORECAST`.
        rows: one row a closed row, the columns `ROW` with the names of symbol and stream.
    """

    symbol: str
    event_ns: int
    decision: Values
    alike: Values
    shown: Values
    pieces: tuple[tuple[str, bytes, int], ...]
    outputs: tuple[Values, ...]
    made: tuple[Values, ...]
    forecasts: tuple[Values, ...]
    rows: tuple[Values, ...]


def encode(record: DecisionRecord) -> EncodedRecord:
    """Return `record` as plain values; raises StoreError if it mixes symbols or instants."""
    decision, package = record.decision, record.package
    whole = (decision.symbol, decision.event_ns)
    parts: tuple[InputPackage | Prediction, ...] = (package, *decision.predictions)
    for part in parts:
        if (part.symbol, part.event_ns) != whole:
            raise StoreError(
                f"record {record.trace_id}: expected every part at {whole}, was "
                f"{type(part).__name__} at {(part.symbol, part.event_ns)}; "
                "build the record from one decision"
            )
    _require_places(record)
    decision_values, alike = _decision(record)
    return EncodedRecord(
        symbol=decision.symbol,
        event_ns=int(decision.event_ns),
        decision=decision_values,
        alike=alike,
        shown=_shown(package.streams),
        pieces=_pieces(package),
        outputs=tuple(_output(p, record.run) for p in decision.predictions),
        made=tuple((p.version, layout_of(p.hidden_H)) for p in decision.predictions),
        forecasts=tuple(
            (output, *_forecast(f))
            for output, p in enumerate(decision.predictions)
            for f in p.forecasts
        ),
        rows=tuple(_row(row, decision.event_ns) for row in record.rows),
    )


def _require_places(record: DecisionRecord) -> None:
    """Raise StoreError if a decision has too many parts to number, or one of them twice."""
    predictions = record.decision.predictions
    outputs = [p.model for p in predictions]
    forecasts = [(p.model, f.timeframe, f.level) for p in predictions for f in p.forecasts]
    for table, keys in (("outputs", outputs), ("forecasts", forecasts)):
        if len(set(keys)) < len(keys) or len(keys) > PLACES[table]:
            raise StoreError(
                f"record {record.trace_id}: expected at most {PLACES[table]} {table}, each of "
                f"another model, timeframe and level, was {len(keys)}: {keys[:10]}; "
                "let every model answer once"
            )


def _decision(record: DecisionRecord) -> tuple[Values, Values]:
    """Return the columns `DECISION` and `ALIKE` of a record."""
    d, p = record.decision, record.package
    slots = np.flatnonzero(p.peers_KP.view(np.uint8).any(axis=1))
    return (
        int(d.event_ns), d.symbol, _hash(record.trace_id), int(record.received_ns),
        int(record.decided_at_ns), int(p.window_version), _hash(p.input_hash), str(d.action),
        float(d.confidence), float(d.utility_r), d.reason,
        int(record.last_trade_id), int(record.last_book_id),
        packing.packed(p.peers_KP[slots].tobytes()), p.account_A.tobytes(),
    ), (
        p.reference, int(p.spec_version), record.config_hash,
        float(d.thresholds.entry), float(d.thresholds.exit),
        _forming_layout(p), _json(slots.tolist()), layout_of(p.peers_KP),
        p.awake_K.tobytes(), layout_of(p.awake_K), layout_of(p.account_A),
        _json(p.own), p.scale_S2.tobytes(), layout_of(p.scale_S2),
    )  # fmt: skip


def _hash(digits: str) -> bytes | str:
    try:
        content = bytes.fromhex(digits)
    except ValueError:
        return digits
    return content if content.hex() == digits else digits


def _forming_layout(package: InputPackage) -> str:
    forming = [s.forming_C for s in package.streams if s.forming_C is not None]
    if not forming:
        return "<f8[0]"
    return layout_of_shape(np.result_type(*forming), (sum(map(len, forming)),))


def _pieces(package: InputPackage) -> tuple[tuple[str, bytes, int], ...]:
    """Return the streams, the forming rows of the symbol and those of others, and substitutions."""
    runs = [
        (symbol, b"".join(s.forming_C.tobytes() for s in refs if s.forming_C is not None))
        for symbol, refs in groupby(package.streams, key=attrgetter("symbol"))
    ] or [("", b"")]
    (own, own_rows), rest = runs[0], runs[1:]
    return (
        (f"streams of {package.symbol}", _json([_stream(s) for s in package.streams]).encode(), 0),
        (f"forming of {own}", own_rows, 8),
        (f"forming of {'+'.join(s for s, _ in rest)}", b"".join(rows for _, rows in rest), 8),
        ("substitutions", _json(package.substitutions).encode(), 0),
    )


def _shown(streams: Sequence[StreamRef]) -> tuple[str, str, str]:
    """Return the timeframes an input showed, how complete each stream was, and what was amiss."""
    valid = int(BarFlag.VALID)
    return _completeness(
        tuple(
            (ref.stream, ref.count + (ref.forming_C is not None and ref.forming_flags & valid > 0))
            for ref in streams
        )
    )


@lru_cache(maxsize=1_000)  # once its windows are full, every input of a run shows the same
def _completeness(shown: tuple[tuple[str, int], ...]) -> tuple[str, str, str]:
    counts: dict[str, list[int]] = defaultdict(list)
    for stream, count in shown:
        counts[stream].append(count)
    shares = {
        stream: round(min(n) / INPUT_SPEC.num_rows, 4) if len(n) == INPUT_SPEC.num_symbols else 0.0
        for stream, n in counts.items()
    }
    timeframes = [timeframe for timeframe in TIMEFRAMES if any(counts[timeframe])]
    masked = [f"masked_{stream}" for stream, share in shares.items() if share < 1]
    return _json(timeframes), _json(shares), _json(masked)


def _stream(ref: StreamRef) -> list[Any]:
    length = None if ref.forming_C is None else len(ref.forming_C)
    forming_ns = None if ref.forming_ns is None else int(ref.forming_ns)
    numbers = [
        int(ref.first_ns),
        int(ref.last_ns),
        int(ref.count),
        forming_ns,
        int(ref.forming_flags),
    ]
    return [ref.symbol, str(ref.stream), *numbers, length, *map(int, ref.incomplete_ns)]


def _output(p: Prediction, run: str) -> Values:
    identity = inference_id(run=run, symbol=p.symbol, event_ns=p.event_ns, model=p.model)
    shares = {name: float(share) for name, share in p.weights.items()}
    return (
        bytes.fromhex(identity), p.model, str(p.action),
        float(p.p_buy), float(p.p_sell), float(p.p_hold), float(p.confidence), float(p.utility_r),
        p.hidden_H.tobytes(), _json(shares) if shares else "{}",
    )  # fmt: skip


def _forecast(f: Forecast) -> Values:
    return (
        str(f.timeframe), int(f.level), str(f.kind), float(f.p_high), float(f.p_low),
        int(f.pivot_ns), float(f.bars_ahead), float(f.price), float(f.move),
        float(f.p_done), float(f.confidence),
    )  # fmt: skip


def _row(row: StoredRow, event_ns: int) -> Values:
    values_C = row.values_C
    is_plain = values_C.ndim == 1 and values_C.dtype == _PLAIN
    if is_plain and row.stream == _BOOK:
        cells = decimals.packed(values_C)
    else:
        cells = packing.packed(values_C.tobytes())
    layout = len(values_C) if is_plain else layout_of(values_C)
    head = (row.symbol, str(row.stream), int(row.ts_ns), int(event_ns), int(row.flags))
    return (*head, cells, layout)


def encode_outcome(outcome: Outcome) -> Values:
    """Return `outcome` as one row of `settled`; raises StoreError if its id is of another one."""
    o = outcome
    expected = inference_id(run=o.run, symbol=o.symbol, event_ns=o.event_ns, model=o.model)
    if o.inference_id != expected:
        raise StoreError(
            f"outcome of {o.symbol} {o.model} at {o.event_ns}: expected inference {expected}, was "
            f"{o.inference_id}; settle what the history says of this run"
        )
    return (
        bytes.fromhex(expected), o.symbol, o.model, int(o.event_ns), int(o.known_ns),
        str(o.timeframe), int(o.level), int(o.version), float(o.unit), int(o.ended_ns),
        float(o.price), float(o.move), float(o.hit), str(o.kind), float(o.bars), float(o.p_done),
        str(o.action), o.reason, float(o.result), float(o.result_long), float(o.result_short),
    )  # fmt: skip


def encode_note(table: str, row: Mapping[str, Any]) -> Values:
    """Return one row of `noted_<table>`; raises StoreError if a column is missing or too much."""
    expected = note_columns(table)
    if row.keys() != set(expected):
        raise StoreError(
            f"note for {table}: expected the columns {', '.join(expected)}, was {', '.join(row)}"
        )
    return tuple(bytes.fromhex(row[n]) if n in HEX else row[n] for n in expected)


def _json(value: Any) -> str:
    return _ENCODER.encode(value)
