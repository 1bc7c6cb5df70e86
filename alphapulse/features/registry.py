"""The table of indicators: TA-Lib's standard set, and those a user adds with one function."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from alphapulse.domain.errors import ConfigError
from alphapulse.domain.inputs import NUM_OWN
from alphapulse.domain.market import Floats
from alphapulse.features.pivot_points import SESSION_LEVELS
from alphapulse.features.rows import COLUMNS, LEVELS

# What indicators read, a number a bar. `returns` is the log return, `activity` log1p(volume),
# `turnover` the typical price times volume; the steps are what OBV and the A/D line add a bar.
SERIES: tuple[str, ...] = (
    "high", "low", "close", "volume", "returns", "activity", "turnover", "obv_step", "ad_step",
)  # fmt: skip
CLOSE, HLC, HLCV, HL = ("close",), ("high", "low", "close"), SERIES[:4], ("high", "low")


class Unit(StrEnum):
    """What the number of an indicator counts, and so how it becomes a channel."""

    PRICE = "price"  # quote currency, a level: (close - x) / ATR
    CHANGE = "change"  # quote currency, a difference: x / ATR
    PERCENT = "percent"  # 0 to 100: (x - 50) / 50
    RATIO = "ratio"  # no unit: x
    SIZE = "size"  # an amount, base or quote currency, that grows with the market; no channel


@dataclass(frozen=True, slots=True)
class Indicator:
    """One TA-Lib function, what it reads and which columns it fills.

    Attributes:
        function: TA-Lib name.
        reads: names of SERIES, in the order of its arguments.
        columns: names filled, in the order of the function's outputs.
        unit: of its values.
        lookback: bars before its first value, as TA-Lib counts them.
        settling: bars after that until what lies before the first bar weighs next to nothing: four
            periods of what averages exponentially, 0 of what looks at a window.
        parameters: of the function.
        channels: of the models' input that read it.
    """

    function: str
    reads: tuple[str, ...]
    columns: tuple[str, ...]
    unit: Unit
    lookback: int
    settling: int = 0
    parameters: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @property
    def warm_up(self) -> int:
        """Return how many bars of a segment are there at its first valid value."""
        return self.lookback + self.settling + 1


def _periods(period: int) -> dict[str, float]:
    return {"timeperiod": period}


# Period 60 rather than 20 where the value is a unit of others: it should move slowly.
INDICATORS: tuple[Indicator, ...] = (
    Indicator("STDDEV", ("returns",), ("sigma",), Unit.RATIO, 60, 0,
              {"timeperiod": 60, "nbdev": 1.0}, ("log_return",)),
    Indicator("SMA", ("activity",), ("volume_mean",), Unit.RATIO, 59, 0, _periods(60),
              ("volume",)),
    Indicator("STDDEV", ("activity",), ("volume_std",), Unit.RATIO, 59, 0,
              {"timeperiod": 60, "nbdev": 1.0}, ("volume",)),
    Indicator("RSI", CLOSE, ("rsi14",), Unit.PERCENT, 14, 56, _periods(14), ("rsi",)),
    Indicator("EMA", CLOSE, ("ema12",), Unit.PRICE, 11, 48, _periods(12)),
    Indicator("EMA", CLOSE, ("ema26",), Unit.PRICE, 25, 104, _periods(26), ("from_ema26",)),
    Indicator("EMA", CLOSE, ("ema200",), Unit.PRICE, 199, 800, _periods(200)),
    Indicator("SMA", CLOSE, ("sma20",), Unit.PRICE, 19, 0, _periods(20)),
    Indicator("MACD", CLOSE, ("macd", "macd_signal", "macd_hist"), Unit.CHANGE, 33, 140,
              {"fastperiod": 12, "slowperiod": 26, "signalperiod": 9}, ("macd_hist",)),
    Indicator("BBANDS", CLOSE, ("bb_upper", "bb_middle", "bb_lower"), Unit.PRICE, 19, 0,
              {"timeperiod": 20, "nbdevup": 2.0, "nbdevdn": 2.0, "matype": 0},
              ("percent_b", "band_width")),
    Indicator("ROC", CLOSE, ("roc10",), Unit.RATIO, 10, 0, _periods(10)),
    Indicator("LINEARREG_SLOPE", CLOSE, ("slope14",), Unit.CHANGE, 13, 0, _periods(14)),
    Indicator("TRIX", CLOSE, ("trix15",), Unit.RATIO, 43, 180, _periods(15)),
    Indicator("KAMA", CLOSE, ("kama30",), Unit.PRICE, 30, 120, _periods(30)),
    Indicator("STOCHRSI", CLOSE, ("stochrsi_k", "stochrsi_d"), Unit.PERCENT, 20, 56,
              {"timeperiod": 14, "fastk_period": 5, "fastd_period": 3, "fastd_matype": 0}),
    Indicator("ADX", HLC, ("adx14",), Unit.PERCENT, 27, 112, _periods(14), ("adx",)),
    Indicator("ATR", HLC, ("atr14",), Unit.CHANGE, 14, 56, _periods(14),
              ("from_price", "upper", "lower", "body", "natr", "from_ema26", "macd_hist",
               "from_vwap20", "band_width", "l1_from_high", "l1_from_low", "l2_from_high",
               "l2_from_low", "l3_from_high", "l3_from_low")),
    Indicator("CCI", HLC, ("cci20",), Unit.RATIO, 19, 0, _periods(20)),
    Indicator("WILLR", HLC, ("willr14",), Unit.PERCENT, 13, 0, _periods(14)),
    Indicator("STOCH", HLC, ("stoch_k", "stoch_d"), Unit.PERCENT, 8, 0,
              {"fastk_period": 5, "slowk_period": 3, "slowk_matype": 0, "slowd_period": 3,
               "slowd_matype": 0}),
    Indicator("ULTOSC", HLC, ("ultosc",), Unit.PERCENT, 28, 0,
              {"timeperiod1": 7, "timeperiod2": 14, "timeperiod3": 28}),
    Indicator("MFI", HLCV, ("mfi14",), Unit.PERCENT, 14, 0, _periods(14), ("mfi",)),
    Indicator("AROONOSC", HL, ("aroonosc14",), Unit.RATIO, 14, 0, _periods(14)),
    # where it starts is forgotten at its first turn, which is not sure to come within any number
    Indicator("SAR", HL, ("sar",), Unit.PRICE, 1, 100, {"acceleration": 0.02, "maximum": 0.2}),
    Indicator("SUM", ("volume",), ("volume20",), Unit.SIZE, 19, 0, _periods(20),
              ("from_vwap20",)),
    Indicator("SUM", ("turnover",), ("turnover20",), Unit.SIZE, 19, 0, _periods(20),
              ("from_vwap20",)),
    Indicator("SUM", ("obv_step",), ("obv20",), Unit.SIZE, 20, 0, _periods(20)),
    Indicator("SUM", ("ad_step",), ("ad20",), Unit.SIZE, 19, 0, _periods(20)),
)  # fmt: skip
# rows of a segment before this many bars have WARMUP: a channel of the models is not valid yet
WARM_UP = max(indicator.warm_up for indicator in INDICATORS if indicator.channels)
# made of the outputs above and the bar itself, in `features.indicators.derived`
DERIVED: tuple[str, ...] = ("volume_score", "vwap20", "natr14", "relative_volume")
# where turning points are: `WilliamsStructure.context`
CONTEXT: tuple[str, ...] = (
    *(f"l{n}_{what}" for n in LEVELS for what in ("trend", "bars_since_high", "bars_since_low")),
    "extreme", "direction",
)  # fmt: skip


class Bars(NamedTuple):
    """The newest closed bars, and the forming one where there is one, oldest first.

    Attributes:
        open: float64 (T,) quote currency, as `high`, `low` and `close`.
        high: highest price.
        low: lowest price.
        close: last price.
        volume: base currency.
    """

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


@dataclass(frozen=True, slots=True)
class OwnIndicator:
    """A user's indicator: a function of the newest bars, whatever came before them.

    Attributes:
        name: of its column.
        function: takes the newest `bars` bars and returns their value, NaN where there is none.
        bars: how many it needs; before that many its value is NaN.
        unit: of its values.
        is_channel: whether the models see it, in one of the channels `own_1`, `own_2`.
    """

    name: str
    function: Callable[[Bars], float]
    bars: int
    unit: Unit
    is_channel: bool


_own: dict[str, OwnIndicator] = {}


def indicator(
    *, bars: int, unit: Unit | str, channel: bool = False
) -> Callable[[Callable[[Bars], float]], Callable[[Bars], float]]:
    """Add a function of the newest bars to the indicators of every stream, under its own name.

    ```python
    @indicator(bars=20, unit="price", channel=True)
    def midpoint20(bars):
        return (bars.high.max() + bars.low.min()) / 2
    ```

    It is asked once a closed bar and once a forming one, sees `bars` bars and no others, and so can
    know neither the future nor how long the history is. Name its module in `feed.indicators`.

    Args:
        bars: how many it needs, the newest one included.
        unit: a Unit, which says how the value becomes a channel.
        channel: whether the models see it. It takes the next free channel; models hear the ones
            they were trained with, by name.

    Raises:
        ConfigError: the name is taken, or no channel is free.
    """

    def add(function: Callable[[Bars], float]) -> Callable[[Bars], float]:
        name = function.__name__
        known = _own.get(name)
        if known is not None and _place(known.function) == _place(function):
            del _own[name]  # its module was loaded again
        if name in layout():
            raise ConfigError(
                f"indicator {name}: expected a name of its own, was that of another column; "
                "rename the function"
            )
        if channel and Unit(unit) is Unit.SIZE:
            raise ConfigError(
                f"indicator {name}: expected a unit that does not grow with the market for a "
                f"channel, was {Unit.SIZE}; divide by a volume and say {Unit.RATIO}"
            )
        if bars < 1:
            raise ConfigError(f"indicator {name}: expected bars >= 1, was {bars}")
        if channel and len(channels()) == NUM_OWN:
            raise ConfigError(
                f"indicator {name}: expected a free channel of {NUM_OWN}, was none beside "
                f"{', '.join(channels())}; give channel=False to one of them"
            )
        _own[name] = OwnIndicator(name, function, bars, Unit(unit), channel)
        return function

    return add


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, inspect.getsourcefile(function) or ""


def remove(name: str) -> None:
    """Take a user's indicator out again; rows that are being built keep it."""
    del _own[name]


def own() -> tuple[OwnIndicator, ...]:
    """Return the users' indicators in the order they were added."""
    return tuple(_own.values())


def channels() -> tuple[str, ...]:
    """Return the names of the users' indicators that models see, in the order of their channels."""
    return tuple(i.name for i in _own.values() if i.is_channel)


def layout() -> tuple[str, ...]:
    """Return the names of all columns of a row in the cache, those of COLUMNS first."""
    outputs = (name for i in INDICATORS for name in i.columns)
    others = (name for name in (*outputs, *DERIVED) if name not in COLUMNS)
    return (*COLUMNS, *others, *CONTEXT, *SESSION_LEVELS, *_own)


def load(modules: Iterable[str]) -> None:
    """Import the modules that add indicators; raises ConfigError if one cannot be."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"feed.indicators: expected a module that can be imported, was {module}: {error}; "
                "install it, or put its folder into PYTHONPATH"
            ) from error
