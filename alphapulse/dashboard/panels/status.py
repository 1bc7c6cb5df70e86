"""Show whether the cluster is there, how it fares, and what is loud right now."""

from __future__ import annotations

from typing import Any

from alphapulse.dashboard import wording
from alphapulse.dashboard.panels.reading import (
    Row,
    coloured,
    connection,
    is_cut_off,
    label,
    section,
    table,
    trader,
)
from alphapulse.domain.status import Alert, Command, Snapshot
from alphapulse.interfaces import Panel

HALTED = "TradingHalted"  # code of an alert that has a banner of its own
NUM_ALERTS = 4  # shown at once


class StatusPanel(Panel):
    """One line on the run, and a banner when the API is gone or its data stands still."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the banner if there is need of one, then the line."""
        self._banner(snapshot, canvas)
        section(snapshot, canvas, "status", empty="nothing known of a run yet")
        facts = [
            *self._run(snapshot),
            *self._processes(snapshot),
            *self._counters(snapshot),
            *self._source(snapshot),
        ]
        if facts and is_cut_off(snapshot):
            facts = ["last known", *facts]
        if facts:
            canvas.markdown(" &nbsp;·&nbsp; ".join(facts))
        return None

    def _banner(self, snapshot: Snapshot, canvas: Any) -> None:
        link = connection(snapshot)
        if link.get("unreachable_since"):
            age = (
                "nothing was ever received"
                if link["age_s"] is None
                else f"what is shown is stale: {wording.duration(link['age_s'])} old"
            )
            canvas.error(
                f"**API unreachable since {link['unreachable_since']}** ({link['api']}); {age}. "
                "The page looks again every second; `alphapulse status` says whether the cluster "
                "runs."
            )
        elif link.get("is_stale"):
            canvas.warning(
                f"**Stale: no progress for {wording.duration(link['still_s'])}** while the feed "
                f"runs; the newest state is of {wording.moment(snapshot.sections.get('event_at'))} "
                "UTC. See processes and errors below."
            )
        elif trader(snapshot).get("ended"):
            canvas.info("The recording has ended: these are its last figures.")

    def _run(self, snapshot: Snapshot) -> list[str]:
        run = (snapshot.sections.get("status") or {}).get("run")
        facts = []
        if run:
            source = run.get("recording") or "live"
            facts.append(f"**run {run['number']}** {wording.literal(source)}")
        at = snapshot.sections.get("event_at") or snapshot.event_ns
        if at:
            facts.append(f"market time **{wording.moment(at)}** UTC")
        return facts

    def _processes(self, snapshot: Snapshot) -> list[str]:
        rows = snapshot.sections.get("processes") or ()
        down = [row for row in rows if row["state"] != "running"]
        if not rows:
            return []
        if not down:
            colour = "gray" if is_cut_off(snapshot) else "green"
            return [coloured(f"{len(rows)} processes running", colour)]
        names = ", ".join(wording.literal(f"{row['name']} {row['state']}") for row in down)
        return [coloured(f"{len(down)} of {len(rows)} processes not running: {names}", "orange")]

    def _counters(self, snapshot: Snapshot) -> list[str]:
        status = snapshot.sections.get("status") or {}
        feed = status.get("feed") or snapshot.sections.get("counters") or {}
        facts = [f"{wording.number(feed['events'])} events"] if "events" in feed else []
        made = trader(snapshot)
        if made.get("decisions"):
            count = sum(sum(by.values()) for by in made["decisions"].values())
            facts.append(f"{wording.number(count)} decisions")
        if made.get("decision_ms"):
            p50, p99 = made["decision_ms"]["p50"], made["decision_ms"]["p99"]
            facts.append(f"{wording.number(p50)} / {wording.number(p99)} ms (p50 / p99)")
        if made.get("incomplete"):
            facts.append(coloured(f"{made['incomplete']} inputs incomplete", "orange"))
        return facts

    def _source(self, snapshot: Snapshot) -> list[str]:
        """Return how the venue is; a recording has nothing to tell."""
        status = snapshot.sections.get("status") or {}
        health = (status.get("feed") or {}).get("health") or {}
        ages = [
            age
            for source in (health.get("symbols") or {}).values()
            for stream, age in source["age_s"].items()
            if age is not None and stream != "candle"  # a candle comes once a minute
        ]
        facts = [f"oldest stream {max(ages):.1f} s"] if ages else []
        if health.get("skew_ms") is not None:
            facts.append(f"venue's clock {health['skew_ms']:+.0f} ms")
        return facts


class AlertsPanel(Panel):
    """What a person must know at once: a halt and every alert, each with what to do about it."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw a banner each; none where all is well."""
        risk = snapshot.sections.get("risk") or {}
        is_halted = bool(risk.get("is_halted"))
        if is_halted:
            canvas.error(self._halt(risk))
        lines = [
            _told(alert) for alert in snapshot.alerts if not (is_halted and alert.code == HALTED)
        ]
        if len(lines) > NUM_ALERTS:
            lines[NUM_ALERTS:] = [f"and {len(lines) - NUM_ALERTS} more; see errors below"]
        if lines:
            canvas.warning("  \n".join(lines))
        elif "alerts" not in snapshot.sections:
            section(snapshot, canvas, "alerts", empty="no alerts")
        return None

    def _halt(self, risk: Row) -> str:
        standing = [halt for halt in risk.get("halts") or () if halt["cleared_ns"] is None]
        why = "; ".join(
            f"{wording.literal(h['reason'])} ({wording.moment(h['event_ns'])} UTC)"
            for h in standing
        )
        return (
            f"**Trading is halted**: {why or 'the reason is not known'}. What was open is "
            "closed, and nothing is opened until a person clears the halt: give a reason on the "
            "left and press *resume trading*, or run `alphapulse resume`."
        )


class ErrorsPanel(Panel):
    """The errors so far, each with its remedy."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the table, or that nothing went wrong."""
        errors = section(snapshot, canvas, "errors", empty="no errors logged")
        if errors:
            table(canvas, [self._error(row) for row in errors])
        return None

    def _error(self, row: Row) -> Row:
        return {
            "error": coloured(wording.literal(row["code"]), "red"),
            "count": wording.number(row["count"]),
            "last": wording.moment(row["last_at"]),
            "message": wording.literal(row["message"]),
            "what to do": wording.literal(row["remedy"]),
        }


class PricesPanel(Panel):
    """The newest price of every symbol, with bid and ask."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw one number a symbol."""
        market = section(snapshot, canvas, "market", empty="no market data yet")
        if not market:
            return None
        columns = canvas.columns(len(market))
        for column, (symbol, seen) in zip(columns, market.items(), strict=True):
            column.metric(
                label(snapshot, symbol),
                wording.price(seen.get("price")),
                self._note(seen),
                delta_color="off",
                delta_arrow="off",
                border=True,
            )
        return None

    def _note(self, seen: Row) -> str:
        if seen.get("is_down"):
            return "feed down"
        bid, ask = seen.get("bid"), seen.get("ask")
        if bid is None or ask is None:
            return "book not known"
        return f"{wording.price(bid)} / {wording.price(ask)}"


def _told(alert: Alert) -> str:
    since = f" ({wording.moment(alert.event_ns)} UTC)" if alert.event_ns else ""
    message, remedy = wording.literal(alert.message), wording.literal(alert.remedy)
    return f"**{wording.literal(alert.code)}** {message}{since} → {remedy}"
