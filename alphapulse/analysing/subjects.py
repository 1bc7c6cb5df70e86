"""Make subjects of the built-in rows, and of features, labels and models given by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alphapulse.data.history import bars_of
from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.market import Bar, BarSeries, Floats
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.known_labels import Labels
from alphapulse.features.lookahead import Finding, Subject, Table, differ, farthest
from alphapulse.features.registry import layout
from alphapulse.interfaces import Model
from alphapulse.models.loading import load_model

# axes: T bar, oldest first · C column
OHLCV = ("open", "high", "low", "close", "volume")
NUM_STREAMED = 600  # newest bars that are streamed one by one too
WILD = 1e3  # factor of a forming bar that must change nothing


def load_named(name: str) -> Any:
    """Return what `package.module:thing` or `path/to/file.py:thing` names.

    Modules are looked for in the current folder first. Raises InvalidRequest if there is no such
    thing.
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise InvalidRequest(f"{name}: expected module:function or file.py:function")
    try:
        module = _module(module_name)
        return getattr(module, attribute)
    except (ImportError, AttributeError, OSError) as error:
        raise InvalidRequest(f"{name}: expected to find it, was {error}; check the name") from error


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame_of(series: BarSeries) -> pd.DataFrame:
    """Return the bars as strangers take them: index of opens in UTC, columns of OHLCV; a copy."""
    index = pd.DatetimeIndex(series.open_ns_T.copy(), tz="UTC", name="open_time")
    return pd.DataFrame(series.ohlcv_TC.copy(), index=index, columns=list(OHLCV))


def table_of(answer: Any, name: str) -> Table:
    """Return a Series, DataFrame or array as columns; raises if they are not numbers."""
    if isinstance(answer, pd.DataFrame):
        values_TC = answer.to_numpy(np.float64, na_value=np.nan)
        return Table(tuple(str(column) for column in answer.columns), values_TC)
    if isinstance(answer, pd.Series):
        name, answer = str(answer.name or name), answer.to_numpy(np.float64, na_value=np.nan)
    values_T = np.asarray(answer, np.float64)
    if values_T.ndim != 1:
        raise ValueError(f"expected one value a bar, was an array of shape {values_T.shape}")
    return Table((name,), values_T[:, None])


def feature(name: str, function: Callable[[pd.DataFrame], Any]) -> Subject:
    """Return the subject of a function of a frame of closed bars."""
    short = name.rpartition(":")[2]
    return Subject(name, lambda series: table_of(function(frame_of(series)), short))


def labels(name: str, function: Callable[[pd.DataFrame, pd.Timestamp], Any]) -> Labels:
    """Return the labels of a function of a frame of closed bars and the time they are known at."""
    short = name.rpartition(":")[2]

    def compute(series: BarSeries, known_ns: int) -> Table:
        return table_of(function(frame_of(series), pd.Timestamp(known_ns, tz="UTC")), short)

    return Labels(name, compute)


def model(name: str) -> Model:
    """Return the model of a checkpoint's folder, or what `module:Class` makes without arguments.

    Raises CheckpointError or InvalidRequest if there is none.
    """
    if Path(name).is_dir():
        return load_model(Path(name))
    made = load_named(name)()
    if not callable(getattr(made, "predict", None)):
        raise InvalidRequest(f"{name}: expected a model with `predict`, was {type(made).__name__}")
    return made  # type: ignore[no-any-return]


def rows(name: str) -> Subject:
    """Return the subject of the rows that every input is made of, computed as at a start."""
    return Subject(name, lambda series: Table(layout(), _opened(series)))


def _opened(series: BarSeries) -> Floats:
    return RowBuilder(series.symbol, series.timeframe).open(series)[0]


def look_at_stream(name: str, series: BarSeries) -> list[Finding]:
    """Return which columns are not the same bar by bar as over the whole history at once.

    Bar by bar nothing later is there to be read. Before each close the builder is shown a forming
    bar a thousand times as dear, which must leave no trace.
    """
    whole_TC = _opened(series)
    before = max(0, len(series) - NUM_STREAMED)
    builder = RowBuilder(series.symbol, series.timeframe)
    builder.open(series.until(int(series.open_ns_T[before])))
    streamed_TC = whole_TC.copy()
    newest = series.last(len(series) - before)
    for t, bar in enumerate(bars_of(newest), start=before):
        builder.peek(_wild(bar))
        streamed_TC[t] = builder.close(bar)[0]
    moved_C = differ(streamed_TC, whole_TC).any(axis=0)
    return [
        farthest(
            name,
            series,
            layout()[c],
            "stream",
            [(len(series), streamed_TC[:, c], whole_TC[:, c])],
        )
        for c in np.flatnonzero(moved_C).tolist()
    ]


def _wild(bar: Bar) -> Bar:
    return replace(
        bar,
        open=bar.open * WILD,
        high=bar.high * WILD,
        low=bar.low * WILD,
        close=bar.close * WILD,
        volume=bar.volume * WILD,
    )
