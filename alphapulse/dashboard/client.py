"""Ask the API for everything the monitor shows, and hand on what a person asks for.

The monitor knows the cluster by HTTP alone: it never imports Ray, survives restarts of the head,
and its end ends nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from alphapulse.dashboard.routes import ROUTES, Route, routes_of, routes_of_chart
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.status import Alert, Command, Snapshot

TIMEOUT_S = 2.0  # how long the API may take to answer [s]
STILL_S = 5.0  # how long a running feed may show no progress before its data is stale [s]
RETRY_S = 1.0  # between two looks whether an unreachable API is back [s]
REFUSED_S = 10.0  # until a question the API could not answer is asked again [s]
FEEDS = ("feed", "market_data")  # names of the process whose standstill makes data stale


@dataclass(slots=True)
class Kept:
    """What is known about a question: its newest answer, and why there is no newer one."""

    value: Any = None
    at_s: float | None = None
    due_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a command, in a sentence."""

    is_done: bool
    text: str


class Client:
    """The API as the monitor sees it; one serves every page and thread of a process.

    ```python
    client = Client("http://127.0.0.1:8000/api/v1", token)
    snapshot = client.snapshot("ETH/USDT")
    reply = client.send(Command("halt", {"reason": "the venue is down"}))
    ```
    """

    def __init__(self, api_url: str, token: str, *, now: Callable[[], float] = time.time) -> None:
        self._url = api_url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        self._unreachable_s: float | None = None
        self._tried_s = 0.0
        self._answered_s: float | None = None
        self._progress: tuple[Any, float | None] = (None, None)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def snapshot(self, symbol: str | None = None) -> Snapshot:
        """Return everything known by now, asking for what is due.

        Args:
            symbol: whose charts and book to show; None is the first there is.

        Returns:
            Sections by name, each as its route answers, absent before the first answer; `candles`,
            `pivots` and `forecasts` by timeframe, `decisions` and `advice` newest first, and
            `connection`: since when the API is unreachable, age, standstill and problems.
        """
        with self._lock:
            self._refresh(ROUTES)
            symbols = self._symbols()
            chosen = symbol if symbol in symbols else next(iter(symbols), None)
            more = [*routes_of(symbols), *(routes_of_chart(chosen) if chosen else ())]
            self._refresh(more)
            return self._assemble([*ROUTES, *more], chosen)

    def send(self, command: Command) -> Reply:
        """Ask the API for what a person asked for and return what became of it.

        Raises InvalidRequest if there is no such command.
        """
        method, path, body = request_of(command)
        try:
            answer = self._http.request(method, self._url + path, json=body)
        except httpx.TransportError as error:
            return Reply(False, f"{command.name}: the API does not answer ({_name(error)})")
        with self._lock:
            for route in ROUTES:  # ask anew, to show what it changed
                self._kept.setdefault(route.path, Kept()).due_s = 0.0
            if answer.is_success and command.name == "thresholds":
                self._keep(self._kept["/thresholds"], answer.json(), every_s=2)
        if answer.is_success:
            return Reply(True, f"{command.name}: done{_arguments(command)}")
        return Reply(False, f"{command.name}: {problem_of(answer)}")

    def _refresh(self, routes: Sequence[Route]) -> None:
        if self._unreachable_s is not None and not self._is_back():
            return
        for route in routes:
            kept = self._kept.setdefault(route.path, Kept())
            if self._now() < kept.due_s:
                continue
            try:
                answer = self._http.get(self._url + route.path)
            except httpx.TransportError as error:
                is_slow = isinstance(error, httpx.TimeoutException)
                kept.problem = _name(error)
                kept.due_s = self._now() + (REFUSED_S if is_slow else RETRY_S)
                if not self._answers():
                    self._unreachable_s = self._tried_s = self._now()
                    return
                continue
            self._answered_s = self._now()
            if answer.is_success:
                said = answer.json()
                self._keep(kept, said[route.field] if route.field else said, every_s=route.every_s)
            else:
                kept.problem, kept.due_s = problem_of(answer), self._now() + REFUSED_S

    def _keep(self, kept: Kept, value: Any, *, every_s: float) -> None:
        kept.value, kept.problem, kept.at_s = value, "", self._now()
        kept.due_s = kept.at_s + every_s

    def _is_back(self) -> bool:
        if self._now() - self._tried_s < RETRY_S:
            return False
        self._tried_s = self._now()
        if not self._answers():
            return False
        self._unreachable_s = None
        for kept in self._kept.values():
            kept.due_s = 0.0
        return True

    def _answers(self) -> bool:
        try:
            self._http.get(f"{self._url}/ping")
        except httpx.TransportError:
            return False
        return True

    def _value(self, path: str) -> Any:
        kept = self._kept.get(path)
        return None if kept is None else kept.value

    def _symbols(self) -> tuple[str, ...]:
        market = self._value("/snapshot") or {}
        trader = (self._value("/status") or {}).get("trader") or {}
        return tuple(market.get("symbols") or trader.get("latest") or ())

    def _assemble(self, routes: Sequence[Route], symbol: str | None) -> Snapshot:
        sections: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for route in routes:
            kept = self._kept.get(route.path, Kept())
            if kept.problem and kept.value is not None and kept.at_s is not None:
                problems[route.section] = f"{kept.problem}; shown as of {_iso(kept.at_s)}"
            elif kept.problem:
                problems[route.section] = kept.problem
            if kept.value is not None:
                if route.part:
                    sections.setdefault(route.section, {})[route.part] = kept.value
                else:
                    sections[route.section] = kept.value
        market = sections.pop("market", None) or {}
        sections |= {"market": market["symbols"]} if "symbols" in market else {}
        sections |= {"event_at": market["event_at"]} if "event_at" in market else {}
        sections |= {"symbol": symbol} if symbol else {}
        for name in ("decisions", "advice"):
            if name in sections:
                rows = [row for part in sections[name].values() for row in part]
                sections[name] = sorted(rows, key=lambda row: -row["event_ns"])
        alerts = tuple(_alert(row) for row in sections.get("alerts", ()))
        sections["connection"] = self._connection(sections, problems)
        return Snapshot(_newest_ns(sections), sections, alerts)

    def _connection(
        self, sections: Mapping[str, Any], problems: Mapping[str, str]
    ) -> dict[str, Any]:
        now = self._now()
        seen = sections.get("event_at") or _newest_ns(sections)
        if seen != self._progress[0]:
            self._progress = (seen, now)
        still_s = None if self._progress[1] is None else now - self._progress[1]
        stands_still = still_s is not None and still_s > STILL_S and _feed_runs(sections)
        since = self._unreachable_s
        return {
            "api": self._url,
            "unreachable_since": None if since is None else _iso(since),
            "age_s": None if self._answered_s is None else now - self._answered_s,
            "still_s": still_s,
            "is_stale": since is not None or stands_still,
            "problems": problems,
        }


