"""Hold every Panel to its promise: draws the snapshot, never numbers that are not there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from alphapulse.domain.status import Alert, Command, Snapshot
from alphapulse.interfaces import Panel
from tests.contracts.factories import factory_of
from tests.contracts.finding import assert_documented, implementations

EXPECTED = {
    "AccountPanel", "AccuracyPanel", "AlertsPanel", "BookPanel", "CandlesPanel", "DecisionsPanel",
    "EquityPanel", "ErrorsPanel", "HaltPanel", "OrdersPanel", "PricesPanel", "ProcessesPanel",
    "RiskPanel", "StatusPanel", "ThresholdsPanel", "TrainingPanel",
}  # fmt: skip

EMPTY = Snapshot(None, {})
FULL = Snapshot(
    1_723_161_300_000_000_000,
    {
        "processes": [{"name": "trader", "state": "running", "pid": 4242}],
        "market": {"ETH/USDT": {"price": 2601.25}, "BTC/USDT": {"price": 61001.5}},
        "decisions": [{"symbol": "ETH/USDT", "action": "buy", "confidence": 0.61}],
        "counters": {"events": 12345, "errors": 0},
    },
    (Alert("FeedDown", "BTC/USDT: no events for 7 s", "check the network", 1),),
)


class Canvas:
    """Takes every drawing call a canvas knows and remembers the text of its arguments.

    Like streamlit, it hands out parts of itself that are canvases too; no button is pressed.
    """

    def __init__(self, drawn: list[str] | None = None) -> None:
        self.drawn = [] if drawn is None else drawn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **named: self._draw(name, arguments, named)

    def _draw(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.drawn.append(f"{name}: {arguments} {named}")
        if name == "columns":
            count = arguments[0] if isinstance(arguments[0], int) else len(arguments[0])
            return [Canvas(self.drawn) for _ in range(count)]
        return False if "button" in name else Canvas(self.drawn)

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __bool__(self) -> bool:
        return False


def drawn(panel: Panel, snapshot: Snapshot) -> str:
    canvas = Canvas()
    panel.render(snapshot, canvas)
    return "\n".join(canvas.drawn)


def check_docstrings(panel: Panel) -> None:
    assert_documented(type(panel))


def check_snapshot_is_drawn_and_not_changed(panel: Panel) -> None:
    snapshot = copy.deepcopy(FULL)

    assert drawn(panel, snapshot), "nothing was drawn"
    assert snapshot == FULL, "the snapshot was changed"


def check_same_snapshot_same_drawing(panel: Panel) -> None:
    assert drawn(panel, FULL) == drawn(panel, FULL)


def check_empty_snapshot_is_shown_as_empty(panel: Panel) -> None:
    text = drawn(panel, EMPTY)
    shown = [line for line in text.splitlines() if line.startswith(("metric", "line_chart"))]

    assert text, "an empty snapshot must be said to be empty"
    assert shown == [], "numbers were shown of which there are none"


def check_nobody_asked_for_anything(panel: Panel) -> None:
    asked = [panel.render(snapshot, Canvas()) for snapshot in (EMPTY, FULL)]

    assert asked == [None, None], "a command without a person"


class ExamplePanel(Panel):
    """The smallest panel that keeps the promise: the number of events, and a button."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the counter, or that there is none."""
        counters = snapshot.sections.get("counters")
        if counters is None:
            canvas.info("no counters yet")
            return None
        canvas.metric("events", counters["events"])
        return Command("halt") if canvas.button("halt") else None


class Blank(ExamplePanel):
    """Breaks the promise: draws nothing."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Do nothing."""
        return None


class Zero(ExamplePanel):
    """Breaks the promise: shows zero for what is not there."""

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Draw the counter, zero without one."""
        canvas.metric("events", snapshot.sections.get("counters", {}).get("events", 0))
        return None


class Restless(ExamplePanel):
    """Breaks the promise: draws another thing each time, and presses its own button."""

    count = 0

    def render(self, snapshot: Snapshot, canvas: Any) -> Command | None:
        """Count, draw, and ask."""
        self.count += 1
        canvas.text(self.count)
        return Command("halt")


class Undocumented(ExamplePanel):
    __doc__ = None


Check = Callable[[Panel], None]
CHECKS: list[Check] = [v for name, v in sorted(globals().items()) if name.startswith("check_")]
BROKEN: list[tuple[Check, type[ExamplePanel]]] = [
    (check_docstrings, Undocumented),
    (check_snapshot_is_drawn_and_not_changed, Blank),
    (check_same_snapshot_same_drawing, Restless),
    (check_empty_snapshot_is_shown_as_empty, Zero),
    (check_nobody_asked_for_anything, Restless),
]


@pytest.fixture(params=[*implementations(Panel).values(), ExamplePanel], ids=lambda k: k.__name__)
def panel(request: pytest.FixtureRequest) -> Panel:
    if request.param is ExamplePanel:
        return ExamplePanel()
    made: Panel = factory_of(request.param)(request)
    return made


def test_suite_holds_every_panel_there_is() -> None:
    assert set(implementations(Panel)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_panel_keeps_its_promise(check: Check, panel: Panel) -> None:
    check(panel)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(check: Check, kind: type[ExamplePanel]) -> None:
    with pytest.raises(AssertionError):
        check(kind())


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
