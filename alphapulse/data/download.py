"""Keep a venue's closed candles as a recording without ticks: a live run first learns from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from alphapulse.data.history import write_candles
from alphapulse.data.live import Live
from alphapulse.domain.market import Instrument, Timeframe

# two weeks of minutes, four months of hours, three years of days: what the first training looks at
BARS: Mapping[Timeframe, int] = {Timeframe.M1: 20_000, Timeframe.H1: 3_000, Timeframe.D1: 1_000}


async def download_candles(venue: Live, instruments: Sequence[Instrument], folder: Path) -> Path:
    """Write the newest closed candles of every instrument into `folder`, whole or not at all.

    Raises Unavailable if the venue does not answer, InvalidRecording if its bars cannot be bars.
    """
    unborn = folder.with_name(f".{folder.name}")
    shutil.rmtree(unborn, ignore_errors=True)
    unborn.mkdir(parents=True)
    try:
        for instrument in instruments:
            for timeframe, count in BARS.items():
                series = await venue.history(instrument, timeframe, count)
                name = f"candles-{timeframe}-{instrument.venue_symbol}.parquet"
                write_candles(unborn / name, series)
    finally:
        await venue.close()
    shutil.rmtree(folder, ignore_errors=True)
    return unborn.rename(folder)
