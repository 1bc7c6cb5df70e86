"""How the HTTP door asks for the token, and answers what went wrong."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from alphapulse import logs
from alphapulse.domain.errors import AlphaPulseError, CheckpointError, InvalidRequest, Unavailable
from serve_apps.doors import opened

PREFIX = "/api/v1"
OPEN_PATHS = frozenset({f"{PREFIX}/ping"})
log = logs.get_logger("ingress")


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


async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    """Answer 401 on every route but ping unless the request bears the home's token."""
    token = opened().token
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


async def on_error(request: Request, error: AlphaPulseError) -> JSONResponse:
    """Answer an error of ours by its kind."""
    status = 503 if isinstance(error, Unavailable) else 422
    if not isinstance(error, Unavailable | InvalidRequest | CheckpointError):
        status = 500
        log.error("request failed", path=request.url.path, **logs.describe(error))
    return problem(
        status,
        code=error.code,
        expected="a cluster and a request that fit",
        came=str(error),
        remedy="see /api/v1/health and `alphapulse doctor`",
    )


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


async def on_http(request: Request, error: HTTPException) -> JSONResponse:
    """Answer an unknown path or method."""
    return problem(
        error.status_code,
        code="NotFound" if error.status_code == 404 else "InvalidRequest",
        expected="a route and method of /api/v1/docs",
        came=f"{request.method} {request.url.path}",
        remedy="see /api/v1/docs",
    )


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


def answer_faults(api: FastAPI) -> None:
    """Have `api` ask for the token and answer every fault as problem+json."""
    api.middleware("http")(authenticate)
    handlers: dict[Any, Any] = {
        AlphaPulseError: on_error,
        RequestValidationError: on_invalid,
        HTTPException: on_http,
        Exception: on_fault,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)
