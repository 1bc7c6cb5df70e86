"""Turn float64 rows into what a network reads: 32 bar channels and 50 book columns."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from alphapulse.domain.inference import Masks, Tensor
from alphapulse.domain.market import Floats
from alphapulse.features.rows import BOOK_COLUMN, BOOK_COLUMNS, COLUMN, NUM_BINS

# axes: N rows of any timeframe · T second, oldest first · C channel · B book column

# Channels of ModelInput.bars_SFTC: each a function of its own row, the symbol's scale and the
# current price.
CHANNELS: tuple[str, ...] = (
    # in the scale of the highest timeframe (R1.9): 0 is its low, 1 its high; never clipped
    "open", "high", "low", "close",
    "log_return",  # in standard deviations of the last 60
    "upper", "lower", "body",  # high - close, close - low, close - open, in ATR
    "from_price",  # distance of the close from the current price, in 10 ATR
    "volume",  # standard score of log1p(volume) over the last 60 bars
    "rsi", "mfi",  # (x - 50) / 50
    "adx",  # / 100
    "natr",  # ATR / close, a plain ratio
    "cci",  # / 200
    "willr",  # (x + 50) / 50
    "roc",  # change over 10 bars, in ATR
    "aroonosc",  # / 100
    # distance of the close and MACD histogram, in ATR
    "from_ema12", "from_ema26", "macd_hist",
    "percent_b",  # place within the Bollinger bands: -1 is the lower, +1 the upper one
    "band_width",  # in ATR
    # distance of the close from the newest confirmed pivots, in 10 ATR; leg since: -1, +1
    "l1_from_high", "l1_from_low", "l1_leg",
    "l2_from_high", "l2_from_low", "l2_leg",
    "l3_from_high", "l3_from_low", "l3_leg",
)  # fmt: skip
CHANNEL: dict[str, int] = {name: i for i, name in enumerate(CHANNELS)}
LIMIT = 20.0  # of every channel but the first four, and of every book column


def bar_channels(rows_NC: Floats, *, low: float, high: float, price: float) -> Tensor:
    """Return the channels of feature rows, computed in float64 and cast once.

    Args:
        rows_NC: float64 (N, C) in the layout of `features.rows.COLUMNS`; NaN where there is no row
            or no value yet.
        low: lowest low of the highest timeframe [quote currency].
        high: highest high of it; above `low`.
        price: newest traded price of the symbol [quote currency].

    Returns:
        float32 (N, 32); what is NaN in the row or has no unit (an ATR, a deviation of zero) is 0.
    """
    x = dict(zip(COLUMN, np.ascontiguousarray(rows_NC.T), strict=True))
    channels_CN = np.empty((len(CHANNELS), len(rows_NC)))
    with np.errstate(over="ignore"):  # a unit next to nothing: the limit holds
        for channel_N, values_N in zip(channels_CN, _channels(x, low, high, price), strict=True):
            channel_N[:] = values_N
    np.clip(channels_CN[4:], -LIMIT, LIMIT, out=channels_CN[4:])
    channels_CN[np.isnan(channels_CN)] = 0.0
    return np.ascontiguousarray(channels_CN.astype(np.float32).T)


def _channels(x: dict[str, Floats], low: float, high: float, price: float) -> Iterator[Floats]:
    """Yield the channels in the order of CHANNELS, NaN where there is no value."""
    close, atr = x["close"], _unit(x["atr14"])
    far = 10 * atr
    bands = _unit(x["bb_upper"] - x["bb_lower"])
    for name in ("open", "high", "low", "close"):
        yield (x[name] - low) / (high - low)
    yield x["log_return"] / _unit(x["sigma"])
    yield (x["high"] - close) / atr
    yield (close - x["low"]) / atr
    yield (close - x["open"]) / atr
    yield (close - price) / far
    yield (np.log1p(x["volume"]) - x["volume_mean"]) / _unit(x["volume_std"])
    yield (x["rsi14"] - 50) / 50
    yield (x["mfi14"] - 50) / 50
    yield x["adx14"] / 100
    yield atr / close
    yield x["cci20"] / 200
    yield (x["willr14"] + 50) / 50
    yield x["roc10"] / 100 * close / atr
    yield x["aroonosc14"] / 100
    yield (close - x["ema12"]) / atr
    yield (close - x["ema26"]) / atr
    yield x["macd_hist"] / atr
    yield (2 * close - x["bb_upper"] - x["bb_lower"]) / bands
    yield bands / atr
    for level in ("l1", "l2", "l3"):
        yield (close - x[f"{level}_high"]) / far
        yield (close - x[f"{level}_low"]) / far
        yield x[f"{level}_leg"]


def _unit(values: Floats) -> Floats:
    """Return what may be divided by: NaN where `values` is not positive."""
    return np.asarray(np.where(values > 0, values, np.nan))


def inverse_scale(x: Floats, scale_2: Floats) -> Floats:
    """Return the prices [quote currency] behind the first four channels, given low and high."""
    low, high = scale_2
    prices: Floats = np.asarray(x, np.float64) * (high - low) + low
    return prices


_BINS = slice(0, 2 * NUM_BINS)
_FLOWS = slice(BOOK_COLUMN["ofi"], len(BOOK_COLUMNS))  # flows and counts
_MID = BOOK_COLUMN["mid"]
_IN_UNITS_B = np.array(
    [
        i < 2 * NUM_BINS or name in ("ofi", "ofi_levels", "bought", "sold")
        for name, i in BOOK_COLUMN.items()
    ]
)


def book_columns(rows_TB: Floats, *, price: float) -> tuple[Tensor, Masks]:
    """Return the scaled book rows and which of their values are known.

    Sizes are log1p of size / unit, the unit being the window's median of known depth a known bin;
    the order-flow imbalances likewise, with their sign. The mid is log(mid / price) in units of
    10 bps, counts are log1p; spread, imbalance and microprice stay as they are.

    Args:
        rows_TB: float64 (T, 50) in the layout of `features.rows.BOOK_COLUMNS`; NaN is unknown.
        price: newest traded price of the symbol [quote currency].

    Returns:
        float32 (T, 50), 0 where unknown, and uint8 (T, 50), 1 where known. Without any known depth
        no size is known.
    """
    unit = _depth_unit(rows_TB)
    known_TB = ~np.isnan(rows_TB)
    if math.isnan(unit):
        known_TB[:, _IN_UNITS_B] = False
    values_TB = np.where(known_TB, rows_TB, 0.0)  # log1p takes the slow way around NaN
    if not math.isnan(unit):
        values_TB /= np.where(_IN_UNITS_B, unit, 1.0)
    for logged_TB in (values_TB[:, _BINS], values_TB[:, _FLOWS]):
        logged_TB[:] = np.copysign(np.log1p(np.abs(logged_TB)), logged_TB)
    is_known_T = known_TB[:, _MID]
    values_TB[is_known_T, _MID] = 1e3 * np.log(values_TB[is_known_T, _MID] / price)
    np.clip(values_TB, -LIMIT, LIMIT, out=values_TB)
    return values_TB.astype(np.float32), known_TB.view(np.uint8)


def _depth_unit(rows_TB: Floats) -> float:
    bins_T = np.count_nonzero(~np.isnan(rows_TB[:, _BINS]), axis=1)
    depth_T = np.nansum(rows_TB[:, _BINS], axis=1)
    usable_T = (depth_T > 0) & (bins_T > 0)
    if not usable_T.any():
        return math.nan
    return float(np.median(depth_T[usable_T] / bins_T[usable_T]))
