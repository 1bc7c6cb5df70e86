"""An API on loopback that answers as the real one, checks what it is asked, and remembers it."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from alphapulse.dashboard.client import Client
from alphapulse.domain.market import SECOND_NS, Timeframe
from alphapulse.domain.status import Snapshot

PROGRESS = {"stage": "training", "done": 2, "of": 5, "loss": 1.25}
TOKEN = "a-token-of-the-test"
ETH, BTC = "ETH/USDT", "BTC/USDT"
PRICES = {ETH: 2683.0, BTC: 61828.25}
EVENT_NS = 1_723_161_317 * SECOND_NS
EVENT_AT = "2024-08-08T23:55:17Z"
# which parameters a route cannot do without
PARAMETERS = {
    "/candles": {"symbol", "timeframe", "count"},
    "/pivots": {"symbol", "timeframe"},
    "/inferences": {"symbol", "model", "limit"},
    "/decisions": {"symbol", "limit"},
    "/book": {"symbol"},
}


@dataclass(frozen=True)
class Request:
    """What came: method, path below /api/v1, parameters and body."""

    method: str
    path: str
    parameters: dict[str, str]
    body: Any


class Api:
    """Routes with their answers; change `answers` or `failures` to change what it says."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = plain_answers()
        self.failures: dict[str, int] = {}  # status by path
        self.requests: list[Request] = []
        self.faults: list[str] = []  # what came and should not have
        self.port = 0
        self.connections: list[socket.socket] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def commands(self) -> list[tuple[str, str, Any]]:
        return [(r.method, r.path, r.body) for r in self.requests if r.method != "GET"]

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self.connections:  # those kept alive end with it
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def answer(self, request: Request, *, token: str) -> tuple[int, Any]:
        if request.path == "/ping":
            return 200, {"status": "ok"}
        if token != TOKEN:
            return 401, _problem(401, "Unauthorized", f"expected the token, came {token!r}")
        if request.path in self.failures:
            status = self.failures[request.path]
            return status, _problem(status, "Unavailable", f"{request.path} is not there")
        if request.method != "GET":
            return self._obey(request)
        missing = PARAMETERS.get(request.path, set()) - set(request.parameters)
        if missing:
            self.faults.append(f"{request.path} without {sorted(missing)}")
            return 422, _problem(422, "InvalidRequest", f"{sorted(missing)} missing")
        if request.path not in self.answers:
            self.faults.append(f"no route {request.path}")
            return 404, _problem(404, "NotFound", request.path)
        found = self.answers[request.path]
        return 200, found(**request.parameters) if callable(found) else found

    def _obey(self, request: Request) -> tuple[int, Any]:
        body = request.body
        match (request.method, request.path.strip("/").split("/")):
            case ("PUT", ["thresholds"]) if set(body) == {"entry", "exit"}:
                if body["exit"] > body["entry"]:
                    return 422, _problem(422, "InvalidRequest", "expected exit <= entry")
                self.answers["/thresholds"] = body
                return 200, body
            case ("POST", ["halt" | "resume" as name]) if set(body) == {"reason"}:
                self.answers["/risk"]["is_halted"] = name == "halt"
                return 200, {"is_halted": name == "halt"}
            case ("POST", ["processes", name, "start" | "stop" as verb]) if body is None:
                row = next(r for r in self.answers["/processes"] if r["name"] == name)
                row["state"] = row["wanted"] = "running" if verb == "start" else "stopped"
                return 200, row
        self.faults.append(f"{request.method} {request.path} {body}")
        return 422, _problem(422, "InvalidRequest", "no such command")


@contextmanager
def running_api() -> Iterator[Api]:
    """Yield an API that answers, and fail if it was asked for what does not exist."""
    api = Api()
    api.start()
    try:
        yield api
    finally:
        api.stop()
    assert api.faults == []


