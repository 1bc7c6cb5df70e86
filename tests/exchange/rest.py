"""Answer REST requests as of the played moment of a recording."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from aiohttp import web

from tests.exchange.columns import LENGTHS, MS
from tests.exchange.stage import Stage
from tests.exchange.wire import Payload, bad_request, kline_row, number, symbol_info

API = "/api/v3"


class Answers:
    """What the exchange answers under `/api/v3`, and that it has no futures."""

    def __init__(self, stage: Stage, skew_ms: Callable[[], int]) -> None:
        """Answer from `stage`, on a clock that is `skew_ms` ahead."""
        self._stage = stage
        self._skew_ms = skew_ms

    def serve(self, app: web.Application) -> None:
        """Add the routes to `app`."""
        answers = {
            "ping": self._ping, "time": self._time, "exchangeInfo": self._info,
            "klines": self._klines, "trades": self._recent_trades, "depth": self._depth,
            "historicalTrades": self._historical_trades, "aggTrades": self._aggregates,
        }  # fmt: skip
        for path, answer in answers.items():
            app.router.add_get(f"{API}/{path}", answer)
        for path in ("/fapi/v1/exchangeInfo", "/dapi/v1/exchangeInfo"):
            app.router.add_get(path, self._no_futures)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _time(self, request: web.Request) -> web.Response:
        return web.json_response({"serverTime": self._stage.now_ns // MS + self._skew_ms()})

    async def _no_futures(self, request: web.Request) -> web.Response:
        return web.json_response({"symbols": []})

    async def _info(self, request: web.Request) -> web.Response:
        symbols = [symbol_info(symbol) for symbol in self._stage.recording.symbols]
        answer = {"timezone": "UTC", "serverTime": self._stage.now_ns // MS, "rateLimits": []}
        return web.json_response(answer | {"exchangeFilters": [], "symbols": symbols})

    async def _klines(self, request: web.Request) -> web.Response:
        symbol, limit = self._symbol(request), number(request, "limit", 500, most=1_000)
        interval = request.query.get("interval", "")
        if interval not in LENGTHS:
            raise bad_request(-1120, "Invalid interval.")
        length, stage = LENGTHS[interval], self._stage
        forming = stage.forming(symbol, interval)
        opens = stage.recording.opens(symbol, interval, stage.now_ns)
        if forming is not None:
            opens = np.append(opens, forming.open_ns)
        start, end = number(request, "startTime"), number(request, "endTime")
        if end is not None:
            opens = opens[opens <= end * MS]
        chosen = opens[-limit:] if start is None else opens[opens >= start * MS][:limit]
        found = [stage.closed(symbol, interval, ns) or forming for ns in chosen.tolist()]
        return web.json_response([kline_row(candle, length) for candle in found if candle])

    async def _recent_trades(self, request: web.Request) -> web.Response:
        symbol, limit = self._symbol(request), number(request, "limit", 500, most=1_000)
        count, trades = self._stage.num_trades[symbol], self._stage.recording.trades[symbol]
        places = range(max(0, count - limit), count)
        return web.json_response([trades.rest_payload(place) for place in places])

    async def _historical_trades(self, request: web.Request) -> web.Response:
        from_id = number(request, "fromId")
        if from_id is None:
            return await self._recent_trades(request)
        symbol, limit = self._symbol(request), number(request, "limit", 500, most=1_000)
        count, trades = self._stage.num_trades[symbol], self._stage.recording.trades[symbol]
        first = trades.first_from(from_id, count)
        places = range(first, min(count, first + limit))
        return web.json_response([trades.rest_payload(place) for place in places])

    async def _aggregates(self, request: web.Request) -> web.Response:
        symbol, limit = self._symbol(request), number(request, "limit", 500, most=1_000)
        count, trades = self._stage.num_trades[symbol], self._stage.recording.trades[symbol]
        start, end = number(request, "startTime"), number(request, "endTime")
        from_id = number(request, "fromId")
        stop = count if end is None else trades.first_since((end + 1) * MS, count)
        rows: list[Payload] = []
        if from_id is None and start is None:
            while stop > 0 and len(rows) < limit:
                stop, row = trades.aggregate(stop - 1)
                rows.append(row)
            return web.json_response(rows[::-1])
        place = trades.first_since(start * MS, count) if start is not None else 0
        if from_id is not None:
            place = trades.first_from(from_id, count)
        while place < stop and len(rows) < limit:
            if place + 1 == count or trades.is_last_of_aggregate(place):
                rows.append(trades.aggregate(place)[1])
            place += 1
        return web.json_response(rows)

    async def _depth(self, request: web.Request) -> web.Response:
        symbol, limit = self._symbol(request), number(request, "limit", 100, most=5_000)
        return web.json_response(self._stage.books[symbol].payload(limit))

    def _symbol(self, request: web.Request) -> str:
        symbol = request.query.get("symbol", "")
        if symbol not in self._stage.recording.symbols:
            raise bad_request(-1121, "Invalid symbol.")
        return symbol
