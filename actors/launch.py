"""What every actor of a run is told at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alphapulse.config import Settings
from alphapulse.data.live import Live
from alphapulse.data.tape import Tape
from alphapulse.domain.market import Instrument
from alphapulse.interfaces import DataProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The facts of one `up`, small and serializable.

    Attributes:
        home: folder of the home.
        session: id of this `up`, for the errors table.
        recording: folder of the recording, empty for live.
        venue: ccxt id of the live venue, empty for a recording.
        run: id of the run; `run_number` names its folder.
        checkpoints: id by model, of which the run starts.
        speed: event time over wall time; 0 is as fast as it goes.
        training: whether rounds may be started.
    """

    home: str
    session: str
    recording: str
    venue: str
    run: str
    run_number: int
    checkpoints: Mapping[str, str]
    speed: float
    training: bool
    settings: Settings

    def provider(self, instruments: Sequence[Instrument] | None = None) -> DataProvider:
        """Return the source of the events of `instruments`, of all that are watched if None."""
        market = self.settings.market
        watched = market.instruments if instruments is None else instruments
        if self.recording:
            return Tape(Path(self.recording), watched)
        feed = self.settings.feed
        return Live(self.venue, watched, feed, url=market.exchange_url)