def request_of(command: Command) -> tuple[str, str, dict[str, Any] | None]:
    """Return method, path and body of a command; raises InvalidRequest if there is none such."""
    arguments = dict(command.arguments)
    if command.name == "thresholds":
        return "PUT", "/thresholds", arguments
    if command.name in ("halt", "resume"):
        return "POST", f"/{command.name}", arguments
    if command.name in ("start", "stop"):
        name = quote(arguments["process"], safe="")
        return "POST", f"/processes/{name}/{command.name}", None
    raise InvalidRequest(
        f"command: expected thresholds, halt, resume, start or stop, was {command.name!r}; "
        "add its route to request_of"
    )


def problem_of(answer: httpx.Response) -> str:
    """Return in a sentence why an answer is none; the API says it as problem+json."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, Mapping):
        return f"answered {answer.status_code} {answer.reason_phrase}"
    title = said.get("title") or answer.reason_phrase
    return f"answered {answer.status_code} {title}: {said.get('detail', 'no detail')}"


def _feed_runs(sections: Mapping[str, Any]) -> bool:
    trader = (sections.get("status") or {}).get("trader") or {}
    states = [row["state"] for row in sections.get("processes", ()) if row["name"] in FEEDS]
    return not trader.get("ended") and all(state == "running" for state in states)


def _newest_ns(sections: Mapping[str, Any]) -> int | None:
    trader = (sections.get("status") or {}).get("trader") or {}
    times = [row["event_ns"] for row in (trader.get("latest") or {}).values()]
    return max(times, default=trader.get("to_ns"))


def _alert(row: Mapping[str, Any]) -> Alert:
    return Alert(row["code"], row["message"], row["remedy"], row["event_ns"])


def _arguments(command: Command) -> str:
    said = ", ".join(f"{name} {value}" for name, value in command.arguments.items())
    return f" ({said})" if said else ""


def _name(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {TIMEOUT_S:.0f} s"
    return f"connection lost: {type(error).__name__}"


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(int(at_s), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
