"""Give Prometheus the counters of history and trader, and what the batches to the lake held."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from alphapulse.alerting import Away, ask, standing
from alphapulse.cluster import ACTORS
from serve_apps.doors import Behind

PREFIX = "alphapulse"
router = APIRouter()


@router.get("/metrics")
async def metrics(behind: Behind) -> Response:
    """Return every metric in Prometheus's text format; scrape it with the token as bearer.

    Of an actor that does not answer there are none but `alphapulse_up`, which is 0.
    """
    history, trader, feedback, now = await asyncio.gather(
        ask(behind.history, behind.history.metrics()),
        ask(behind.trader, behind.trader.status()),
        ask(behind.feedback, behind.feedback.pid()),
        standing(behind.trader, behind.market, behind.history, behind.settings),
    )
    silent = [answer for answer in (history, trader, feedback) if isinstance(answer, Away)]
    away = now.away | {answer.actor for answer in silent}
    content = text_of(
        history=None if isinstance(history, Away) else history,
        trader=None if isinstance(trader, Away) else trader,
        codes=[alert.code for alert in now.alerts],
        away=away,
    )
    return Response(content, media_type=CONTENT_TYPE_LATEST)


def text_of(
    *,
    history: Mapping[str, Any] | None,
    trader: Mapping[str, Any] | None,
    codes: Sequence[str],
    away: Collection[str],
) -> bytes:
    """Return the metrics as text.

    Args:
        history: what `cluster.History.metrics` says, None if it does not answer.
        trader: what `cluster.Trader.status` says, None if it does not answer.
        codes: of the alerts that hold now.
        away: names of the actors that do not answer.
    """
    families = [
        *([] if history is None else _history(history)),
        *([] if trader is None else _trader(trader)),
        _alerts(codes),
        _up(away),
    ]
    registry = CollectorRegistry()
    registry.register(_Snapshot(families))  # type: ignore[arg-type]
    return generate_latest(registry)


class _Snapshot:
    """Hands out metrics that were read already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from self._families


def _history(history: Mapping[str, Any]) -> list[Metric]:
    counters, batches = history["counters"], history["batches"]
    return [
        _many("history_batch_rows", "Rows moved to the lake.", "table", batches["rows"]),
        _many("history_inputs_masked", "Inputs by code of their validation.", "code",
              batches["validation"]),
        _share("history_completeness", "Share of an input's rows that were there, newest batch.",
               "stream", batches["completeness"]),
        _one("history_batch_lag_seconds", "Age of the oldest decision of the newest batch.",
             batches["lag_s"]),
        _one("history_journal_bytes", "Size of the journal.", counters["journal_bytes"]),
        _one("history_unbatched", "Inferences that are in no batch yet.", counters["unbatched"]),
        _one("history_journal_down", "1 while the journal takes nothing.",
             counters["journal_down"]),
        _one("history_lake_down", "1 while the lake takes nothing.", counters["lake_down"]),
        CounterMetricFamily(f"{PREFIX}_history_batches", "Batches moved.", batches["num"]),
        CounterMetricFamily(f"{PREFIX}_history_failures", "Calls that failed.",
                            counters["failures"]),
        CounterMetricFamily(f"{PREFIX}_history_appended", "Decisions stored.",
                            counters["appended"]),
    ]  # fmt: skip


def _trader(trader: Mapping[str, Any]) -> list[Metric]:
    decisions = CounterMetricFamily(
        f"{PREFIX}_decisions", "Decisions made.", labels=["symbol", "action"]
    )
    for symbol, counts in trader["decisions"].items():
        for action, count in counts.items():
            decisions.add_metric([symbol, action], count)
    return [
        decisions,
        CounterMetricFamily(f"{PREFIX}_records_flagged", "Not durable at once.", trader["flagged"]),
        CounterMetricFamily(f"{PREFIX}_records_lost", "Never durable.", trader["lost"]),
        _one("records_spilled", "Of those, in the spill.", trader["spilled"]),
        CounterMetricFamily(f"{PREFIX}_records_recovered", "Durable later.", trader["recovered"]),
        _one("records_pending", "Decisions that wait for the store.", trader["pending"]),
    ]


def _alerts(codes: Sequence[str]) -> Metric:
    return _share("alert", "1 while an alert holds.", "code", dict.fromkeys(codes, 1.0))


def _up(away: Collection[str]) -> Metric:
    answers = {actor: float(actor not in away) for actor in ACTORS}
    return _share("up", "1 while an actor answers.", "actor", answers)


def _one(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", told, value)


def _many(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(CounterMetricFamily(f"{PREFIX}_{name}", told, labels=[label]), values)


def _share(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(GaugeMetricFamily(f"{PREFIX}_{name}", told, labels=[label]), values)


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]
) -> Metric:
    for value, count in values.items():
        family.add_metric([value], count)
    return family
