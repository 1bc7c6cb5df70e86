"""Which checkpoint answers for each model at each event time of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.inference import MODELS
from alphapulse.domain.learning import Promotion


class Versions:
    """The starting checkpoints of a run and the promotions since: a function of event time.

    ```python
    versions = Versions(run.manifest.checkpoints, ledger.promotions())
    decide(input, versions.at(input.event_ns))
    ```
    """

    def __init__(self, start: Mapping[str, str], promotions: Iterable[Promotion]) -> None:
        self._start = dict(start)
        self._promotions: list[Promotion] = []
        for promotion in promotions:
            self.add(promotion)

    def at(self, event_ns: int) -> dict[str, str]:
        """Return the checkpoint id that answers at the instant `event_ns`, by model."""
        found = dict(self._start)
        found |= {p.model: p.checkpoint for p in self._promotions if p.event_ns <= event_ns}
        return found

    def num_live(self, event_ns: int) -> int:
        """Return how many promotions had taken effect by the instant `event_ns`."""
        return sum(p.event_ns <= event_ns for p in self._promotions)

    def before(self, model: str) -> str:
        """Return the checkpoint to go back to; raises InvalidRequest if there is none."""
        way = [self._start[model]]  # a promotion to where the way came from goes back on it
        for promotion in self._of(model):
            if way[-2:-1] == [promotion.checkpoint]:
                way.pop()
            else:
                way.append(promotion.checkpoint)
        if len(way) < 2:
            raise InvalidRequest(
                f"rollback of {model}: expected a promotion in this run to go back on, was none; "
                "see `alphapulse models list`"
            )
        return way[-2]

    def promotion(
        self, run: str, model: str, checkpoint: str, *, after_ns: int, reason: str
    ) -> Promotion:
        """Return the promotion that would let `checkpoint` answer right after `after_ns`.

        Raises InvalidRequest if there is no such model, or the checkpoint answers already.
        """
        if model not in MODELS:
            raise InvalidRequest(
                f"model: expected one of {', '.join(MODELS)}, was {model!r}; "
                "see `alphapulse models list`"
            )
        mine = self._of(model)
        present = mine[-1].checkpoint if mine else self._start[model]
        if checkpoint == present:
            raise InvalidRequest(
                f"promotion of {model} {checkpoint}: expected another checkpoint, it answers "
                "already; see `alphapulse models list`"
            )
        event_ns = max(after_ns, mine[-1].event_ns if mine else -1) + 1
        return Promotion(
            run=run,
            model=model,
            event_ns=event_ns,
            checkpoint=checkpoint,
            before=present,
            reason=reason,
        )

    def add(self, promotion: Promotion) -> None:
        """Take a promotion that is durable."""
        self._promotions.append(promotion)
        self._promotions.sort(key=lambda p: p.event_ns)

    def _of(self, model: str) -> list[Promotion]:
        return [p for p in self._promotions if p.model == model]
