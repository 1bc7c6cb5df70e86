"""Ask models at recorded instants, with windows whose later part is overwritten, in both orders."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.config import Settings
from alphapulse.data.cache import MarketCache
from alphapulse.data.history import bars_of
from alphapulse.data.recordings import read_series
from alphapulse.domain.errors import NoData
from alphapulse.domain.inference import (
    INPUT_SPEC,
    IncompleteInput,
    ModelInput,
    Prediction,
)
from alphapulse.domain.market import (
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BarFlag,
    BarSeries,
    Floats,
    Timeframe,
)
from alphapulse.domain.windows import BookWindow, MarketWindow, StreamWindow
from alphapulse.features.inputs import CHANNELS, PeerTable, build
from alphapulse.features.lookahead import LEAK, NOTES, POISONS, Finding, Table
from alphapulse.features.rows import BOOK_COLUMNS
from alphapulse.interfaces import Model

# axes: N instant, oldest first
NUM_INSTANTS = 120  # newest whole minutes of the candles
NUM_POISONED = 6  # of them asked with a later part overwritten too
NUM_LATER = 40  # rows appended to each stream
Said = dict[str, float]
Numbers = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: the instants whose inputs are complete.

    Attributes:
        windows_N: what was known at each.
        inputs_N: the primary symbol's inputs.
        close_N: float64 (N,) its price at each [quote currency].
    """

    windows_N: Sequence[MarketWindow]
    inputs_N: Sequence[ModelInput]
    close_N: Floats


def candles_of(recording: Path, settings: Settings) -> list[BarSeries]:
    """Return the candles of 1m, 1h and 1d of both symbols that models are taught.

    Raises InvalidRecording if one is missing.
    """
    return [
        read_series(recording / f"candles-{t}-{i.venue_symbol}.parquet", i.symbol, t)
        for i in settings.market.taught
        for t in (Timeframe.M1, Timeframe.H1, Timeframe.D1)
    ]


def ask(series: Sequence[BarSeries], settings: Settings, *, count: int = NUM_INSTANTS) -> Asked:
    """Return the newest minutes of candles at which an input is complete.

    Args:
        series: candles of every symbol and timeframe, as `candles_of` reads them.
        settings: of market and feed.
        count: minutes looked at.

    Raises NoData if none is complete.
    """
    instruments, minute_ns = settings.market.taught, Timeframe.M1.ns
    end_ns = min(int(s.open_ns_T[-1]) for s in series if s.timeframe is Timeframe.M1) + minute_ns
    at_ns = end_ns - (count - 1) * minute_ns
    cache = MarketCache(instruments, settings.feed)
    for stream in series:
        cache.seed(stream.until(at_ns - minute_ns))
    windows, inputs = [], []
    closing = _closing(series, at_ns - minute_ns, end_ns)
    for instant_ns in range(at_ns, end_ns + 1, minute_ns):
        while closing and closing[0].close_ns <= instant_ns:
            cache.apply(closing.popleft())
        cache.close_until(instant_ns)
        window = cache.window(instant_ns)
        if isinstance(input := built(window, settings), ModelInput):
            windows.append(window)
            inputs.append(input)
    if not inputs:
        raise NoData(
            f"models: expected a complete input in the last {count} minutes of candles, was none; "
            "name a recording with a longer history"
        )
    return Asked(windows, inputs, np.array([input.price for input in inputs]))


def _closing(series: Sequence[BarSeries], from_ns: int, until_ns: int) -> deque[Bar]:
    """Return the bars that close after `from_ns`, until `until_ns`, in order."""
    bars = [bar for stream in series for bar in bars_of(_since(stream, from_ns).until(until_ns))]
    return deque(sorted(bars, key=lambda bar: (bar.ts_ns, bar.symbol, bar.timeframe.ns)))


def _since(series: BarSeries, from_ns: int) -> BarSeries:
    return series.last(len(series) - len(series.until(from_ns)))


