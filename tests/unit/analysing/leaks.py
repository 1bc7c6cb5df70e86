"""Features, labels and models as users write them: honest ones, and ones with a planted leak."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from alphapulse.domain.inference import Action, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, ModelInput

# ---- honest features ------------------------------------------------------------------------


def honest(bars: pd.DataFrame) -> pd.DataFrame:
    """Return columns of closed bars alone, with long and short memories."""
    close = bars["close"]
    hours = close.resample("1h", closed="left", label="right").last().dropna()
    joined = hours.reindex(bars.index + (bars.index[1] - bars.index[0]), method="ffill")
    return pd.DataFrame(
        {
            "mean": close.rolling(20).mean(),
            "ewm": close.ewm(span=12, adjust=False).mean(),
            "change": np.log(close).diff(),
            "score": (close - close.rolling(60).mean()) / close.rolling(60).std(),
            "hour": joined.to_numpy(),
            "range": bars["high"] - bars["low"],
        }
    )


def volume_balance(bars: pd.DataFrame) -> pd.Series:
    """Return on-balance volume: path dependent, but it does not look ahead."""
    return (np.sign(bars["close"].diff()) * bars["volume"]).cumsum().rename("obv")


def slow_mean(bars: pd.DataFrame) -> pd.Series:
    """Return an average of 200 bars that speaks from its first bar on."""
    return bars["close"].diff().ewm(span=200, adjust=False).mean().rename("slow")


def too_few(bars: pd.DataFrame) -> pd.Series:
    """Return fewer values than there are bars: nobody can say which bar they belong to."""
    return bars["close"].rolling(20).mean().dropna()


# ---- features with a planted leak ------------------------------------------------------------


def centred(bars: pd.DataFrame) -> pd.DataFrame:
    """Return a centred mean beside an honest one: three bars ahead."""
    close = bars["close"]
    return pd.DataFrame(
        {"fair": close.rolling(7).mean(), "centred": close.rolling(7, center=True).mean()}
    )


def filled_back(bars: pd.DataFrame) -> pd.Series:
    """Return the last close of a busy bar, filled backwards."""
    busy = bars["volume"] > bars["volume"].rolling(30).median() * 2
    return bars["close"].where(busy).bfill().rename("filled")


def warmed_up_backwards(bars: pd.DataFrame) -> pd.Series:
    """Return a mean of 50 bars whose first 49 values are the 50th."""
    return bars["close"].rolling(50).mean().bfill().rename("mean")


def scaled(bars: pd.DataFrame) -> pd.Series:
    """Return closes scaled by all that there will ever be."""
    close = bars["close"]
    return ((close - close.mean()) / close.std()).rename("scaled")


def early_hour(bars: pd.DataFrame) -> pd.Series:
    """Return the close of the hour from its open on: a longer bar joined before it has closed."""
    hours = bars["close"].resample("1h").last()
    return hours.reindex(bars.index, method="ffill").rename("hour_close")


def extremes(bars: pd.DataFrame, order: int = 5) -> pd.DataFrame:
    """Return local extremes with `order` lower bars on both sides, as argrelextrema finds them."""
    high = bars["high"]
    sides = [high.shift(lag) < high for lag in range(-order, order + 1) if lag]
    return pd.DataFrame({"peak": high.where(np.logical_and.reduce(sides)).ffill()})


def pivots_at_their_bar(bars: pd.DataFrame) -> pd.Series:
    """Return the newest pivot high from its own bar on, not from the bar that confirmed it."""
    from experiments.known_labels import series_of
    from experiments.labels import pivots_of

    found = [p for p in pivots_of(series_of(bars), level=1) if p.kind == "H"]
    at = pd.DatetimeIndex([p.pivot_ns for p in found], tz="UTC")
    highs = pd.Series([p.price for p in found], index=at)
    return highs[~at.duplicated()].reindex(bars.index, method="ffill").rename("pivot_high")


def next_return_from_a_file(bars: pd.DataFrame) -> pd.Series:
    """Return the next bar's return, looked up in the recording: no poison reaches a file."""
    folder = Path(os.environ["ALPHAPULSE_RECORDINGS"]) / "binance-spot-2024-08"
    table = pq.read_table(folder / "candles-1h-ETHUSDT.parquet", columns=["ts", "close"])
    close = table.to_pandas().set_index("ts")["close"]
    told = np.log(close).diff().shift(-1)
    return told.reindex(bars.index).rename("told")


