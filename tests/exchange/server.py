"""Play a recording as Binance's spot exchange would speak, on this machine only."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSMsgType, web

from tests.exchange.candles import Candle
from tests.exchange.columns import LENGTHS, MS, SECOND
from tests.exchange.faults import (
    ClockSkew,
    Close,
    Delay,
    Drop,
    Duplicate,
    Fault,
    HalfClose,
    Hang,
    Refuse,
    Reorder,
    Stall,
    WrongType,
)
from tests.exchange.recording import Recording
from tests.exchange.rest import Answers
from tests.exchange.stage import Sent, Stage
from tests.exchange.wire import ERRORS, Payload, kline_row

HOST = "127.0.0.1"
STREAMS = "/stream/ws"  # ccxt takes a connection for spot only if "/stream" is in its address
LOOK_S = 0.005  # between two looks at the clock in `run`
CANDLE_EVERY_NS = 2 * SECOND  # Binance's pace of candle streams, 1 s for the 1s one; 2024-08
NAME = re.compile(r"([a-z0-9]+)@(trade|aggTrade|depth@100ms|kline_(?:1s|1m|1h|1d))")


class Line:
    """One WebSocket connection and the streams it subscribed to."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket
        self.is_wrapped = request.path == "/stream"  # each message names its stream
        self.streams: set[str] = set()
        self.silent: set[str] = set()
        self.is_half_closed = False

    async def send(self, stream: str, payload: Payload) -> None:
        """Send a message, unless the stream hangs or the connection is gone."""
        if stream in self.silent or self.is_half_closed or self.socket.closed:
            return
        message = {"stream": stream, "data": payload} if self.is_wrapped else payload
        with suppress(ConnectionError):
            await self.socket.send_str(json.dumps(message, separators=(",", ":")))