def _handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes
        timeout = 5

        def setup(self) -> None:
            super().setup()
            api.connections.append(self.connection)

        def respond(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            named = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            path = parts.path.removeprefix("/api/v1")
            request = Request(self.command, path, named, body)
            api.requests.append(request)
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            status, said = api.answer(request, token=token)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = respond

        def log_message(self, *_: Any) -> None:
            return

    return Handler


def _problem(status: int, code: str, detail: str) -> dict[str, Any]:
    return {"title": code, "code": code, "status": status, "detail": detail}


def at(ns: int) -> str:
    """Return an instant as the API says it."""
    seconds, rest = divmod(ns, SECOND_NS)
    assert rest == 0, "the API's bars begin at whole seconds"
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def candles(symbol: str, timeframe: str, count: str = "90") -> list[dict[str, Any]]:
    """Return bars on a sine around the symbol's price; the last one is forming."""
    step, price = Timeframe(timeframe), PRICES[symbol]
    last_ns = step.floor(EVENT_NS)
    rows = []
    for i in range(int(count)):
        a, b = (price * (1 + 0.004 * math.sin(k / 5)) for k in (i, i + 1))
        flags = ["valid", "forming"] if i == int(count) - 1 else ["valid"]
        row = {"open": a, "high": max(a, b) * 1.0005, "low": min(a, b) * 0.9995, "close": b}
        open_at = at(last_ns - (int(count) - 1 - i) * step.ns)
        rows.append({"open_at": open_at, **row, "volume": 10.0 + i % 7, "flags": flags})
    return rows


def pivots(symbol: str, timeframe: str) -> list[dict[str, Any]]:
    """Return the sine's turning points, and one that is older than every chart."""
    rows = candles(symbol, timeframe, "400")
    found = []
    for i, (kind, level) in {10: ("L", 3), 340: ("H", 1), 355: ("L", 2), 371: ("H", 3)}.items():
        price = rows[i]["high" if kind == "H" else "low"]
        found.append(
            {"level": level, "kind": kind, "price": price, "pivot_at": rows[i]["open_at"],
             "confirm_at": rows[i + 4]["open_at"]}
        )  # fmt: skip
    return found


def inferences(
    symbol: str, model: str, limit: str, timeframe: str | None = None
) -> list[dict[str, Any]]:
    """Return forecasts for a timeframe, else the model's rows, oldest first."""
    if timeframe is None:
        return [decision(symbol, model, back) for back in reversed(range(int(limit)))]
    ahead_ns = round(3.4 * Timeframe(timeframe).ns)
    row = {"event_ns": EVENT_NS, "symbol": symbol, "timeframe": timeframe, "level": 1}
    row |= {"kind": "H", "price": PRICES[symbol] * 1.003, "pivot_ns": EVENT_NS + ahead_ns}
    return [row | {"p_high": 0.71, "p_low": 0.29, "p_done": 0.6, "confidence": 0.42}]


def decisions(symbol: str, limit: str) -> list[dict[str, Any]]:
    """Return the orchestrator's rows, oldest first."""
    return inferences(symbol, "moe", limit)


def decision(symbol: str, model: str, back: int) -> dict[str, Any]:
    """Return the row of a model `back` seconds ago."""
    buys = symbol == ETH and back == 0
    return {
        "id": f"{model}{symbol}{back}", "event_ns": EVENT_NS - back * SECOND_NS,
        "symbol": symbol, "model": model, "version": "8a6972afa6c48f7f",
        "action": "buy" if buys else "hold", "confidence": 0.61 if buys else 0.83,
        "utility_r": 0.04, "p_buy": 0.61, "p_sell": 0.1, "p_hold": 0.29,
        "weights": '{"flat":0.25,"cnn":0.35,"rl":0.4}' if model == "moe" else "{}",
        "decision_action": "buy" if buys else "hold", "decision_confidence": 0.61,
        "decision_reason": "acts" if buys else "flat_preferred",
        "entry_threshold": 0.6, "exit_threshold": 0.5,
    }  # fmt: skip


def book(symbol: str) -> dict[str, Any]:
    """Return sizes around the price; the lowest asks and the highest bids are not known."""
    price = PRICES[symbol]
    buckets = [
        {"price": price + k, "bids": None if k == -9 else 0.0 if k > 0 else 5.0 - k % 3,
         "asks": 0.0 if k < 0 else 4.0 + k % 4}
        for k in range(-9, 10)
    ]  # fmt: skip
    touch = {"bid": price, "bid_size": 1.5, "ask": price + 0.01, "ask_size": 2.5}
    return {"symbol": symbol, "is_known": True, **touch, "buckets": buckets}


def equity_row(back: int) -> dict[str, Any]:
    """Return the equity `back` seconds ago."""
    now = 10_000 + 12 * math.sin(back / 9)
    row = {"event_ns": EVENT_NS - back * SECOND_NS, "cash": "7500", "equity": f"{now:.4f}"}
    return row | {"peak": "10012.0000", "drawdown": f"{1 - now / 10_012:.6f}"}


def training_rounds() -> list[dict[str, Any]]:
    """Return rounds newest first: one runs, one was promoted, one rejected."""
    base = {
        "run": "22b114b0df26b434", "confirm_ns": EVENT_NS, "trigger": "ETH/USDT 1s L2 H",
        "champion": "5c230e1c3a43b30f", "challenger": "", "num_train": 0, "num_compared": 0,
        "figures": {}, "reason": "", "job": "", "started_at": EVENT_AT, "ended_at": "",
        "live_ns": None,
    }  # fmt: skip
    told = {"challenger": "a2222222b3333333", "num_train": 384, "num_compared": 160}
    won = {"figures": {"e_value": 31.7, "mean_gain": 0.0121}, "live_ns": EVENT_NS}
    return [
        base
        | {"model": "rl", "state": "running", "figures": {"progress": PROGRESS}, "num_train": 384},
        base | told | won | {"model": "cnn", "state": "promoted", "reason": "e-value 31.7 >= 20"},
        base | told | {"model": "moe", "state": "rejected", "reason": "e-value 0.8 < 20"},
    ]


def plain_answers() -> dict[str, Any]:
    """Return what every route says on a good day."""
    latest = {
        symbol: {"event_ns": EVENT_NS, "action": "hold", "confidence": 0.83, "reason": "acts"}
        for symbol in PRICES
    }
    trader = {
        "run": "22b114b0df26b434", "ended": False, "thresholds": {"entry": 0.6, "exit": 0.5},
        "latest": latest, "decisions": {s: {"buy": 1, "sell": 0, "hold": 60} for s in PRICES},
        "decision_ms": {"p50": 20.4, "p99": 113.3}, "from_ns": EVENT_NS - 60 * SECOND_NS,
        "to_ns": EVENT_NS, "incomplete": 0, "pending": 0, "orders": 3, "fills": 2, "refused": 1,
        "stops": 0, "halts": 0, "pnl": {"gross": "8.41", "fees": "4.96", "net": "3.45"},
        "equity": "10003.45", "versions": {"cnn": "6f", "rl": "5c", "moe": "8a"}, "hot_swaps": 1,
    }  # fmt: skip
    price = {s: {"price": p, "bid": p, "ask": p + 0.01, "is_down": False, "num_trades": 9,
                 "num_bars": {"1s": 62}} for s, p in PRICES.items()}  # fmt: skip
    order = {"id": "o1", "symbol": ETH, "event_ns": EVENT_NS, "quantity": "0.9320",
             "purpose": "entry", "stop_price": "2655.10", "state": "filled", "reason": "",
             "inference_id": "i1", "is_stored": True}  # fmt: skip
    refused = order | {"id": "o2", "symbol": BTC, "state": "refused", "is_stored": False,
                       "stop_price": None, "reason": "notional 4.2 below 5"}  # fmt: skip
    switches = ("feed", "trader", "settlement", "training", "dashboard")
    processes = [
        {"name": name, "kind": "process", "pid": 4200 + i, "state": "running", "wanted": "running"}
        for i, name in enumerate(switches)
    ]
    processes += [
        {"name": name, "kind": kind, "pid": 4300, "state": "running"}
        for name, kind in (("market_data", "actor"), ("trader", "actor"), ("cnn", "replica"))
    ]
    remedy = "look at the link to the venue"
    return {
        "/status": {
            "run": {"id": "22b114b0df26b434", "number": 1, "recording": "binance-spot-2024-08"},
            "trader": trader, "feed": {"events": 3851}, "store": {"failures": 0},
            "settlement": {"settled": 610, "pending": 44, "examples": 580},
            "training": {"rounds": 3, "promotions": 1, "running": {"round": "rl"}},
        },
        "/snapshot": {"event_at": EVENT_AT, "version": 61, "symbols": price},
        "/candles": candles, "/pivots": pivots,
        "/inferences": lambda **asked: {"rows": inferences(**asked), "next": None},
        "/decisions": decisions, "/book": book,
        "/equity": lambda limit: [equity_row(back) for back in reversed(range(120))],
        "/orders": lambda limit: [order, refused],
        "/fills": lambda limit: [
            {"order_id": "o1", "number": 1, "event_ns": EVENT_NS, "symbol": ETH,
             "quantity": "0.9320", "price": "2683.02", "fee": "2.50", "source": "book"}],
        "/positions": [
            {"symbol": ETH, "quantity": "0.9320", "entry_price": "2683.02", "entry_ns": EVENT_NS,
             "stop_price": "2655.10", "price": "2684.00", "unrealised": "0.91"}],
        "/risk": {
            "is_halted": False, "halts": [], "equity": "10003.45", "peak": "10012.00",
            "drawdown": "0.000854", "exposure_pct": 24.99,
            "limits": {"max_drawdown_pct": 10.0, "max_position_pct": 25.0, "risk_pct": 0.5,
                       "stop_r": 1.0}},
        "/training": {"rounds": training_rounds()},
        "/models": {"live": {"cnn": "a2222222b3333333", "rl": "5c230e1c3a43b30f"}, "models": [],
                    "promotions": []},
        "/accuracy": [
            {"model": "cnn", "timeframe": "1s", "level": 2, "num": 300, "hit_rate": 0.31,
             "mean_result_r": None},
            {"model": "rl", "timeframe": "1m", "level": 0, "num": 120, "hit_rate": 0.48,
             "mean_result_r": -0.02}],
        "/alerts": [{"code": "FeedDown", "message": "BTC/USDT: no events for 7 s",
                     "remedy": remedy, "event_ns": EVENT_NS}],
        "/errors": [{"code": "StoreError", "count": 2, "first_at": EVENT_AT, "last_at": EVENT_AT,
                     "message": "journal: disk full", "remedy": "free space"}],
        "/thresholds": {"entry": 0.6, "exit": 0.5},
        "/processes": processes,
    }  # fmt: skip


def whole_snapshot(api: Api, symbol: str | None = None) -> Snapshot:
    """Return what the client makes of everything the API says."""
    client = Client(api.url, TOKEN)
    try:
        return client.snapshot(symbol)
    finally:
        client.close()
