"""Put the recorded instruments side by side in one folder, and again under other names beyond."""

from __future__ import annotations

from pathlib import Path

from alphapulse.domain.market import Instrument

# name here · folder and name it was recorded under · tick, bucket [quote currency]
RECORDED = (
    ("ETH/USDT", "binance-spot-2024-08", "ETHUSDT", 0.01, 1.0),
    ("BTC/USDT", "binance-spot-2024-08", "BTCUSDT", 0.01, 10.0),
    ("ETHPERP/USDT", "binance-usdm-2024-08", "ETHUSDT", 0.01, 1.0),
    ("BTCPERP/USDT", "binance-usdm-2024-08", "BTCUSDT", 0.1, 10.0),
    ("ETHPERP/USD", "binance-coinm-2024-08", "ETHUSD_PERP", 0.01, 1.0),
    ("BTCPERP/USD", "binance-coinm-2024-08", "BTCUSD_PERP", 0.1, 10.0),
)
TICKS = ("trades", "depth-updates")
CANDLES = ("candles-1m", "candles-1h", "candles-1d")
SPOT = "binance-spot-2024-08"


def side_by_side(market: Path, folder: Path, *, count: int) -> tuple[Instrument, ...]:
    """Return `count` instruments whose recording `folder` now is, by links to those in `market`.

    Candles longer than a second are recorded of spot only: those of its coin stand for a
    perpetual's. Beyond the six that are recorded they begin again under another name.

    Args:
        market: folder that holds the recordings of 2024-08.
        folder: an empty one.
        count: how many.
    """
    found = []
    for number in range(count):
        lap, k = divmod(number, len(RECORDED))
        name, where, recorded, tick, bucket = RECORDED[k]
        base, quote = name.split("/")
        instrument = Instrument(f"{base}{lap + 1 if lap else ''}/{quote}", tick, bucket)
        for kind in TICKS:
            link = folder / f"{kind}-{instrument.venue_symbol}.parquet"
            link.symlink_to(market / where / f"{kind}-{recorded}.parquet")
        for kind in CANDLES:
            link = folder / f"{kind}-{instrument.venue_symbol}.parquet"
            link.symlink_to(market / SPOT / f"{kind}-{name[:3]}USDT.parquet")
        found.append(instrument)
    return tuple(found)
