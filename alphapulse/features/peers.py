"""Keep the last output of every model in its slot, for the others to read at the next decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from alphapulse.domain.errors import ShapeMismatch
from alphapulse.domain.inference import Forecast, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, PEER_FIELDS, Masks, Tensor
from alphapulse.domain.market import SECOND_NS, TIMEFRAMES

# axes: K peer slot · P peer field

# An index is never re-used: checkpoints know their peers by it.
SLOTS: dict[str, int] = {"flat": 0, "cnn": 1, "rl": 2, "moe": 3}
AGE = PEER_FIELDS.index("age_s")


class PeerTable:
    """The newest output of each model for one symbol; a model that has said nothing yet is asleep.

    ```python
    peers_KP, awake_K = table.at(event_ns)  # outputs of earlier decisions only
    table.put(prediction)  # after the decision
    ```
    """

    def __init__(self) -> None:
        self._outputs: dict[str, tuple[int, tuple[float, ...]]] = {}

    def put(self, prediction: Prediction) -> None:
        """Keep the newest output of a model; raises ShapeMismatch if the model has no slot."""
        if prediction.model not in SLOTS:
            raise ShapeMismatch(
                f"peers: expected a model of {', '.join(SLOTS)}, was {prediction.model}; "
                "give it a slot of its own in features.peers.SLOTS"
            )
        fields = (
            prediction.p_buy,
            prediction.p_sell,
            prediction.p_hold,
            prediction.confidence,
            prediction.utility_r,
            0.0,
            *_forecast_fields(prediction.forecasts),
        )
        self._outputs[prediction.model] = (prediction.event_ns, fields)

    def at(self, event_ns: int) -> tuple[Tensor, Masks]:
        """Return what a decision at `event_ns` may see: outputs of decisions before it.

        Returns:
            float32 (16, 64) fields by slot, 0 where asleep, and uint8 (16,), 1 where awake.
        """
        peers_KP = np.zeros((INPUT_SPEC.num_slots, INPUT_SPEC.num_peer_fields), np.float32)
        awake_K = np.zeros(INPUT_SPEC.num_slots, np.uint8)
        for model, (said_ns, fields) in self._outputs.items():
            if said_ns < event_ns:
                slot = SLOTS[model]
                peers_KP[slot, : len(fields)] = fields
                peers_KP[slot, AGE] = (event_ns - said_ns) / SECOND_NS
                awake_K[slot] = 1
        return peers_KP, awake_K

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return the table as plain values, ready for JSON."""
        return {
            model: {"event_ns": ns, "fields": list(fields)}
            for model, (ns, fields) in self._outputs.items()
        }

    def restore(self, snapshot: Mapping[str, Mapping[str, Any]]) -> None:
        """Become the table that `snapshot` was taken of."""
        self._outputs = {
            model: (int(kept["event_ns"]), tuple(kept["fields"]))
            for model, kept in snapshot.items()
        }


def _forecast_fields(forecasts: Iterable[Forecast]) -> list[float]:
    """Return the fields of the lowest level of each timeframe, 0 where it has no forecast."""
    lowest: dict[str, Forecast] = {}
    for forecast in forecasts:
        kept = lowest.setdefault(forecast.timeframe, forecast)
        if forecast.level < kept.level:
            lowest[forecast.timeframe] = forecast
    fields: list[float] = []
    for timeframe in TIMEFRAMES:
        f = lowest.get(timeframe)
        fields += (
            [f.p_high, f.p_low, f.bars_ahead, f.move, f.p_done, f.confidence] if f else [0.0] * 6
        )
    return fields
