"""Name the questions the monitor asks the API, and how often each is asked anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from alphapulse.domain.market import TIMEFRAMES

NUM_BARS = 90  # of a chart
NUM_DECISIONS = 20  # a symbol
TIMEFRAME_NAMES = tuple(timeframe.value for timeframe in TIMEFRAMES)


@dataclass(frozen=True, slots=True)
class Route:
    """A question to the API.

    Attributes:
        section: of the snapshot, which the answer belongs to.
        every_s: age at which an answer is asked for again [s, wall clock].
        part: which part of the section the answer is; empty: all of it.
        field: of the answer, which is meant; empty: the answer as a whole.
    """

    section: str
    path: str
    every_s: float
    part: str = ""
    field: str = ""


ROUTES = (
    Route("status", "/status", 1),
    Route("market", "/snapshot", 1),
    Route("risk", "/risk", 1),
    Route("processes", "/processes", 2),
    Route("thresholds", "/thresholds", 2),
    Route("alerts", "/alerts", 2),
    Route("equity", "/equity?limit=900", 2),
    Route("positions", "/positions", 2),
    Route("orders", "/orders?limit=50", 2),
    Route("fills", "/fills?limit=50", 2),
    Route("training", "/training", 2),
    Route("errors", "/errors", 5),
    Route("models", "/models", 10),
    Route("accuracy", "/accuracy", 10),
)
# a day's bar and its pivots change seldom, and 300 pivots are a long answer
CANDLES_S = {"1s": 2, "1m": 2, "1h": 5, "1d": 10}
PIVOTS_S = {"1s": 2, "1m": 10, "1h": 60, "1d": 60}


def routes_of(symbols: Sequence[str]) -> Iterator[Route]:
    """Yield the questions about every symbol."""
    for symbol in symbols:
        about = f"symbol={quote(symbol, safe='')}"
        yield Route("decisions", f"/decisions?{about}&limit={NUM_DECISIONS}", 2, symbol)
        advice = f"/inferences?model=rl&{about}&limit={NUM_DECISIONS}"
        yield Route("advice", advice, 2, symbol, "rows")


def routes_of_chart(symbol: str) -> Iterator[Route]:
    """Yield the questions about the symbol that is looked at."""
    about = f"symbol={quote(symbol, safe='')}"
    yield Route("book", f"/book?{about}", 2)
    for name in TIMEFRAME_NAMES:
        stream, every_s = f"{about}&timeframe={name}", CANDLES_S[name]
        yield Route("candles", f"/candles?{stream}&count={NUM_BARS}", every_s, name)
        forecasts = f"/inferences?model=cnn&{stream}&limit=1"
        yield Route("forecasts", forecasts, every_s, name, "rows")
        yield Route("pivots", f"/pivots?{stream}", PIVOTS_S[name], name)
