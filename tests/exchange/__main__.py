"""Play a recording as a Binance on this machine, until it ends or is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from alphapulse.config import Market
from alphapulse.data.tape import find_recording
from alphapulse.domain.errors import AlphaPulseError
from tests.exchange.columns import SECOND
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened


async def serve(folder: Path, *, port: int, speed: float, is_looping: bool) -> None:
    """Listen on `port` and play the recording in `folder` at `speed` times its pace."""
    recording = Recording(folder)
    async with opened(Exchange(recording, is_looping=is_looping), port=port) as exchange:
        begin, end = (
            datetime.fromtimestamp(ts_ns / SECOND, UTC).isoformat(timespec="seconds")
            for ts_ns in (recording.first_ns, recording.last_ns)
        )
        laps = "again and again" if is_looping else "once"
        print(f"{folder.name} {begin} to {end} at {speed:g}x, {laps}, at {exchange.url}")
        print("docs/exchange.md says how to connect to it; Ctrl-C ends it", flush=True)
        await exchange.run(speed=speed)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.exchange", description=__doc__)
    parser.add_argument("--recording", type=Path, help="folder of the recording")
    parser.add_argument("--port", type=int, default=8090, help="0 is any free one")
    parser.add_argument("--speed", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, a lap later")
    given = parser.parse_args()
    try:
        folder = find_recording(given.recording, Market().instruments, os.environ)
        asyncio.run(serve(folder, port=given.port, speed=given.speed, is_looping=given.loop))
    except KeyboardInterrupt:
        return
    except (AlphaPulseError, OSError) as error:  # no recording, or the port is taken
        sys.exit(str(error))


if __name__ == "__main__":
    main()