def unsteady(bars: pd.DataFrame) -> pd.Series:
    """Return noise without a seed."""
    return pd.Series(np.random.default_rng().normal(size=len(bars)), bars.index, name="noise")


# ---- labels ----------------------------------------------------------------------------------


def ten_bars_on(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.Series:
    """Return the return of ten bars, known once they have closed."""
    close = bars["close"][bars.index < known_until]
    return np.log(close).diff(10).shift(-10).reindex(bars.index).rename("ten")


def ten_bars_at_once(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.Series:
    """Return the return of ten bars, known at its own bar."""
    told = np.log(bars["close"]).diff(10).shift(-10)
    return told.where(bars.index < known_until).rename("ten")


def best_so_far(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.Series:
    """Return the best of the next ten bars, said before the ten have closed."""
    close = np.log(bars["close"][bars.index < known_until])
    best = close[::-1].rolling(10, min_periods=1).max()[::-1].shift(-1) - close
    return best.reindex(bars.index).rename("best")


def pivots_by_their_bar(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.Series:
    """Return the next pivot's price, known from the pivot's bar on, not from its confirmation."""
    from experiments.known_labels import series_of
    from experiments.labels import pivots_of

    found = pivots_of(series_of(bars), level=1)
    seen = [p for p in found if p.pivot_ns < known_until.value]
    at = pd.DatetimeIndex([p.pivot_ns for p in seen], tz="UTC")
    price = pd.Series([p.price for p in seen], index=at)
    told = price[~at.duplicated()].reindex(bars.index, method="bfill").shift(-1)
    return told.where(bars.index < known_until).rename("pivot")


# ---- models ----------------------------------------------------------------------------------


class Fair:
    """Says the newest log return of one minute, as a probability."""

    name = "fair"
    spec = INPUT_SPEC
    version = "0" * 16

    def predict(self, input: ModelInput, *, upstream: Any) -> Prediction:
        return self._said(input, float(np.tanh(input.bars_SFTC[0, 1, -2, 4])))

    def _said(self, input: ModelInput, lean: float) -> Prediction:
        p_buy, p_sell = max(lean, 0.0), max(-lean, 0.0)
        return Prediction(
            model=self.name,
            version=self.version,
            symbol=input.symbol,
            event_ns=input.event_ns,
            action=Action.HOLD,
            p_buy=p_buy,
            p_sell=p_sell,
            p_hold=1.0 - p_buy - p_sell,
            confidence=0.5,
            utility_r=0.0,
            hidden_H=np.zeros(1, np.float32),
        )


class Remembering(Fair):
    """Scales by the largest price it was ever asked about: what comes later changes the scale."""

    name = "remembering"

    def __init__(self) -> None:
        self.top = 0.0

    def predict(self, input: ModelInput, *, upstream: Any) -> Prediction:
        self.top = max(self.top, input.price)
        return self._said(input, input.price / self.top - 0.5)


class Peeking(Fair):
    """Looks up in the recording whether the next minute rises."""

    name = "peeking"

    def __init__(self) -> None:
        folder = Path(os.environ["ALPHAPULSE_RECORDINGS"]) / "binance-spot-2024-08"
        table = pq.read_table(folder / "candles-1m-ETHUSDT.parquet", columns=["ts", "close"])
        self.close = table.to_pandas().set_index("ts")["close"]

    def predict(self, input: ModelInput, *, upstream: Any) -> Prediction:
        at = pd.Timestamp(input.event_ns, tz="UTC")
        later = float(self.close.asof(at)) / input.price - 1
        return self._said(input, float(np.tanh(later * 1e3)))
