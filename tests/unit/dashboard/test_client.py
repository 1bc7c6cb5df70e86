"""Does the client ask what the API knows, keep what it heard, and say how old that is?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from alphapulse.dashboard.client import Client, request_of
from alphapulse.dashboard.routes import ROUTES
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.status import Alert, Command, Snapshot
from tests.unit.dashboard.api import BTC, ETH, EVENT_NS, TOKEN, Api, decisions

NOON = 1_800_000_000.0  # wall clock of a test [s]


class Clock:
    """A wall clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(api: Api, clock: Clock) -> Iterator[Client]:
    made = Client(api.url, TOKEN, now=clock)
    yield made
    made.close()


def link(snapshot: Snapshot) -> dict[str, object]:
    found: dict[str, object] = snapshot.sections["connection"]
    return found


def test_snapshot_holds_every_section_as_its_route_answers(api: Api, client: Client) -> None:
    snapshot = client.snapshot()

    assert snapshot.event_ns == EVENT_NS
    assert {route.section for route in ROUTES} <= set(snapshot.sections)
    assert snapshot.sections["market"] == api.answers["/snapshot"]["symbols"]
    assert snapshot.sections["event_at"] == "2024-08-08T23:55:17Z"
    for name in ("risk", "thresholds", "positions", "processes", "training", "accuracy"):
        assert snapshot.sections[name] == api.answers[f"/{name}"]
    assert link(snapshot)["problems"] == {}


def test_alerts_become_alerts(api: Api, client: Client) -> None:
    row = api.answers["/alerts"][0]

    snapshot = client.snapshot()

    assert snapshot.alerts == (Alert(row["code"], row["message"], row["remedy"], EVENT_NS),)


def test_charts_are_of_the_chosen_symbol_in_every_timeframe(api: Api, client: Client) -> None:
    snapshot = client.snapshot(BTC)

    asked = {(r.parameters["symbol"], r.parameters["timeframe"]) for r in api.asked("/candles")}
    assert asked == {(BTC, name) for name in ("1s", "1m", "1h", "1d")}
    assert snapshot.sections["symbol"] == snapshot.sections["book"]["symbol"] == BTC
    assert set(snapshot.sections["candles"]) == {"1s", "1m", "1h", "1d"}
    assert snapshot.sections["forecasts"]["1h"][0]["symbol"] == BTC


def test_unknown_choice_shows_the_first_symbol(client: Client) -> None:
    assert client.snapshot("DOGE/USDT").sections["symbol"] == ETH


