"""Keep in memory what every model said last of every symbol."""

from __future__ import annotations

from collections.abc import Iterable

from alphapulse.domain.inference import Prediction


class Newest:
    """The newest Prediction by symbol and model; the writer adds to it what became durable."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Prediction]] = {}

    def take(self, predictions: Iterable[Prediction]) -> None:
        """Remember those that are newer than what is known; the others change nothing."""
        for prediction in predictions:
            said = self._said.setdefault(prediction.symbol, {})
            known = said.get(prediction.model)
            if known is None or known.event_ns < prediction.event_ns:
                said.pop(prediction.model, None)  # to its end: models answer in their order
                said[prediction.model] = prediction

    def find(self, symbol: str | None = None, model: str | None = None) -> tuple[Prediction, ...]:
        """Return what is known, symbol by symbol, in the order the models answered; None is all."""
        symbols = [symbol] if symbol else sorted(self._said)
        return tuple(
            prediction
            for one in symbols
            for name, prediction in self._said.get(one, {}).items()
            if model in (None, name)
        )
