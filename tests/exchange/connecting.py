"""Open the product's Binance client at an exchange on this machine."""

from __future__ import annotations

from typing import Any

from alphapulse.data.live import open_exchange


def open_at(url: str) -> Any:
    """Return the product's Binance client, pointed at `url`; it must be closed."""
    return open_exchange("binance", url)
