"""The layout of the rows everything is made of: a closed bar's, a book second's, a bucket's."""

from __future__ import annotations

from alphapulse.domain.inputs import BOOK_COLUMNS, NUM_BINS, NUM_OWN

__all__ = [
    "BIN_BPS",
    "BOOK_COLUMN",
    "BOOK_COLUMNS",
    "BUCKET_COLUMN",
    "BUCKET_COLUMNS",
    "COLUMN",
    "COLUMNS",
    "LEVELS",
    "NUM_BINS",
    "OWN",
]

LEVELS = (1, 2, 3, 4, 5)  # of the Williams structure, short-term first
OWN = tuple(f"own_{i + 1}" for i in range(NUM_OWN))

# One float64 row a closed bar, written once, never changed: what inputs are built from, and what
# the history stores. Prices in quote currency, volume in base currency. In the cache a row goes on
# with the columns of `features.registry.layout`.
# NaN is what is not known: too few bars behind it (the row is flagged WARMUP), no pivot yet, no
# unit (a deviation of 0, no volume).
COLUMNS: tuple[str, ...] = (
    "open", "high", "low", "close", "volume",
    "log_return",  # log(close / previous close)
    "sigma",  # standard deviation of the last 60 log returns (population)
    "volume_score",  # standard score of log1p(volume) over the last 60 bars
    "rsi14", "mfi14", "adx14", "atr14", "ema26", "macd_hist", "bb_upper", "bb_lower", "vwap20",
    # newest pivots confirmed at or before this bar's close
    # leg: +1 rising, -1 falling since the newest confirmed pivot of the level
    *(f"l{level}_{what}" for level in LEVELS for what in ("high", "low", "leg")),
    *OWN,  # channels of the users' indicators
)  # fmt: skip
COLUMN: dict[str, int] = {name: i for i, name in enumerate(COLUMNS)}

# Book: one float64 row a second, describing the book at the boundary and the second before it.
# NaN is unknown.
BIN_BPS = 5.0  # width of a bin
FLOW_BPS = 10  # of the mid to either side: the levels that ofi_levels counts
BOOK_COLUMN: dict[str, int] = {name: i for i, name in enumerate(BOOK_COLUMNS)}

# One float64 row a bucket of a BookSnapshot, about the second just ended. NaN is unknown.
BUCKET_COLUMNS: tuple[str, ...] = (
    "bids",  # resting size in the whole bucket [base currency]
    "asks",
    "bought",  # traded size at the bucket's prices, aggressor bought [base currency]
    "sold",
    # (bids - asks) / (bids + asks) of all that rests from the mid's bucket out to this one, and as
    # far out on the other side: one bucket alone nearly always holds one side only
    "imbalance",
    "ofi",  # size added to the bids less size added to the asks, net of all that left [base curr.]
)
BUCKET_COLUMN: dict[str, int] = {name: i for i, name in enumerate(BUCKET_COLUMNS)}
