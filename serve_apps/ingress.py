"""The HTTP door: people and tools read the cluster and steer it here; it holds no model."""

# No postponed annotations: FastAPI would resolve them in the copy of the class that Serve makes,
# which no longer sees this module's names.
import asyncio
import hmac
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from alphapulse import cluster, interfaces, logs
from alphapulse.domain.errors import AlphaPulseError, InvalidRequest, Unavailable
from alphapulse.domain.inference import IncompleteInput, Thresholds, trace_id
from alphapulse.domain.market import Timeframe
from alphapulse.storage.home import Home

PREFIX = "/api/v1"
OPEN_PATHS = frozenset({f"{PREFIX}/ping"})
MAX_ROWS = 10_000
log = logs.get_logger("ingress")
api = FastAPI(
    title="AlphaPulse",
    version="1",
    docs_url=f"{PREFIX}/docs",
    openapi_url=f"{PREFIX}/openapi.json",
    redoc_url=None,
)


class ThresholdsBody(BaseModel):
    """New thresholds; 0 <= exit <= entry <= 1."""

    model_config = ConfigDict(extra="forbid")
    entry: float = Field(ge=0, le=1)
    exit: float = Field(ge=0, le=1)


class DecideBody(BaseModel):
    """Which instrument to decide about."""

    model_config = ConfigDict(extra="forbid")
    symbol: str


def problem(status: int, *, code: str, expected: str, came: str, remedy: str) -> JSONResponse:
    """Return an error as problem+json (RFC 9457): what was expected, what came, what to do."""
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "expected": expected,
        "came": came,
        "remedy": remedy,
        "detail": f"expected {expected}, came {came}; {remedy}",
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def plain(value: Any) -> Any:
    """Return `value` ready for JSON: NaN becomes null, bytes hex, numpy scalars numbers."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value


@api.middleware("http")
async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    """Answer 401 on every route but ping unless the request bears the home's token."""
    token: str = request.app.state.token
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if request.url.path in OPEN_PATHS or hmac.compare_digest(given.encode(), token.encode()):
        return await call_next(request)
    came = "another token" if given else "no token"
    answer = problem(
        401,
        code="Unauthorized",
        expected="the header `Authorization: Bearer TOKEN`",
        came=came,
        remedy="read the token from the file `token` in the home of `alphapulse up`",
    )
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


@api.exception_handler(AlphaPulseError)
async def on_error(request: Request, error: AlphaPulseError) -> JSONResponse:
    """Answer an error of ours by its kind."""
    status = 503 if isinstance(error, Unavailable) else 422
    if not isinstance(error, Unavailable | InvalidRequest):
        status = 500
        log.error("request failed", path=request.url.path, **logs.describe(error))
    return problem(
        status,
        code=error.code,
        expected="a cluster and a request that fit",
        came=str(error),
        remedy="see /api/v1/health and `alphapulse doctor`",
    )


@api.exception_handler(RequestValidationError)
async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request whose parameters are off."""
    first = error.errors()[0]
    return problem(
        422,
        code="InvalidRequest",
        expected=f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}",
        came=repr(first.get("input"))[:200],
        remedy="see /api/v1/docs",
    )


@api.exception_handler(HTTPException)
async def on_http(request: Request, error: HTTPException) -> JSONResponse:
    """Answer an unknown path or method."""
    return problem(
        error.status_code,
        code="NotFound" if error.status_code == 404 else "InvalidRequest",
        expected="a route and method of /api/v1/docs",
        came=f"{request.method} {request.url.path}",
        remedy="see /api/v1/docs",
    )


@api.exception_handler(Exception)
async def on_fault(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of ours without its inside; the log and the errors table have that."""
    log.error(
        "request failed",
        path=request.url.path,
        remedy="read logs/ingress.jsonl in the home and report it",
        **logs.describe(error),
    )
    return problem(
        500,
        code="Fault",
        expected="an answer",
        came=type(error).__name__,
        remedy="see `alphapulse errors`",
    )


