"""The project's own labels in the form `alphapulse lookahead --labels` asks for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from alphapulse.domain.inference import Action, Forecast
from alphapulse.domain.learning import LEVELS, Inference, PastDecision, ShownBar
from alphapulse.domain.market import SECOND_NS, BarFlag, BarSeries, Ints, Timeframe
from alphapulse.learning.next_pivots import NextPivots
from experiments.labels import HORIZON, entry_results, pivot_answers, pivots_of

OHLCV = ["open", "high", "low", "close", "volume"]
UNIT = 1e-3  # of a move and of a risk [log price]: any constant will do where only time is asked
SYMBOL = "labels"


def series_of(bars: pd.DataFrame) -> BarSeries:
    """Return a frame of bars (index: opens, UTC; open high low close volume) as a series."""
    opens: Ints = bars.index.as_unit("ns").astype(np.int64).to_numpy()
    seconds = int(np.diff(opens).min()) // SECOND_NS
    timeframe = next(t for t in Timeframe if t.seconds == seconds)
    return BarSeries(SYMBOL, timeframe, opens, bars[OHLCV].to_numpy(np.float64))


def next_pivots(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.DataFrame:
    """Return what the CNN is taught at each close (`experiments.labels`), as known at a time.

    All bars are handed on, so that it is `cut_ns` alone that keeps later ones out.
    """
    series, cut_ns = series_of(bars), known_until.value
    at_N = series.open_ns_T + series.timeframe.ns
    answers = pivot_answers(
        pivots_of(series, level=LEVELS[series.timeframe]),
        timeframe=series.timeframe,
        at_N=at_N,
        price_N=series.ohlcv_TC[:, 3],
        volatility_N=np.full(len(series), UNIT),
        cut_ns=cut_ns,
    )
    return pd.DataFrame(answers, index=bars.index)


def entries(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.DataFrame:
    """Return the results of entries at each close (`experiments.labels`), as known at a time."""
    series = series_of(bars)
    results_N2 = entry_results(
        series,
        at_N=series.open_ns_T + series.timeframe.ns,
        risk_N=np.full(len(series), HORIZON * UNIT / 30),
        cost=UNIT,
        cut_ns=known_until.value,
    )
    return pd.DataFrame(results_N2, index=bars.index, columns=["result_long", "result_short"])


def settled(bars: pd.DataFrame, known_until: pd.Timestamp) -> pd.DataFrame:
    """Return the outcomes of a forecast at each close (`learning.next_pivots`), as known at a time.

    All bars are settled; what counts as known is what an outcome's own `known_ns` says.
    """
    series = series_of(bars)
    timeframe, level = series.timeframe, LEVELS[series.timeframe]
    stream = NextPivots(SYMBOL, timeframe)
    names = ("is_high", "bars", "move", "p_done", "hit")
    told = np.full((len(series), len(names)), np.nan)
    unit: Mapping[Timeframe, float] = dict.fromkeys(Timeframe, UNIT)
    rows = zip(series.open_ns_T.tolist(), series.ohlcv_TC[:, :4].tolist(), strict=True)
    for i, (open_ns, (open, high, low, close)) in enumerate(rows):
        closed_ns = open_ns + timeframe.ns
        bar = ShownBar(
            symbol=SYMBOL,
            timeframe=timeframe,
            open_ns=open_ns,
            open=open,
            high=high,
            low=low,
            close=close,
            flags=int(BarFlag.VALID),
            shown_ns=closed_ns,
        )
        for answer in stream.closed(bar)[1]:
            if answer.known_ns <= known_until.value:
                values = (answer.kind == "H", answer.bars, answer.move, answer.p_done, answer.hit)
                told[int(answer.inference_id)] = values
        forecast = Forecast(timeframe, level, 1.0, 0.0, closed_ns, 1.0, close, 1.0, 0.0, 1.0)
        said = Inference(
            id=str(i), model="cnn", version="", action=Action.HOLD, forecasts=(forecast,)
        )
        decision = PastDecision(
            run="", symbol=SYMBOL, event_ns=closed_ns, price=close, unit=unit, inferences=(said,)
        )
        stream.wait(decision, said, forecast)
    return pd.DataFrame(told, index=bars.index, columns=list(names))
