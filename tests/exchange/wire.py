"""Write numbers, levels, candles and refusals as Binance's spot exchange writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.exchange.candles import Candle
from tests.exchange.columns import MS

Payload = dict[str, Any]

# Binance spot, 2024-08: price step, quantity step, least order value. The recording has none.
FILTERS = {
    "ETHUSDT": ("0.01000000", "0.00010000", "5.00000000"),
    "BTCUSDT": ("0.01000000", "0.00001000", "5.00000000"),
}
ERRORS = {
    429: '{"code":-1003,"msg":"Too many requests."}',
    418: '{"code":-1003,"msg":"Way too much request weight used; IP banned."}',
}


def decimals(value: float) -> str:
    """Return a number as Binance writes it: a string with eight decimals."""
    return f"{value:.8f}"


def written(levels: Sequence[tuple[float, float]]) -> list[list[str]]:
    """Return levels as Binance writes them."""
    return [[decimals(price), decimals(size)] for price, size in levels]


def number(request: web.Request, name: str, default: Any = None, *, most: int = 2**63) -> Any:
    """Return a whole number asked for, at most `most`; raises HTTPBadRequest if it is none."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdigit():
        raise bad_request(-1100, f"Illegal characters found in parameter '{name}'.")
    return min(int(text), most)


def bad_request(code: int, msg: str) -> web.HTTPBadRequest:
    """Return the refusal Binance gives with its code."""
    text = json.dumps({"code": code, "msg": msg})
    return web.HTTPBadRequest(text=text, content_type="application/json")


def symbol_info(symbol: str) -> Payload:
    """Return a symbol of `/api/v3/exchangeInfo`."""
    tick, step, notional = FILTERS[symbol]
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": symbol.removesuffix("USDT"),
        "baseAssetPrecision": 8,
        "quoteAsset": "USDT",
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000",
             "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000.00000000",
             "stepSize": step},
            {"filterType": "NOTIONAL", "minNotional": notional, "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
        "permissions": ["SPOT"],
    }  # fmt: skip


def kline_row(candle: Candle, length: int) -> list[Any]:
    """Return a row of `/api/v3/klines`; what the recording does not say is null."""

    def text(value: float | None) -> str | None:
        return None if value is None else decimals(value)

    return [
        candle.open_ns // MS,
        *map(decimals, candle.ohlc),
        decimals(candle.volume),
        (candle.open_ns + length) // MS - 1,
        text(candle.quote_volume),
        candle.num_trades,
        text(candle.bought),
        None,
        "0",
    ]
