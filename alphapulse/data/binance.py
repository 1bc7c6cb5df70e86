"""Read Binance's spot messages and answers as events, each with a reason if it cannot be one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from alphapulse.domain.errors import InvalidBar, InvalidEvent
from alphapulse.domain.market import Bar, BookDelta, Floats, Timeframe, Trade
from alphapulse.domain.quality import Reason

NS_PER_MS = 1_000_000
STREAMS = "/stream/ws"  # ccxt takes a connection for spot only if "/stream" is in its address
LEVELS = 5_000  # a side, the most there is: 1000 reach +-0.3 % of BTC in 2024-08, views ask 1 %
POLLED_LEVELS = 1_000  # a side, where a snapshot is asked for again and again: weight 50, not 250
PAGE_TRADES = 1_000  # most trades an answer holds, 2026-11
APART_MS = 60_000  # a trade's own time and its message's cannot be further apart

Symbols = Mapping[str, str]  # ccxt's name by Binance's


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that cannot be an event, and why.

    Attributes:
        code: UNREADABLE, NOT_FINITE, NEGATIVE or UNKNOWN_SYMBOL.
        message: what was wrong with which message.
    """

    code: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Kline:
    """One message of a candle stream.

    Attributes:
        open_ns: open of the candle the message is about [ns UTC].
        bar: the candle, None while it forms.
    """

    symbol: str
    timeframe: Timeframe
    open_ns: int
    bar: Bar | None


class _WrongNumber(ValueError):
    """A number a price or size cannot be; the first argument is the reason code."""


def listen(
    venue: Any, hear: Callable[[Mapping[str, Any]], None], subscribed: Callable[[str], None]
) -> None:
    """Have ccxt hand every message of the market to `hear`; it keeps what it sends and is told.

    Nothing `hear` is given goes through ccxt, whose readers can fail for good on a single value.

    Args:
        venue: ccxt.pro's binance, before its first call.
        hear: takes a message as it came, whatever is in it; must not raise.
        subscribed: told the name of each stream the venue has confirmed, such as
            `trade::ETH/USDT`.
    """
    handle = venue.handle_message

    def take(client: Any, message: Any) -> None:
        if not isinstance(message, dict) or message.keys().isdisjoint(("id", "error")):
            hear(message if isinstance(message, dict) else {"message": message})
            return
        handle(client, message)
        if "error" not in message:
            for name, order in list(client.subscriptions.items()):
                if isinstance(order, dict) and str(order.get("id")) == str(message["id"]):
                    subscribed(name)

    venue.handle_message = take
    venue.handle_order_book_subscription = lambda *_: None  # it would fetch a snapshot of its own


def stand_in(venue: Any, url: str) -> None:
    """Move every address of ccxt's binance to `url`, such as http://127.0.0.1:8090."""
    venue.urls["api"] = _moved(venue.urls["api"], url)
    venue.urls["api"]["ws"]["spot"] = f"ws://{urlsplit(url).netloc}{STREAMS}"


def _moved(addresses: Any, url: str) -> Any:
    if isinstance(addresses, dict):
        return {name: _moved(address, url) for name, address in addresses.items()}
    parts, host = urlsplit(addresses), urlsplit(url).netloc
    scheme = "ws" if parts.scheme.startswith("ws") else "http"
    return f"{scheme}://{host}{parts.path}"


async def ask(venue: Any, path: str, **wanted: Any) -> Any:
    """Return the answer of `/api/v3/<path>`, as JSON gives it.

    It passes by ccxt's pacing, which would hold a second snapshot back for 2.5 s and historical
    trades for 10 s; who asks waits between two attempts. Raises ccxt's errors.
    """
    return await venue.fetch(f"{venue.urls['api']['public']}/{path}?{urlencode(wanted)}")


def read(
    message: Mapping[str, Any], symbols: Symbols, received_ns: int
) -> Trade | BookDelta | Kline | Unreadable:
    """Return what a message of a stream says, or why it says nothing."""
    kind = message.get("e")
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        return Unreadable(Reason.UNREADABLE, f"{kind!r} is no message that was asked for")
    symbol = message.get("s")
    if not isinstance(symbol, str) or symbol not in symbols:
        return Unreadable(Reason.UNKNOWN_SYMBOL, f"{kind} of {symbol!r}, which nobody asked for")
    return _read(reader, message, symbols[symbol], received_ns)


def read_trade(row: Mapping[str, Any], symbol: str, received_ns: int) -> Trade | Unreadable:
    """Return what a row of `/api/v3/trades` says, or why it says nothing."""
    found = _read(_rest_trade, row, symbol, received_ns)
    assert isinstance(found, Trade | Unreadable)
    return found