def built(window: MarketWindow, settings: Settings) -> ModelInput | IncompleteInput:
    """Return the primary symbol's input when flat and without peers."""
    symbol, reference = (i.symbol for i in settings.market.taught[:2])
    account_A = np.zeros(INPUT_SPEC.num_account_fields, np.float32)
    return build(window, symbol=symbol, reference=reference, peers=PeerTable(), account_A=account_A)


def with_later(window: MarketWindow, fill: float) -> MarketWindow:
    """Return the window with rows of `fill` after its instant in every stream and book."""
    streams = {key: _longer(stream, fill) for key, stream in window.streams.items()}
    symbols = {symbol for symbol, _ in streams}
    books = {symbol: _longer_book(window, symbol, fill) for symbol in symbols}
    return replace(window, streams=streams, books=books)


def _longer(stream: StreamWindow, fill: float) -> StreamWindow:
    ns = stream.timeframe.ns
    last_ns = int(stream.open_ns_T[-1]) if len(stream.open_ns_T) else 0
    later_ns = last_ns + ns * np.arange(1, NUM_LATER + 1)
    rows = np.full((NUM_LATER, stream.rows_TC.shape[1]), fill)
    flags = np.full(NUM_LATER, int(BarFlag.VALID), np.uint8)
    return replace(
        stream,
        open_ns_T=np.concatenate([stream.open_ns_T, later_ns]),
        rows_TC=np.concatenate([stream.rows_TC, rows]),
        flags_T=np.concatenate([stream.flags_T, flags]),
    )


def _longer_book(window: MarketWindow, symbol: str, fill: float) -> BookWindow:
    book = window.books.get(symbol)
    later_ns = window.event_ns + SECOND_NS * np.arange(1, NUM_LATER + 1)
    rows = np.full((NUM_LATER, len(BOOK_COLUMNS)), fill)
    flags = np.zeros(NUM_LATER, np.uint8)
    if book is None:
        return BookWindow(symbol, later_ns, rows, flags)
    return BookWindow(
        symbol,
        np.concatenate([book.second_ns_T, later_ns]),
        np.concatenate([book.rows_TC, rows]),
        np.concatenate([book.flags_T, flags]),
    )


def numbers_of(input: ModelInput | IncompleteInput) -> Numbers:
    """Return every number of an input by a name that says where it stands."""
    if isinstance(input, IncompleteInput):
        return {}
    found: dict[str, Any] = {"price": np.array([input.price]), "scale": input.scale_S2}
    told = "; ".join(input.substitutions).encode()
    found["substitutions"] = np.array([zlib.crc32(told)])
    for s, symbol in enumerate((input.symbol, input.reference)):
        for f, timeframe in enumerate(TIMEFRAMES):
            where = f"{symbol} {timeframe}"
            found[f"{where} flags"] = input.flags_SFT[s, f]
            for c, channel in enumerate(CHANNELS):
                found[f"{where} {channel}"] = input.bars_SFTC[s, f, :, c]
        for b, column in enumerate(BOOK_COLUMNS):
            found[f"{symbol} book {column}"] = np.stack(
                [input.book_STB[s, :, b], input.known_STB[s, :, b]]
            )
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def look_at_inputs(name: str, asked: Asked, settings: Settings) -> list[Finding]:
    """Return which numbers of the inputs change with what comes after the instant."""
    found: dict[str, Finding] = {}
    for n in _spread(len(asked.inputs_N)):
        clean = numbers_of(asked.inputs_N[n])
        for fill in POISONS:
            changed = numbers_of(built(with_later(asked.windows_N[n], fill), settings))
            for column, values in clean.items():
                other = changed.get(column, np.full_like(values, np.nan))
                if other.tobytes() != values.tobytes():
                    place = int(np.argmax((other != values).ravel()))
                    pair = float(values.ravel()[place]), float(other.ravel()[place])
                    at_ns = asked.inputs_N[n].event_ns
                    found.setdefault(column, finding(name, column, "poison", at_ns, pair))
    return list(found.values())


