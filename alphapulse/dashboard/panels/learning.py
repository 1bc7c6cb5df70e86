"""Show what the cluster learns: rounds with their verdicts, live models, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alphapulse.dashboard import wording
from alphapulse.dashboard.panels.reading import Row, coloured, section, table
from alphapulse.domain.learning import RoundState
from alphapulse.domain.status import Command, Snapshot
from alphapulse.interfaces import Panel

STATES = {
    RoundState.RUNNING: "blue",
    RoundState.PROMOTED: "green",
    RoundState.REJECTED: "gray",
    RoundState.FAILED: "red",
}
NUM_ROUNDS = 12


class TrainingPanel(Panel):
    """Training rounds: state and progress, champion against challenger, and the verdict."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the live models and counts, the round that runs, and the table of rounds."""
        self._counts(snapshot, canvas)
        training = section(snapshot, canvas, "training", empty="no training rounds yet")
        rounds = (training or {}).get("rounds") or []
        if training and not rounds:
            canvas.caption("no training rounds yet")
        for row in rounds:
            if row["state"] == RoundState.RUNNING:
                self._running(row, canvas)
        if rounds:
            table(canvas, [self._round(row) for row in rounds[:NUM_ROUNDS]])
        return None

    def _counts(self, snapshot: Snapshot, canvas: Any) -> None:
        status = snapshot.sections.get("status") or {}
        live = (snapshot.sections.get("models") or {}).get("live") or {}
        facts = [f"{model} `{_short(version)}`" for model, version in live.items()]
        settled = status.get("settlement") or {}
        for name, word in (("settled", "answered"), ("pending", "awaiting an answer")):
            if settled.get(name) is not None:
                facts.append(f"{wording.number(settled[name])} predictions {word}")
        learned = status.get("training") or {}
        facts += [
            f"{name} {wording.number(learned[name])}"
            for name in ("rounds", "promotions")
            if learned.get(name) is not None
        ]
        canvas.markdown(" &nbsp;·&nbsp; ".join(facts) or "live models not known yet")

    def _running(self, row: Row, canvas: Any) -> None:
        text = (
            f"{row['model']}: training since {wording.time_of_day(row['started_at'])} on "
            f"{wording.number(row['num_train'] or None)} examples, "
            f"started by {wording.literal(row['trigger'])}"
        )
        progress = (row.get("figures") or {}).get("progress") or {}
        if progress:
            text += f": {progress['stage']}"
        if progress.get("loss") is not None:
            text += f", loss {progress['loss']:.3f}"
        if progress.get("of"):
            canvas.progress(min(1.0, progress["done"] / progress["of"]), text=text)
        else:
            canvas.info(text)

    def _round(self, row: Row) -> Row:
        return {
            "started": wording.time_of_day(row["started_at"]),
            "model": row["model"],
            "trigger": wording.literal(row["trigger"]),
            "state": coloured(row["state"], STATES[RoundState(row["state"])]),
            "champion": _short(row["champion"]),
            "challenger": _short(row["challenger"]),
            "learned from": wording.number(row["num_train"]),
            "compared on": wording.number(row["num_compared"]),
            "verdict": wording.literal(row["reason"]),
            "figures": _figures(row.get("figures") or {}),
        }


class AccuracyPanel(Panel):
    """How often forecasts and actions came true, by model and timeframe."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the table, or that nothing was answered yet."""
        rows = section(snapshot, canvas, "accuracy", empty="no answered forecasts yet")
        if rows:
            table(canvas, [self._line(row) for row in rows])
        return None

    def _line(self, row: Row) -> Row:
        return {
            "model": row["model"],
            "timeframe": row["timeframe"] or wording.NONE,
            "level": wording.number(row.get("level") or None, none=wording.NONE),
            "answered": wording.number(row["num"]),
            "came true": wording.share(row["hit_rate"], none=wording.NONE),
            "result [R]": wording.signed(row["mean_result_r"], none=wording.NONE),
        }


def _short(version: str | None) -> str:
    return version[:8] if version else wording.NONE


def _figures(figures: Mapping[str, Any]) -> str:
    told = [
        f"{wording.words(name)} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
        if isinstance(value, int | float | str) and name != "progress"
    ]
    return wording.literal(" · ".join(told))