class Exchange:
    """A Binance spot exchange on this machine, whose clock is event time.

    Time stands still until `play`, `step` or `run` moves it. REST answers as of that moment.

    ```python
    async with opened(Exchange(recording)) as exchange:
        client = open_exchange("binance", exchange.url)
        ...
        await exchange.wait_for("ethusdt@trade")
        await exchange.play(until_ns)
    ```

    Attributes:
        requests: number of requests by path.
        num_subscriptions: how often each stream was subscribed to.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        faults: Sequence[Fault | ClockSkew] = (),
        is_looping: bool = False,
    ) -> None:
        """Prepare to play `recording`; nothing listens before `start`.

        Args:
            recording: what is played.
            faults: what goes wrong.
            is_looping: whether the play begins again at its end, a whole lap later.
        """
        self.requests: Counter[str] = Counter()
        self.num_subscriptions: Counter[str] = Counter()
        self._stage = Stage(recording, is_looping=is_looping)
        self._faults = [fault for fault in faults if isinstance(fault, Fault)]
        self._skews = [fault for fault in faults if isinstance(fault, ClockSkew)]
        self._lines: list[Line] = []
        self._numbers: Counter[str] = Counter()
        self._hits: Counter[int] = Counter()
        self._late: dict[str, deque[tuple[int, Payload]]] = {}
        self._overtaken: dict[str, list[Payload]] = {}
        self._subscribed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._closing: set[asyncio.Task[Any]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on `port` of the loopback interface; 0 is any free one."""
        app = web.Application()
        Answers(self._stage, self._skew_ms).serve(app)
        for path in (STREAMS, STREAMS + "/{names:.*}", "/ws", "/ws/{names:.*}", "/stream"):
            app.router.add_get(path, self._connect)
        app.middlewares.append(self._faulty)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()

    @property
    def url(self) -> str:
        """Return the address, such as http://127.0.0.1:8090."""
        assert self._runner is not None
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Close every connection and stop listening."""
        for line in list(self._lines):
            await self._hang_up(line)
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_for(self, *streams: str) -> None:
        """Wait until somebody is subscribed to each of the streams."""
        async with self._subscribed:
            await self._subscribed.wait_for(
                lambda: set(streams) <= {name for line in self._lines for name in line.streams}
            )

    async def play(self, until_ns: int | None = None) -> None:
        """Send everything up to and including `until_ns` [ns UTC]; None is the end of the lap."""
        stage = self._stage
        until = stage.lap_end_ns if until_ns is None else until_ns
        while not stage.is_over and stage.next_ns <= until:
            await self.step()
        newest = until if stage.is_looping else min(until, stage.lap_end_ns)
        await self._move_to(max(self.now_ns, newest))

    async def step(self) -> None:
        """Send the next message of the recording; its time is the new now."""
        await self._move_to(self._stage.next_ns)
        sent = self._stage.advance()
        for stream, payload in self._candles() if sent is None else sent:
            await self._offer(stream, payload)
        await asyncio.sleep(0)

    async def run(self, *, speed: float) -> None:
        """Play at `speed` times the recorded pace until the end, for ever if looping."""
        begun_ns, first_ns = time.monotonic_ns(), self.now_ns
        while not self.is_over:
            await self.play(first_ns + int((time.monotonic_ns() - begun_ns) * speed))
            await asyncio.sleep(LOOK_S)

    @property
    def now_ns(self) -> int:
        """Return the played moment [ns UTC]."""
        return self._stage.now_ns

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing left to send."""
        return self._stage.is_over

    def last_id(self, symbol: str) -> int:
        """Return the number of the newest book change played."""
        return self._stage.books[symbol].last_id

    def last_trade_id(self, symbol: str) -> int:
        """Return the number of the newest trade played, 0 before the first of the recording."""
        num_trades = self._stage.num_trades[symbol]
        return self._stage.recording.trades[symbol].id_at(num_trades - 1) if num_trades else 0

    async def _move_to(self, ts_ns: int) -> None:
        """Move the clock and send what was late and is due."""
        self._stage.now_ns = ts_ns
        for stream, late in self._late.items():
            while late and late[0][0] <= ts_ns:
                await self._send(stream, late.popleft()[1])

    def _candles(self) -> Sent:
        """Return the candles that are sent at this whole second to those who subscribed."""
        sent: Sent = []
        for stream in sorted({name for line in self._lines for name in line.streams}):
            name, _, interval = stream.partition("@kline_")
            if interval not in LENGTHS:
                continue
            symbol, length = name.upper(), LENGTHS[interval]
            is_closed = self.now_ns % length == 0
            if is_closed:
                candle = self._stage.closed(symbol, interval, self.now_ns - length)
            elif self.now_ns % CANDLE_EVERY_NS == 0:
                candle = self._stage.forming(symbol, interval)
            else:
                candle = None
            if candle is not None:
                sent.append((stream, self._candle_payload(stream, candle, is_closed=is_closed)))
        return sent

    def _candle_payload(self, stream: str, candle: Candle, *, is_closed: bool) -> Payload:
        name, _, interval = stream.partition("@kline_")
        row = kline_row(candle, LENGTHS[interval])
        kline = dict(zip(("t", "o", "h", "l", "c", "v", "T", "q", "n", "V"), row[:10], strict=True))
        kline |= {"s": name.upper(), "i": interval, "x": is_closed}
        return {"e": "kline", "E": self.now_ns // MS, "s": name.upper(), "k": kline}

    async def _offer(self, stream: str, payload: Payload) -> None:
        """Send a message as the faults let it."""
        fault = self._fault(stream, self._numbers[stream])
        self._numbers[stream] += 1
        if (skew_ms := self._skew_ms()) != 0:
            payload = payload | {"E": payload["E"] + skew_ms}
        overtaken = self._overtaken.pop(stream, [])
        late = self._late.setdefault(stream, deque())
        due = [payload]
        match fault:
            case Drop():
                due = []
            case Duplicate():
                due = [payload, payload]
            case Reorder():
                self._overtaken[stream] = [*overtaken, payload]
                return
            case WrongType():
                due = [payload | {fault.field: fault.value}]
            case Delay():
                late.append((self.now_ns + fault.by_ns, payload))
                due = []
            case Hang() | HalfClose() | Close():
                for line in [line for line in self._lines if stream in line.streams]:
                    await self._break(line, stream, fault)
        for message in [*due, *overtaken]:
            if late:
                late.append((late[-1][0], message))
            else:
                await self._send(stream, message)

    async def _break(self, line: Line, stream: str, fault: Fault) -> None:
        match fault:
            case Hang():
                line.silent.add(stream)
            case HalfClose():
                line.is_half_closed = True
                if line.request.transport is not None:
                    line.request.transport.write_eof()
            case Close():
                task = asyncio.create_task(line.socket.close(code=fault.code))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
                await asyncio.sleep(0)

    async def _send(self, stream: str, payload: Payload) -> None:
        for line in [line for line in self._lines if stream in line.streams]:
            await line.send(stream, payload)

    def _fault(self, target: str, number: int) -> Fault | None:
        """Return what goes wrong with this message or request, and count it."""
        for i, fault in enumerate(self._faults):
            if fault.target != target or self._hits[i] >= fault.count:
                continue
            if self._hits[i] or (number >= fault.first and self.now_ns >= fault.after_ns):
                self._hits[i] += 1
                return fault
        return None

    def _skew_ms(self) -> int:
        return sum(skew.by_ms for skew in self._skews if self.now_ns >= skew.after_ns)

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        line = Line(request, socket)
        names = request.query.get("streams") or request.match_info.get("names", "")
        wanted = [name for name in names.split("/") if self._is_played(name)]
        await socket.prepare(request)
        self._lines.append(line)
        await self._subscribe(line, wanted)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._obey(line, json.loads(message.data))
        finally:
            self._lines.remove(line)
        return socket

    async def _obey(self, line: Line, order: Payload) -> None:
        names = order.get("params", [])
        unknown = [name for name in names if not self._is_played(name)]
        answer: Payload = {"result": None, "id": order.get("id")}
        if order.get("method") == "LIST_SUBSCRIPTIONS":
            answer["result"] = sorted(line.streams)
        elif order.get("method") not in ("SUBSCRIBE", "UNSUBSCRIBE") or unknown:
            error = {"code": 2, "msg": f"Invalid request: {unknown or order.get('method')}"}
            answer = {"error": error, "id": order.get("id")}
        with suppress(ConnectionError):
            await line.socket.send_json(answer)
        if "error" not in answer and order["method"] == "SUBSCRIBE":
            await self._subscribe(line, names)
        elif "error" not in answer and order["method"] == "UNSUBSCRIBE":
            line.streams.difference_update(names)

    async def _subscribe(self, line: Line, names: Sequence[str]) -> None:
        line.silent.difference_update(names)
        async with self._subscribed:
            line.streams.update(names)
            self.num_subscriptions.update(names)
            self._subscribed.notify_all()

    def _is_played(self, name: str) -> bool:
        found = NAME.fullmatch(name)
        return found is not None and found[1].upper() in self._stage.recording.symbols

    async def _hang_up(self, line: Line) -> None:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await line.socket.close(code=1001)

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Any) -> web.StreamResponse:
        path = STREAMS if request.path.startswith(("/stream", "/ws")) else request.path
        number = self.requests[path]
        self.requests[path] += 1
        match self._fault(path, number):
            case Refuse(status=status, retry_after_s=wait_s):
                headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
                return web.Response(status=status, text=ERRORS.get(status, ""), headers=headers)
            case Stall():
                await asyncio.Event().wait()
        response: web.StreamResponse = await handler(request)
        return response


@asynccontextmanager
async def opened(exchange: Exchange, *, port: int = 0) -> AsyncIterator[Exchange]:
    """Start the exchange and close it at the end."""
    await exchange.start(port)
    try:
        yield exchange
    finally:
        await exchange.close()