def finding(
    subject: str, column: str, check: str, at_ns: int, pair: tuple[float, float]
) -> Finding:
    """Return the leak of a number that is one thing without what comes later, another with it."""
    return Finding(
        kind=LEAK,
        subject=subject,
        column=column,
        check=check,
        at_ns=at_ns,
        bars_ahead=1,
        num_bars=1,
        was=pair[0],
        became=pair[1],
        note=NOTES[check],
    )


def _spread(count: int) -> list[int]:
    """Return a few places out of `count`, the last among them."""
    return sorted(set(np.linspace(0, count - 1, NUM_POISONED).astype(int).tolist()))


def said_of(prediction: Prediction) -> Said:
    """Return every number of a prediction by name."""
    said = {name: getattr(prediction, name) for name in ("p_buy", "p_sell", "p_hold")}
    said |= {"confidence": prediction.confidence, "utility_r": prediction.utility_r}
    said |= {f"hidden_{h:02d}": float(v) for h, v in enumerate(prediction.hidden_H)}
    said |= {f"weight of {slot}": share for slot, share in prediction.weights.items()}
    for f in prediction.forecasts:
        for field in ("p_high", "bars_ahead", "price", "move", "p_done", "confidence"):
            said[f"{f.timeframe} L{f.level} {field}"] = getattr(f, field)
    return said


def look_at_models(
    models: Mapping[str, Model], asked: Asked, settings: Settings
) -> tuple[list[Finding], dict[str, Table]]:
    """Return what looks ahead among models, and what each says at every instant.

    Two checks: `poison` (windows whose later part is overwritten: the same bits), and `order`
    (asked again from the newest instant to the oldest: the same bits; a scale that is kept up to
    date while it predicts, or chance without a seed, shows here). Each hears those before it.

    Args:
        models: by the name they are called in findings, in the order they are asked.
        asked: instants with windows and inputs.
        settings: whose symbols.
    """
    count = len(asked.inputs_N)
    said_N = [_all_say(models, input) for input in asked.inputs_N]
    found: dict[tuple[str, str, str], Finding] = {}

    def compare(n: int, check: str, other: Mapping[str, Said]) -> None:
        for name, said in said_N[n].items():
            for column in {**said, **other[name]}:
                pair = said.get(column, np.nan), other[name].get(column, np.nan)
                if np.float64(pair[0]).tobytes() != np.float64(pair[1]).tobytes():
                    at_ns = asked.inputs_N[n].event_ns
                    found.setdefault(
                        (name, column, check), finding(name, column, check, at_ns, pair)
                    )

    for n in reversed(range(count)):
        compare(n, "order", _all_say(models, asked.inputs_N[n]))
    for n in _spread(count):
        for fill in POISONS:
            input = built(with_later(asked.windows_N[n], fill), settings)
            if isinstance(input, ModelInput):
                compare(n, "poison", _all_say(models, input))
    tables = {name: _table([said[name] for said in said_N]) for name in models}
    return list(found.values()), tables


def _all_say(models: Mapping[str, Model], input: ModelInput) -> dict[str, Said]:
    upstream: dict[str, Prediction] = {}
    for model in models.values():
        upstream[model.name] = model.predict(input, upstream=upstream)
    return {name: said_of(upstream[model.name]) for name, model in models.items()}


def _table(said_N: Sequence[Said]) -> Table:
    """Return what tells a direction, a row an instant: votes and kinds of the next pivots."""
    names = [name for name in said_N[0] if name.endswith("p_high")]
    columns = {"p_buy - p_sell": [said["p_buy"] - said["p_sell"] for said in said_N]}
    columns |= {name: [said.get(name, np.nan) for said in said_N] for name in names}
    return Table(tuple(columns), np.array(list(columns.values()), np.float64).T.copy())
