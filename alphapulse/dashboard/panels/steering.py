"""Let a person steer: thresholds, halt and resume, start and stop of every process."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from alphapulse.dashboard import wording
from alphapulse.dashboard.panels.reading import Row, coloured, is_cut_off, section
from alphapulse.domain.status import Command, Snapshot
from alphapulse.interfaces import Panel

THRESHOLDS = ("entry", "exit")
ASKED = "asked for on the monitor"  # the reason of a person who gave none
STATE_COLOURS = {"running": "green", "stopped": "gray", "off": "gray", "starting": "orange"}


class ThresholdsPanel(Panel):
    """Two sliders; they follow the thresholds in force until a person moves one.

    Attributes:
        memory: where the widgets keep their values, under their keys.
    """

    def __init__(self, memory: MutableMapping[Any, Any]) -> None:
        self.memory = memory

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the sliders and return new thresholds if one was moved by hand."""
        now = section(snapshot, canvas, "thresholds", empty="thresholds not known yet")
        if not now:
            return None
        is_moved = self.memory.pop("a threshold was moved", False)
        for name in THRESHOLDS:
            key = f"{name} threshold"
            if not is_moved and self.memory.get(key) != now[name]:
                self.memory[key] = float(now[name])
            canvas.slider(
                key,
                min_value=0.0,
                max_value=1.0,
                step=0.01,
                key=key,
                on_change=self._remember,
            )
        canvas.caption(
            f"in force: enter at {wording.number(now['entry'], decimals=2)}, "
            f"exit at {wording.number(now['exit'], decimals=2)}"
        )
        if not is_moved:
            return None
        return Command(
            "thresholds", {name: self.memory[f"{name} threshold"] for name in THRESHOLDS}
        )

    def _remember(self) -> None:
        self.memory["a threshold was moved"] = True


class HaltPanel(Panel):
    """The button that halts trading and the one that clears a halt, each with a reason."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the form that fits the state and return what was asked for.

        Where the state is not known, trading can still be halted.
        """
        risk = section(snapshot, canvas, "risk", empty="not known whether trading is halted") or {}
        name = "resume" if risk.get("is_halted") else "halt"
        if name == "resume":
            canvas.markdown(coloured("**trading is halted**", "red"))
        form = canvas.form(name, clear_on_submit=True, enter_to_submit=False, border=False)
        reason = form.text_input("reason", placeholder=ASKED, key=f"{name} reason")
        if not form.form_submit_button(f"{name} trading", type="primary", width="stretch"):
            return None
        return Command(name, {"reason": reason.strip() or ASKED})


class ProcessesPanel(Panel):
    """State of every process, and a button to start or stop each that a person may switch."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw a line a process and return the switch that was pressed."""
        rows = section(snapshot, canvas, "processes", empty="no processes known yet")
        asked: Command | None = None
        others: list[Row] = []
        for row in rows or ():
            if not _is_switch(row):
                others.append(row)
                continue
            text, button = canvas.columns([8, 7], vertical_alignment="center")
            text.markdown(_line(row, is_old=is_cut_off(snapshot)))
            if row["state"] == "off":  # this `up` was told to leave it out
                continue
            verb = "stop" if _is_wanted(row) else "start"
            name = row["name"]
            if button.button(f"{verb} {name}", key=f"switch {name}", width="stretch"):
                asked = Command(verb, {"process": name})
        if others:
            canvas.caption(
                " &nbsp;·&nbsp; ".join(_line(row, is_old=is_cut_off(snapshot)) for row in others)
            )
        return asked


def _is_switch(row: Row) -> bool:
    return "wanted" in row  # an actor of the same name has no switch of its own


def _is_wanted(row: Row) -> bool:
    wanted = row.get("wanted")
    if wanted is None:
        return bool(row["state"] == "running")
    return wanted in (True, "running")


def _line(row: Row, *, is_old: bool) -> str:
    colour = "gray" if is_old else STATE_COLOURS.get(row["state"], "red")
    state = coloured(f"last known {row['state']}" if is_old else row["state"], colour)
    return f"{wording.literal(wording.words(row['name']))} {state}"
