"""Turn float64 rows into what a network reads: the 32 channels of a bar, 50 columns of the book."""

from __future__ import annotations

import numba
import numpy as np

from alphapulse.domain.inputs import BOOK_COLUMNS, CHANNEL, CHANNELS, NUM_BINS, Masks, Tensor
from alphapulse.domain.market import Floats
from alphapulse.domain.windows import Shown
from alphapulse.features.rows import BOOK_COLUMN, COLUMN, LEVELS, OWN

# axes: N rows of any timeframe · T second, oldest first · C channel · B book column
#
# Plain arithmetic in the order it is written, compiled without liberties: one row alone, many at
# once and another machine all give the same bits, so that an input can be made of finished rows
# and rebuilt from stored ones.

LIMIT = 20.0  # of every channel but the four prices, and of every book column
PLACED = 5  # the first channels, which scale and price move: `place_prices` makes them
WIDEST = 2.0**23  # ticks of a scale: float32 is right to a quarter of a tick
FAR = 10.0  # ATR: unit of distances that span many bars

_OPEN, _HIGH, _LOW, _CLOSE, _ATR = (
    COLUMN[name] for name in ("open", "high", "low", "close", "atr14")
)
_RETURN, _SIGMA, _VOLUME, _RSI, _MFI, _ADX, _EMA, _HIST, _UPPER, _LOWER, _VWAP = (
    COLUMN[name]
    for name in (
        "log_return", "sigma", "volume_score", "rsi14", "mfi14", "adx14", "ema26", "macd_hist",
        "bb_upper", "bb_lower", "vwap20",
    )
)  # fmt: skip
_FROM_PRICE = CHANNEL["from_price"]
_PIVOTS = COLUMN["l1_high"]
_OWN = COLUMN[OWN[0]]
_NUM_OWN = len(OWN)
_NUM_FAR = 3  # levels whose prices are channels; of the others the leg alone
_NUM_LEVELS = len(LEVELS)


@numba.njit(cache=True, error_model="numpy")
def _put(out_NC: Tensor, known_NC: Masks, n: int, c: int, value: float) -> None:  # pragma: no cover
    if value == value:
        out_NC[n, c] = min(max(value, -LIMIT), LIMIT)
        known_NC[n, c] = 1
    else:
        out_NC[n, c] = 0.0
        known_NC[n, c] = 0


@numba.njit(cache=True, error_model="numpy")
def fill_channels(
    rows_NC: Floats, values_NC: Tensor, known_NC: Masks, prices_NP: Floats
) -> None:  # pragma: no cover
    """Write what `bar_channels` returns in place."""
    for n in range(len(rows_NC)):
        row_C = rows_NC[n]
        high, low, close = row_C[_HIGH], row_C[_LOW], row_C[_CLOSE]
        atr = row_C[_ATR] if row_C[_ATR] > 0 else np.nan
        sigma = row_C[_SIGMA] if row_C[_SIGMA] > 0 else np.nan
        width = row_C[_UPPER] - row_C[_LOWER]
        bands = width if width > 0 else np.nan
        prices_NP[n, 0], prices_NP[n, 1], prices_NP[n, 2] = row_C[_OPEN], high, low
        prices_NP[n, 3], prices_NP[n, 4] = close, FAR * atr
        for c in range(PLACED):
            values_NC[n, c] = 0.0
            known_NC[n, c] = 1
        known_NC[n, _FROM_PRICE] = atr == atr
        c = PLACED
        for value in (
            row_C[_RETURN] / sigma,
            (high - close) / atr,
            (close - low) / atr,
            (close - row_C[_OPEN]) / atr,
            row_C[_VOLUME],
            (row_C[_RSI] - 50) / 50,
            (row_C[_MFI] - 50) / 50,
            row_C[_ADX] / 100,
            atr / close,
            (close - row_C[_EMA]) / atr,
            row_C[_HIST] / atr,
            (close - row_C[_VWAP]) / atr,
            (2 * close - row_C[_UPPER] - row_C[_LOWER]) / bands,
            bands / atr,
        ):
            _put(values_NC, known_NC, n, c, value)
            c += 1
        for level in range(_NUM_LEVELS):
            first = _PIVOTS + 3 * level
            if level < _NUM_FAR:
                _put(values_NC, known_NC, n, c, (close - row_C[first]) / (FAR * atr))
                _put(values_NC, known_NC, n, c + 1, (close - row_C[first + 1]) / (FAR * atr))
                c += 2
            _put(values_NC, known_NC, n, c, row_C[first + 2])
            c += 1
        for own in range(_NUM_OWN):
            _put(values_NC, known_NC, n, c, row_C[_OWN + own])
            c += 1


def bar_channels(rows_NC: Floats) -> Shown:
    """Return what models see of closed or forming rows, up to scale and price.

    Args:
        rows_NC: float64 (N, C) in the layout of `features.rows.COLUMNS`, or longer; NaN is unknown.

    Returns:
        Of N rows; what is NaN in the row or has no unit (an ATR, a deviation of zero) is 0 and
        unknown. The first five channels are 0 until `place_prices` makes them.
    """
    shown = room_for_bars(len(rows_NC))
    fill_channels(rows_NC, *shown)
    return shown


def room_for_bars(num: int) -> Shown:
    """Return arrays for `num` bars, of any content."""
    return _room(num, len(CHANNELS), PLACED)


