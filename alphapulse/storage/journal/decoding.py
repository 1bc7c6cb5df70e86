"""The way from stored values back to what was recorded, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import Action, Forecast, InputPackage, Prediction, StreamRef
from alphapulse.domain.market import Timeframe
from alphapulse.storage.journal import decimals, packing
from alphapulse.storage.journal.arrays import DAMAGED, array_of, parsed
from alphapulse.storage.tables import COLUMNS, COMPRESSED

Values = tuple[Any, ...]
_PACKED = {  # position and type of the columns a journal keeps compressed
    table: [(i, kind) for i, (name, kind) in enumerate(columns.items()) if name in COMPRESSED]
    for table, columns in COLUMNS.items()
}


def unpacked(table: str, row: Values) -> Values:
    """Return a row of one of the tables as it is meant, from how a journal keeps it."""
    values = list(row)
    for index, kind in _PACKED[table]:
        content = _unpacked(values[index], table)
        values[index] = content.decode() if kind is str else content
    return tuple(values)


def unpacked_column(table: str, name: str, column: Sequence[Any]) -> Sequence[Any]:
    """Return a column of one of the tables as it is meant, from how a journal keeps it."""
    if name not in COMPRESSED:
        return column
    is_text = COLUMNS[table][name] is str
    meant: dict[bytes, Any] = {}  # neighbours often say the same
    for packed in set(column):
        content = _unpacked(packed, table)
        meant[packed] = content.decode() if is_text else content
    return [meant[packed] for packed in column]


def _unpacked(content: bytes, what: str) -> bytes:
    try:
        is_decimals = content[:1] in decimals.MARKS
        return decimals.unpacked(content) if is_decimals else packing.joined(content)
    except ValueError as error:
        raise StoreError(f"stored {what}: {error}; {DAMAGED}") from error


def cells_of(cells: bytes, layout: str) -> npt.NDArray[Any]:
    """Return the values of a closed row as a journal keeps it."""
    return array_of(_unpacked(cells, "rows"), layout)


def streams_of(streams: bytes, forming: bytes, layout: str) -> tuple[StreamRef, ...]:
    """Return the streams of a package as a journal keeps it."""
    forming_C = array_of(_unpacked(forming, "packages"), layout)
    return _streams_of(json.loads(_unpacked(streams, "packages")), forming_C)


def package_of(row: Mapping[str, Any]) -> InputPackage:
    """Return the InputPackage of one row of `packages`, bit for bit what was stored."""
    dtype, shape = parsed(row["peers_layout"])
    peers_KP = np.zeros(shape, dtype)
    slots = json.loads(row["peer_slots"])
    peers_KP[slots] = np.frombuffer(row["peers"], dtype).reshape(len(slots), *shape[1:])
    return InputPackage(
        symbol=row["symbol"],
        reference=row["reference"],
        event_ns=row["event_ns"],
        window_version=row["window_version"],
        input_hash=row["input_hash"],
        spec_version=row["spec_version"],
        streams=_streams_of(
            json.loads(row["streams"]), array_of(row["forming"], row["forming_layout"])
        ),
        peers_KP=peers_KP,
        awake_K=array_of(row["awake"], row["awake_layout"]),
        account_A=array_of(row["account"], row["account_layout"]),
        substitutions=tuple(json.loads(row["substitutions"])),
        own=tuple(json.loads(row["own"] or "[]")),  # null in a lake from before it was kept
        scale_S2=_scale_of(row),
    )


def _scale_of(row: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    if row["scale"] is None:  # from before it was kept: `rebuild` computes it anew
        return np.full((2, 2), np.nan)
    return array_of(row["scale"], row["scale_layout"])


def _streams_of(
    fields: Sequence[Sequence[Any]], forming_C: npt.NDArray[Any]
) -> tuple[StreamRef, ...]:
    refs, begin = [], 0
    for symbol, stream, first_ns, last_ns, count, forming_ns, flags, length, *incomplete in fields:
        row_C = None if length is None else forming_C[begin : begin + length]
        shown = (symbol, stream, first_ns, last_ns, count)
        refs.append(StreamRef(*shown, forming_ns, flags, row_C, tuple(incomplete)))
        begin += length or 0
    return tuple(refs)


def prediction_of(row: Mapping[str, Any], forecasts: Sequence[Mapping[str, Any]]) -> Prediction:
    """Return the Prediction of a row of `inferences` and its rows of `predictions`."""
    number = {
        k: number_of(row[k]) for k in ("p_buy", "p_sell", "p_hold", "confidence", "utility_r")
    }
    return Prediction(
        model=row["model"],
        version=row["version"],
        symbol=row["symbol"],
        event_ns=row["event_ns"],
        action=Action(row["action"]),
        **number,
        hidden_H=array_of(row["hidden"], row["hidden_layout"]),
        forecasts=tuple(forecast_of(f) for f in forecasts),
        weights=json.loads(row["weights"]),
    )


def forecast_of(row: Mapping[str, Any]) -> Forecast:
    """Return the Forecast of a row of `predictions`."""
    number = {
        k: number_of(row[k])
        for k in ("p_high", "p_low", "bars_ahead", "price", "move", "p_done", "confidence")
    }
    return Forecast(
        timeframe=Timeframe(row["timeframe"]),
        level=row["level"],
        pivot_ns=row["pivot_ns"],
        **number,
    )


def number_of(value: float | None) -> float:
    """Return a stored number: null was NaN."""
    return float("nan") if value is None else value
