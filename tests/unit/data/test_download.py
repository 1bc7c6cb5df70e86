"""Keep a venue's candles as a recording: bit for bit, and whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapulse.data.download import BARS, download_candles
from alphapulse.data.history import read_candles, write_candles
from alphapulse.data.live import Live
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.market import Instrument, Timeframe

INSTRUMENTS = (Instrument("ETH/USDT", 0.01, 1.0), Instrument("BTC/USDT", 0.01, 10.0))


class RecordedVenue:
    """Answers as ccxt would, from recorded candles, and checks what it is asked."""

    id = "recorded"

    def __init__(self, recording: Path, *, failing: str = "") -> None:
        self.series = {
            (i.symbol, t.value): read_candles(
                recording / f"candles-{t}-{i.venue_symbol}.parquet", i, t
            )
            for i in INSTRUMENTS
            for t in BARS
        }
        self.failing = failing
        self.is_closed = False

    async def fetch_time(self) -> int:
        return 1_723_161_240_000  # 2024-08-08T23:54:00Z

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[float]]:
        import ccxt

        assert 0 < limit <= 1000
        if symbol == self.failing:
            raise ccxt.BadSymbol(symbol)
        series = self.series[symbol, timeframe]
        first = int(np.searchsorted(series.open_ns_T, since * 1_000_000))
        opens = series.open_ns_T[first : first + limit] // 1_000_000
        rows = series.ohlcv_TC[first : first + limit].tolist()
        return [[int(o), *row] for o, row in zip(opens, rows, strict=True)]

    async def close(self) -> None:
        self.is_closed = True


def live(venue: Any) -> Live:
    return Live("recorded", INSTRUMENTS, history_bars=10, exchange=lambda: venue, first_pause_s=0)


def test_download_keeps_every_closed_candle_and_is_a_recording(
    recordings: Path, tmp_path: Path
) -> None:
    venue = RecordedVenue(recordings)

    folder = asyncio.run(download_candles(live(venue), INSTRUMENTS, tmp_path / "candles"))

    kept = read_candles(folder / "candles-1m-ETHUSDT.parquet", INSTRUMENTS[0], Timeframe.M1)
    truth = venue.series["ETH/USDT", "1m"].until(1_723_161_240_000_000_000)
    assert np.array_equal(kept.open_ns_T, truth.open_ns_T)
    assert np.array_equal(kept.ohlcv_TC, truth.ohlcv_TC)
    assert not Tape(folder, INSTRUMENTS).has_ticks
    assert venue.is_closed


def test_download_that_fails_half_way_leaves_no_recording(recordings: Path, tmp_path: Path) -> None:
    venue = RecordedVenue(recordings, failing="BTC/USDT")

    with pytest.raises(Unavailable, match="BTC/USDT"):
        asyncio.run(download_candles(live(venue), INSTRUMENTS, tmp_path / "candles"))

    assert not (tmp_path / "candles").exists()


def test_written_candles_read_back_bit_for_bit(recordings: Path, tmp_path: Path) -> None:
    series = read_candles(recordings / "candles-1h-BTCUSDT.parquet", INSTRUMENTS[1], Timeframe.H1)

    write_candles(tmp_path / "x.parquet", series)

    again = read_candles(tmp_path / "x.parquet", INSTRUMENTS[1], Timeframe.H1)
    assert again.ohlcv_TC.tobytes() == series.ohlcv_TC.tobytes()