# above the class: Serve copies what the routes refer to while it decorates the class
async def _pid(handle: DeploymentHandle) -> int:
    pid: int = await handle.pid.remote()
    return pid


@serve.deployment(
    name="Ingress",
    num_replicas=1,
    max_ongoing_requests=64,
    max_surge_percent=100,
    graceful_shutdown_timeout_s=2,
    ray_actor_options={"num_cpus": 0.1},
)
@serve.ingress(api)
class Ingress:
    """Routes; each is a line or two onto an actor, the history or the graph."""

    def __init__(
        self,
        orchestrator: DeploymentHandle,
        cnn: DeploymentHandle,
        rl: DeploymentHandle,
        *,
        home: str,
        session: str,
        run: dict[str, Any],
        symbols: tuple[str, ...],
    ) -> None:
        logs.configure(Path(home) / "logs", process="ingress", session=session)
        api.state.token = Home(Path(home)).token()
        self._models = {"cnn": cnn, "rl": rl, "moe": orchestrator}
        self._market = cluster.MarketData()
        self._history = cluster.History()
        self._trader = cluster.Trader()
        self._run = run
        self._symbols = symbols

    @api.get(f"{PREFIX}/ping")
    async def ping(self) -> dict[str, str]:
        """Say that the door is open; the only route without a token."""
        return {"status": "ok"}

    @api.get(f"{PREFIX}/health")
    async def health(self) -> JSONResponse:
        """Return 200 if every process answers, else 503, with the state of each."""
        rows = await self._processes()
        healthy = all(row["state"] == "running" for row in rows)
        body = {"status": "ok" if healthy else "degraded", "processes": rows}
        return JSONResponse(body, status_code=200 if healthy else 503)

    @api.get(f"{PREFIX}/ready")
    async def ready(self) -> JSONResponse:
        """Return 200 once a first decision was made, else 503."""
        status = await self._trader.status()
        made = status["first_at_s"] is not None
        return JSONResponse({"ready": made}, status_code=200 if made else 503)

    @api.get(f"{PREFIX}/status")
    async def status(self) -> Any:
        """Return the run, the trader's tally and the counters of feed and store."""
        trader, feed, store = await asyncio.gather(
            self._trader.status(), self._market.view("counters"), self._history.counters()
        )
        return plain({"run": self._run, "trader": trader, "feed": feed, "store": dict(store)})

    @api.get(f"{PREFIX}/snapshot")
    async def snapshot(self) -> Any:
        """Return the newest state of the market cache under one version number."""
        return plain(await self._market.view("snapshot"))

    @api.get(f"{PREFIX}/candles")
    async def candles(
        self,
        symbol: str,
        timeframe: Timeframe,
        count: Annotated[int, Query(ge=1, le=600)] = 300,
    ) -> Any:
        """Return the newest closed bars and the forming one."""
        self._known(symbol)
        return plain(
            await self._market.view("candles", symbol=symbol, timeframe=timeframe, count=count)
        )

    @api.get(f"{PREFIX}/book")
    async def book(self, symbol: str) -> Any:
        """Return the book within one percent of the mid, in buckets; unknown levels are null."""
        self._known(symbol)
        return plain(await self._market.view("book", symbol=symbol))

    @api.get(f"{PREFIX}/pivots")
    async def pivots(self, symbol: str, timeframe: Timeframe) -> Any:
        """Return the confirmed pivots of the Williams structure, oldest first."""
        self._known(symbol)
        return plain(await self._market.view("pivots", symbol=symbol, timeframe=timeframe))

    @api.post(f"{PREFIX}/decide")
    async def decide(self, body: DecideBody) -> Any:
        """Decide on the newest input of a symbol; the history keeps only the trader's decisions."""
        self._known(body.symbol)
        point = await self._market.latest()
        input = point.inputs[body.symbol]
        if isinstance(input, IncompleteInput):
            raise Unavailable(f"input incomplete ({input.reason}): {'; '.join(input.missing)}")
        trace = trace_id(run=self._run["id"], symbol=body.symbol, event_ns=point.event_ns)
        decision = await self._models["moe"].decide.remote(
            input, await self._trader.thresholds(), trace
        )
        return plain(
            {
                "symbol": decision.symbol,
                "event_ns": decision.event_ns,
                "trace_id": trace,
                "action": decision.action.value,
                "confidence": decision.confidence,
                "utility_r": decision.utility_r,
                "reason": decision.reason,
                "weights": dict(decision.of("moe").weights),
                "models": {
                    p.model: {
                        "version": p.version,
                        "action": p.action.value,
                        "p_buy": p.p_buy,
                        "p_sell": p.p_sell,
                        "p_hold": p.p_hold,
                        "confidence": p.confidence,
                    }
                    for p in decision.predictions
                },
            }
        )

    @api.get(f"{PREFIX}/decisions")
    async def decisions(
        self,
        symbol: str | None = None,
        from_ns: int | None = None,
        to_ns: int | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 100,
    ) -> Any:
        """Return the newest decisions from the history."""
        return await self._rows(
            interfaces.Query(
                run=self._run["id"],
                symbol=self._known(symbol),
                model="moe",
                from_ns=from_ns,
                to_ns=to_ns,
                limit=limit,
            )
        )

    @api.get(f"{PREFIX}/inferences")
    async def inferences(
        self,
        symbol: str | None = None,
        model: Literal["cnn", "rl", "moe"] | None = None,
        timeframe: Timeframe | None = None,
        from_ns: int | None = None,
        to_ns: int | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 100,
    ) -> Any:
        """Return the newest inferences; with a timeframe, the forecasts of that timeframe."""
        return await self._rows(
            interfaces.Query(
                table="predictions" if timeframe else "inferences",
                symbol=self._known(symbol),
                model=model,
                timeframe=timeframe,
                from_ns=from_ns,
                to_ns=to_ns,
                limit=limit,
            )
        )

    @api.get(f"{PREFIX}/thresholds")
    async def thresholds(self) -> dict[str, float]:
        """Return the thresholds in force."""
        now = await self._trader.thresholds()
        return {"entry": now.entry, "exit": now.exit}

    @api.put(f"{PREFIX}/thresholds")
    async def set_thresholds(self, body: ThresholdsBody) -> dict[str, float]:
        """Set the thresholds from the next decision on."""
        now = await self._trader.thresholds(Thresholds(entry=body.entry, exit=body.exit))
        return {"entry": now.entry, "exit": now.exit}

    @api.get(f"{PREFIX}/processes")
    async def processes(self) -> list[dict[str, Any]]:
        """Return name, kind, process id and state of every actor and replica."""
        return await self._processes()

    async def _processes(self) -> list[dict[str, Any]]:
        rows = await cluster.processes()
        pids = await asyncio.gather(
            *(asyncio.wait_for(_pid(h), 2.0) for h in self._models.values()),
            return_exceptions=True,
        )
        for name, pid in zip(self._models, pids, strict=True):
            lost = isinstance(pid, BaseException)
            state = "unavailable" if lost else "running"
            rows.append(
                {"name": name, "kind": "replica", "pid": None if lost else pid, "state": state}
            )
        rows.append({"name": "ingress", "kind": "replica", "pid": os.getpid(), "state": "running"})
        return rows

    async def _rows(self, query: interfaces.Query) -> Any:
        frame = await self._history.query(query)
        return plain(frame.to_dict(orient="records"))

    def _known(self, symbol: str | None) -> str | None:
        if symbol is not None and symbol not in self._symbols:
            raise InvalidRequest(
                f"symbol: expected one of {', '.join(self._symbols)}, was {symbol!r}"
            )
        return symbol