def read_snapshot(
    answer: Mapping[str, Any], symbol: str, received_ns: int
) -> BookDelta | Unreadable:
    """Return what `/api/v3/depth` answered; it has no exchange time: `ts_ns` is 0."""
    found = _read(_snapshot, answer, symbol, received_ns)
    assert isinstance(found, BookDelta | Unreadable)
    return found


Reader = Callable[[Mapping[str, Any], str, int], Trade | BookDelta | Kline]


def _read(
    reader: Reader, row: Mapping[str, Any], symbol: str, received_ns: int
) -> Trade | BookDelta | Kline | Unreadable:
    try:
        return reader(row, symbol, received_ns)
    except _WrongNumber as error:
        return Unreadable(error.args[0], f"{symbol}: {error.args[1]}")
    except (InvalidEvent, InvalidBar) as error:
        return Unreadable(Reason.UNREADABLE, str(error))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return Unreadable(Reason.UNREADABLE, f"{symbol}: {type(error).__name__}: {error}")


def _trade(message: Mapping[str, Any], symbol: str, received_ns: int) -> Trade:
    ts_ms = _whole(message["T"])
    if abs(ts_ms - _whole(message["E"])) > APART_MS:
        raise ValueError(f"trade at {ts_ms} in a message of {message['E']}")
    price, size = _number(message["p"]), _number(message["q"])
    is_buy = not _claim(message["m"])
    trade_id = _whole(message["t"])
    return Trade(symbol, ts_ms * NS_PER_MS, received_ns, trade_id, price, size, is_buy)


def _rest_trade(row: Mapping[str, Any], symbol: str, received_ns: int) -> Trade:
    price, size = _number(row["price"]), _number(row["qty"])
    ts_ns = _whole(row["time"]) * NS_PER_MS
    is_buy = not _claim(row["isBuyerMaker"])
    return Trade(symbol, ts_ns, received_ns, _whole(row["id"]), price, size, is_buy)


def _snapshot(answer: Mapping[str, Any], symbol: str, received_ns: int) -> BookDelta:
    last_id = _whole(answer["lastUpdateId"])
    sides = _levels(answer["bids"]), _levels(answer["asks"])
    return BookDelta(symbol, 0, received_ns, last_id, last_id, True, *sides)


def _change(message: Mapping[str, Any], symbol: str, received_ns: int) -> BookDelta:
    first_id, last_id = _whole(message["U"]), _whole(message["u"])
    if first_id > last_id:
        raise ValueError(f"update numbers {first_id} to {last_id}")
    ts_ns = _whole(message["E"]) * NS_PER_MS
    sides = _levels(message["b"]), _levels(message["a"])
    return BookDelta(symbol, ts_ns, received_ns, first_id, last_id, False, *sides)


def _kline(message: Mapping[str, Any], symbol: str, received_ns: int) -> Kline:
    row = message["k"]
    timeframe, open_ns = Timeframe(row["i"]), _whole(row["t"]) * NS_PER_MS
    if open_ns != timeframe.floor(open_ns):
        raise ValueError(f"a candle of {timeframe} that opens at {open_ns}")
    if not _claim(row["x"]):
        return Kline(symbol, timeframe, open_ns, None)
    first, high, low, last, volume = (_number(row[name]) for name in "ohlcv")
    bar = Bar(symbol, timeframe, open_ns, first, high, low, last, volume, is_venue=True)
    return Kline(symbol, timeframe, open_ns, bar)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:  # bool is an int too
        raise ValueError(f"{value!r} where a whole number was expected")
    return value


def _claim(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} where true or false was expected")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where a decimal in quotes was expected")
    number = float(value)
    if not math.isfinite(number):
        raise _WrongNumber(Reason.NOT_FINITE, f"{value!r} where a price or size was expected")
    if number < 0:
        raise _WrongNumber(Reason.NEGATIVE, f"{value!r} where a price or size was expected")
    return number


def _levels(side: Any) -> Floats:
    """Return float64 (levels, 2): price, size."""
    if not isinstance(side, list):
        raise ValueError(f"{side!r} where a list of levels was expected")
    levels_L2 = np.array(side, np.float64).reshape(-1, 2)
    if len(levels_L2) != len(side):
        raise ValueError("a level that is no pair of price and size")
    if not np.isfinite(levels_L2).all():
        raise _WrongNumber(Reason.NOT_FINITE, f"levels {side}")
    if (levels_L2 < 0).any() or (levels_L2[:, 0] == 0).any():
        raise _WrongNumber(Reason.NEGATIVE, f"levels {side}")
    return levels_L2


READERS: Mapping[str, Reader] = {"trade": _trade, "depthUpdate": _change, "kline": _kline}