def room_for_book(num: int) -> Shown:
    """Return arrays for `num` book seconds, of any content."""
    return _room(num, len(BOOK_COLUMNS), 1)


def _room(num: int, num_columns: int, num_prices: int) -> Shown:
    shape = (num, num_columns)
    return Shown(
        np.empty(shape, np.float32), np.empty(shape, np.uint8), np.empty((num, num_prices))
    )


@numba.njit(cache=True, error_model="numpy")
def place_prices(
    prices_NP: Floats, values_NC: Tensor, low: float, high: float, price: float
) -> None:  # pragma: no cover
    """Write the first five channels of rows in place.

    Args:
        prices_NP: float64 (N, 5) of `bar_channels`.
        values_NC: float32 (N, 32).
        low: lowest low of the highest timeframe [quote currency].
        high: highest high of it; above `low`.
        price: newest traded price of the symbol [quote currency].
    """
    factor = 1 / (high - low)
    for n in range(len(prices_NP)):
        for c in range(4):
            values_NC[n, c] = (prices_NP[n, c] - low) * factor
        value = (prices_NP[n, 3] - price) / prices_NP[n, 4]
        values_NC[n, _FROM_PRICE] = min(max(value, -LIMIT), LIMIT) if value == value else 0.0


def inverse_scale(x: Floats, scale_2: Floats, *, tick_size: float) -> Floats:
    """Return the prices [quote currency] behind the first four channels, exactly.

    float32 rounds a channel by at most 6e-8 of the scale's width, far less than half a tick for as
    long as the scale is narrower than eight million ticks: to the nearest tick it is the price.

    Args:
        x: channels.
        scale_2: low and high of the symbol, a row of `ModelInput.scale_S2`.
        tick_size: smallest price step of the instrument [quote currency].

    Raises:
        ValueError: the scale is too wide for float32 to tell ticks apart.
    """
    low, high = scale_2
    if (high - low) / tick_size > WIDEST:
        raise ValueError(
            f"inverse_scale: expected a scale of at most {WIDEST:.0f} ticks, was "
            f"{(high - low) / tick_size:.0f}; take the prices from the rows"
        )
    ticks = np.rint((np.asarray(x, np.float64) * (high - low) + low) / tick_size)
    # dividing by a whole number rounds as writing the price in decimals does
    return np.asarray(ticks / round(1 / tick_size) if tick_size < 1 else ticks * tick_size)


_MID, _SPREAD, _IMBALANCE, _MICROPRICE, _OFI, _OFI_LEVELS, _BOUGHT, _SOLD, _TRADES, _UPDATES = (
    BOOK_COLUMN[name] for name in BOOK_COLUMNS[2 * NUM_BINS :]
)
_NUM_SIZES = 2 * NUM_BINS
_NUM_BOOK = len(BOOK_COLUMNS)
MANY = 10.0  # trades and messages a second at which their columns are one half
MID_UNIT = 1e3  # 10 bps


@numba.njit(cache=True, error_model="numpy")
def fill_book(
    rows_TB: Floats, values_TB: Tensor, known_TB: Masks, prices_TP: Floats
) -> None:  # pragma: no cover
    """Write what `book_columns` returns in place."""
    for t in range(len(rows_TB)):
        row_B = rows_TB[t]
        total, count = 0.0, 0
        for b in range(_NUM_SIZES):
            if row_B[b] == row_B[b]:
                total += row_B[b]
                count += 1
        unit = total / count if total > 0 else np.nan
        for b in range(_NUM_BOOK):
            value = row_B[b]
            if b < _NUM_SIZES or b in (_OFI, _OFI_LEVELS, _BOUGHT, _SOLD):
                value = value / (abs(value) + unit)
            elif b in (_TRADES, _UPDATES):
                value = value / (value + MANY)
            _put(values_TB, known_TB, t, b, value)
        prices_TP[t, 0] = row_B[_MID]
        values_TB[t, _MID] = 0.0


def book_columns(rows_TB: Floats) -> Shown:
    """Return what models see of book rows, up to the price.

    A size x is x / (|x| + unit), the unit being the mean of the row's own known bins, so that 1/2
    is as much as an average bin holds; the flows likewise, with their sign. Counts are
    n / (n + 10); spread, imbalance and microprice stay as they are. The mid is 0 until `place_mid`
    makes it.

    Args:
        rows_TB: float64 (T, 50) in the layout of `BOOK_COLUMNS`; NaN is unknown.

    Returns:
        Of T rows; without any resting size no size is known.
    """
    shown = room_for_book(len(rows_TB))
    fill_book(rows_TB, *shown)
    return shown


@numba.njit(cache=True, error_model="numpy")
def place_mid(prices_TP: Floats, values_TB: Tensor, price: float) -> None:  # pragma: no cover
    """Write the mid's distance from the current price in place, in units of 10 bps.

    Args:
        prices_TP: float64 (T, 1) of `book_columns`.
        values_TB: float32 (T, 50).
        price: newest traded price of the symbol [quote currency].
    """
    for t in range(len(prices_TP)):
        mid = prices_TP[t, 0]
        value = MID_UNIT * 2 * (mid - price) / (mid + price)
        values_TB[t, _MID] = min(max(value, -LIMIT), LIMIT) if value == value else 0.0