def test_decisions_of_both_symbols_come_newest_first(client: Client) -> None:
    rows = client.snapshot().sections["decisions"]

    times = [row["event_ns"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert {row["symbol"] for row in rows[:2]} == {ETH, BTC}
    assert len(rows) == sum(len(decisions(symbol, "20")) for symbol in (ETH, BTC))


def test_answers_are_asked_for_again_only_when_they_are_due(
    api: Api, client: Client, clock: Clock
) -> None:
    client.snapshot()
    api.requests.clear()

    client.snapshot()
    assert api.requests == []

    clock.now += 1.5
    client.snapshot()
    assert [request.path for request in api.requests] == ["/status", "/snapshot", "/risk"]


def test_every_question_bears_the_token(api: Api, clock: Clock) -> None:
    stranger = Client(api.url, "another", now=clock)

    snapshot = stranger.snapshot()

    stranger.close()
    problems = link(snapshot)["problems"]
    assert isinstance(problems, dict)
    assert "401 Unauthorized: expected the token, came 'another'" in problems["status"]
    assert snapshot.event_ns is None
    assert "risk" not in snapshot.sections


def test_route_that_fails_leaves_the_others_and_says_why(api: Api, client: Client) -> None:
    api.failures["/risk"] = 503

    snapshot = client.snapshot()

    assert "risk" not in snapshot.sections
    assert snapshot.sections["thresholds"] == {"entry": 0.6, "exit": 0.5}
    problems = link(snapshot)["problems"]
    assert problems == {"risk": "answered 503 Unavailable: /risk is not there"}
    assert link(snapshot)["unreachable_since"] is None


def test_route_that_fails_later_keeps_its_answer_and_its_age(
    api: Api, client: Client, clock: Clock
) -> None:
    before = client.snapshot()
    api.failures["/risk"] = 503
    clock.now += 2

    after = client.snapshot()

    assert after.sections["risk"] == before.sections["risk"]
    problems = link(after)["problems"]
    assert isinstance(problems, dict)
    assert problems["risk"].endswith("shown as of 2027-01-15T08:00:00Z")


def test_unreachable_api_is_remembered_since_when_and_data_stays(
    api: Api, client: Client, clock: Clock
) -> None:
    before = client.snapshot()
    api.stop()
    clock.now += 3
    first = client.snapshot()
    clock.now += 60
    second = client.snapshot()

    since = datetime.fromtimestamp(NOON + 3, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert link(first)["unreachable_since"] == link(second)["unreachable_since"] == since
    assert (link(first)["age_s"], link(second)["age_s"]) == (3.0, 63.0)
    assert link(first)["is_stale"]
    assert second.sections["candles"] == before.sections["candles"]
    assert second.sections["risk"] == before.sections["risk"]


def test_api_that_comes_back_is_asked_everything_anew(
    api: Api, client: Client, clock: Clock
) -> None:
    client.snapshot()
    api.stop()
    clock.now += 3
    client.snapshot()
    api.answers["/thresholds"] = {"entry": 0.7, "exit": 0.4}
    api.answers["/snapshot"]["event_at"] = "2024-08-08T23:55:21Z"
    api.start()
    clock.now += 1

    snapshot = client.snapshot()

    assert link(snapshot)["unreachable_since"] is None
    assert not link(snapshot)["is_stale"]
    assert snapshot.sections["thresholds"] == {"entry": 0.7, "exit": 0.4}


def test_api_that_was_never_there_gives_an_empty_snapshot(clock: Clock) -> None:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        lonely = Client(f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1", TOKEN, now=clock)

        snapshot = lonely.snapshot()

    lonely.close()
    assert snapshot.event_ns is None
    assert set(snapshot.sections) == {"connection"}
    assert link(snapshot)["age_s"] is None
    assert link(snapshot)["unreachable_since"] == "2027-01-15T08:00:00Z"


def test_api_that_hangs_holds_the_page_for_seconds_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, never answers
        hung = Client(f"http://127.0.0.1:{mute.getsockname()[1]}/api/v1", TOKEN)
        began = time.monotonic()

        snapshot = hung.snapshot()

    hung.close()
    assert time.monotonic() - began < 6
    assert link(snapshot)["unreachable_since"]


@pytest.mark.parametrize(
    ("seconds", "state", "ended", "is_stale"),
    [
        (4, "running", False, False),
        (6, "running", False, True),
        (600, "stopped", False, False),
        (600, "running", True, False),
    ],
)
def test_standstill_is_stale_only_while_the_feed_runs(
    api: Api, client: Client, clock: Clock, seconds: int, state: str, ended: bool, is_stale: bool
) -> None:
    api.answers["/processes"][0]["state"] = state
    api.answers["/status"]["trader"]["ended"] = ended
    client.snapshot()
    clock.now += seconds

    snapshot = client.snapshot()

    assert link(snapshot)["still_s"] == seconds
    assert link(snapshot)["is_stale"] is is_stale


def test_progress_ends_the_standstill(api: Api, client: Client, clock: Clock) -> None:
    client.snapshot()
    clock.now += 60
    api.answers["/snapshot"]["event_at"] = "2024-08-08T23:56:17Z"

    snapshot = client.snapshot()

    assert link(snapshot)["still_s"] == 0
    assert not link(snapshot)["is_stale"]


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (
            Command("thresholds", {"entry": 0.7, "exit": 0.4}),
            ("PUT", "/thresholds", {"entry": 0.7, "exit": 0.4}),
        ),
        (Command("halt", {"reason": "news"}), ("POST", "/halt", {"reason": "news"})),
        (Command("resume", {"reason": "over"}), ("POST", "/resume", {"reason": "over"})),
        (Command("stop", {"process": "feed"}), ("POST", "/processes/feed/stop", None)),
        (Command("start", {"process": "feed"}), ("POST", "/processes/feed/start", None)),
    ],
    ids=lambda value: value.name if isinstance(value, Command) else "",
)
def test_command_reaches_its_route(
    api: Api, client: Client, command: Command, sent: tuple[str, str, object]
) -> None:
    reply = client.send(command)

    assert reply.is_done, reply.text
    assert api.commands == [sent]


def test_refused_command_says_why(api: Api, client: Client) -> None:
    reply = client.send(Command("thresholds", {"entry": 0.3, "exit": 0.4}))

    assert not reply.is_done
    assert reply.text == "thresholds: answered 422 InvalidRequest: expected exit <= entry"


def test_command_to_an_api_that_is_gone_says_so(api: Api, client: Client) -> None:
    api.stop()

    reply = client.send(Command("halt", {"reason": "news"}))

    assert not reply.is_done
    assert reply.text.startswith("halt: the API does not answer")


def test_what_a_command_changed_is_seen_at_once(client: Client) -> None:
    client.snapshot()

    client.send(Command("halt", {"reason": "news"}))

    assert client.snapshot().sections["risk"]["is_halted"] is True


def test_unknown_command_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="expected thresholds, halt"):
        request_of(Command("dance"))


def test_snapshot_of_whatever_fails_never_raises(api: Api, client: Client, clock: Clock) -> None:
    for status in (500, 503):
        for path in list(api.answers):
            api.failures = {path: status}
            clock.now += 100

            client.snapshot()
