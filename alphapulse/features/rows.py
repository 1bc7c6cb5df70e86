"""The layout of the two rows everything is made of: a closed bar's row and a book second's row."""

from __future__ import annotations

# One float64 row a closed bar, written once, never changed. Prices in quote currency, volume in
# base currency.
# NaN only in a row flagged WARMUP: that many bars are not there yet.
COLUMNS: tuple[str, ...] = (
    "open", "high", "low", "close", "volume",
    "log_return",  # log(close / previous close)
    "sigma",  # standard deviation of the last 60 log returns (population)
    "volume_mean", "volume_std",  # of log1p(volume) over the last 60 bars
    "rsi14", "mfi14", "adx14", "atr14", "cci20", "willr14", "roc10", "aroonosc14",
    "ema12", "ema26", "sma20", "macd_hist", "bb_upper", "bb_middle", "bb_lower",
    # newest pivots confirmed at or before this bar's close; NaN before the first (not WARMUP)
    # leg: +1 rising, -1 falling since the newest confirmed pivot of the level
    "l1_high", "l1_low", "l1_leg",
    "l2_high", "l2_low", "l2_leg",
    "l3_high", "l3_low", "l3_leg",
)  # fmt: skip
COLUMN: dict[str, int] = {name: i for i, name in enumerate(COLUMNS)}

# Book: one float64 row a second, describing the book at the boundary and the second before it.
# NaN is unknown.
NUM_BINS = 20  # a side, each 5 bps wide, counted away from the mid: together +-1 %
BIN_BPS = 5.0
FLOW_BPS = 10  # to either side
BOOK_COLUMNS: tuple[str, ...] = (
    # resting size [base currency] between i*5 and (i+1)*5 bps below mid, then above it
    *(f"bid_{i:02d}" for i in range(NUM_BINS)),
    *(f"ask_{i:02d}" for i in range(NUM_BINS)),
    "mid",  # quote currency
    "spread_bps",
    "imbalance",  # (best bid size - best ask size) / sum
    "microprice_bps",  # microprice against mid
    # order-flow imbalance at the best level summed over the second [base currency]
    "ofi",  # Cont, Kukanov, Stoikov (2014)
    # of all levels within FLOW_BPS of the mid at the boundary: size added to the bids less size
    # added to the asks, net of what left, between the second's begin and its end [base currency]
    "ofi_levels",  # after Xu, Gould, Howison, Multi-Level Order-Flow Imbalance (2018)
    "bought",  # traded size, aggressor bought [base currency]
    "sold",
    "num_trades",
    "num_updates",  # book messages in the second
)
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
