"""Turn float64 rows into what a network reads: 32 bar channels and 50 book columns."""

from __future__ import annotations

import math

import numpy as np

from alphapulse.domain.inference import Masks, Tensor
from alphapulse.domain.market import Floats
from alphapulse.features.rows import BOOK_COLUMN, COLUMN, NUM_BINS

# axes: N rows of any timeframe · T second, oldest first · C channel · B book column

# Channels of ModelInput.bars_SFTC: each a function of its own row, the symbol's scale and the
# current price.
CHANNELS: tuple[str, ...] = (
    # in the scale of the highest timeframe (R1.9): 0 is its low, 1 its high; never clipped
    "open", "high", "low", "close",
    "log_return",  # in standard deviations of the last 60
    # within the bar and to the current price, in ATR
    "upper", "lower", "body", "from_price",
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
    # distance of the close from the newest confirmed pivots of a level in ATR; leg since: -1, +1
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
    close, atr = x["close"], _unit(x["atr14"])
    bands = _unit(x["bb_upper"] - x["bb_lower"])
    channels_CN = np.array(
        [
            *((x[name] - low) / (high - low) for name in ("open", "high", "low", "close")),
            x["log_return"] / _unit(x["sigma"]),
            (x["high"] - close) / atr,
            (close - x["low"]) / atr,
            (close - x["open"]) / atr,
            (close - price) / atr,
            (np.log1p(x["volume"]) - x["volume_mean"]) / _unit(x["volume_std"]),
            (x["rsi14"] - 50) / 50,
            (x["mfi14"] - 50) / 50,
            x["adx14"] / 100,
            atr / close,
            x["cci20"] / 200,
            (x["willr14"] + 50) / 50,
            x["roc10"] / 100 * close / atr,
            x["aroonosc14"] / 100,
            (close - x["ema12"]) / atr,
            (close - x["ema26"]) / atr,
            x["macd_hist"] / atr,
            (2 * close - x["bb_upper"] - x["bb_lower"]) / bands,
            bands / atr,
            *_pivot_channels(x, close, atr),
        ]
    )
    np.clip(channels_CN[4:], -LIMIT, LIMIT, out=channels_CN[4:])
    channels_CN[np.isnan(channels_CN)] = 0.0
    return np.ascontiguousarray(channels_CN.T, np.float32)


def _pivot_channels(x: dict[str, Floats], close: Floats, atr: Floats) -> list[Floats]:
    channels = []
    for level in ("l1", "l2", "l3"):
        channels += [
            (close - x[f"{level}_high"]) / atr,
            (close - x[f"{level}_low"]) / atr,
            x[f"{level}_leg"],
        ]
    return channels


def _unit(values: Floats) -> Floats:
    """Return what may be divided by: NaN where `values` is not positive."""
    return np.asarray(np.where(values > 0, values, np.nan))


def inverse_scale(x: Floats, scale_2: Floats) -> Floats:
    """Return the prices [quote currency] behind the first four channels, given low and high."""
    low, high = scale_2
    prices: Floats = np.asarray(x, np.float64) * (high - low) + low
    return prices


_BINS = slice(0, 2 * NUM_BINS)
_SIZES = [BOOK_COLUMN[name] for name in ("bought", "sold", "depth")]
_COUNTS = [BOOK_COLUMN[name] for name in ("num_trades", "num_updates")]
_MID, _OFI, _DEPTH = (BOOK_COLUMN[name] for name in ("mid", "ofi", "depth"))


def book_columns(rows_TB: Floats, *, price: float) -> tuple[Tensor, Masks]:
    """Return the scaled book rows and which of their values are known.

    Sizes are log1p of size / unit, the unit being the window's median of known depth a known bin;
    the order-flow imbalance likewise, with its sign. The mid is log(mid / price) in units of
    10 bps, counts are log1p; spread, imbalance and microprice stay as they are.

    Args:
        rows_TB: float64 (T, 50) in the layout of `features.rows.BOOK_COLUMNS`; NaN is unknown.
        price: newest traded price of the symbol [quote currency].

    Returns:
        float32 (T, 50), 0 where unknown, and uint8 (T, 50), 1 where known. Without any known depth
        no size is known.
    """
    values_TB = rows_TB.copy()
    unit = _depth_unit(rows_TB)
    values_TB[:, _BINS] = np.log1p(rows_TB[:, _BINS] / unit)
    values_TB[:, _SIZES] = np.log1p(rows_TB[:, _SIZES] / unit)
    flow_T = rows_TB[:, _OFI]
    values_TB[:, _OFI] = np.sign(flow_T) * np.log1p(np.abs(flow_T) / unit)
    values_TB[:, _COUNTS] = np.log1p(rows_TB[:, _COUNTS])
    values_TB[:, _MID] = 1e3 * np.log(rows_TB[:, _MID] / price)
    unknown_TB = np.isnan(values_TB)
    values_TB[unknown_TB] = 0.0
    np.clip(values_TB, -LIMIT, LIMIT, out=values_TB)
    return values_TB.astype(np.float32), (~unknown_TB).view(np.uint8)


def _depth_unit(rows_TB: Floats) -> float:
    bins_T = np.count_nonzero(~np.isnan(rows_TB[:, _BINS]), axis=1)
    depth_T = rows_TB[:, _DEPTH]
    usable_T = (depth_T > 0) & (bins_T > 0)
    if not usable_T.any():
        return math.nan
    return float(np.median(depth_T[usable_T] / bins_T[usable_T]))
