"""Point a ccxt exchange, as the product opens it, at an exchange on this machine."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from alphapulse.data.live import open_exchange
from tests.exchange.server import STREAMS


def connected(venue: Any, url: str) -> Any:
    """Return `venue` with every address of its API moved to `url`, so that nothing leaves.

    Args:
        venue: ccxt.pro's binance, before its first call.
        url: such as http://127.0.0.1:8090.
    """
    venue.urls["api"] = _moved(venue.urls["api"], url)
    venue.urls["api"]["ws"]["spot"] = f"ws://{urlsplit(url).netloc}{STREAMS}"
    return venue


def open_at(url: str) -> Any:
    """Return the product's Binance client, pointed at `url`; it must be closed."""
    return connected(open_exchange("binance"), url)


def _moved(addresses: Any, url: str) -> Any:
    if isinstance(addresses, dict):
        return {name: _moved(address, url) for name, address in addresses.items()}
    parts, host = urlsplit(addresses), urlsplit(url).netloc
    scheme = "ws" if parts.scheme.startswith("ws") else "http"
    return f"{scheme}://{host}{parts.path}"
