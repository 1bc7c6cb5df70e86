"""The bars before the first decision as training rows: inputs, and answers as then known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from alphapulse.config import Settings
from alphapulse.data.cache import MarketCache
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import InvalidRecording, NoData
from alphapulse.domain.inference import Example, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, InputSpec, Masks, ModelInput, Tensor
from alphapulse.domain.market import TIMEFRAMES, BarFlag, BarSeries, Ints, Timeframe
from alphapulse.domain.windows import MarketWindow
from alphapulse.features.inputs import PeerTable, build
from alphapulse.features.registry import WARM_UP
from alphapulse.models.network import volatility_SF
from experiments.labels import Answers, Part

# axes: N instant, oldest first · S symbol · F timeframe · T row · C channel
# 1m bars before the first instant: those shown, and what the slowest indicator needs
WARMUP_BARS = INPUT_SPEC.num_rows + WARM_UP
MIN_MINUTES = 4_000  # in fewer, no entry of the smallest part settles within it (300 minutes)
SHARES = {"cnn": 0.6, "rl": 0.25, "moe": 0.15}  # of the training instants, oldest first
HELD_OUT = "held_out"
Upstream = Mapping[tuple[int, int], Mapping[str, Prediction]]


@dataclass(frozen=True, slots=True, repr=False)  # asyncio.run formats what a task returned
class Dataset:
    """Rows of both symbols at sampled instants, chronological.

    The streams of an instant are kept once: what one symbol sees first, the other sees second.

    Attributes:
        symbols: the primary one first.
        at_N: int64 (N,) instants [ns UTC].
        bars_NSFTC: float32 (N, 2, 4, 300, 32), the primary symbol first.
        known_NSFTQ: uint8 (N, 2, 4, 300, 4) which of the channels are known, a bit each.
        flags_NSFT: uint8 (N, 2, 4, 300).
        inputs_N: the two inputs of each instant, without their bars and flags.
        parts: by name: cnn, rl, moe, held_out.
        num_dropped: instants whose input was not complete.
    """

    symbols: tuple[str, ...]
    at_N: Ints
    bars_NSFTC: Tensor
    known_NSFTQ: Masks
    flags_NSFT: Masks
    inputs_N: Sequence[tuple[ModelInput, ...]]
    parts: Mapping[str, Part]
    num_dropped: int

    def input(self, n: int, s: int) -> ModelInput:
        """Return the input of symbol `s` at instant `n`, as the feed built it."""
        order = np.array([s, 1 - s])
        kept = self.inputs_N[n][s]
        return replace(
            kept,
            bars_SFTC=self.bars_NSFTC[n][order],
            known_SFTC=np.unpackbits(self.known_NSFTQ[n][order], axis=-1),
            flags_SFT=self.flags_NSFT[n][order],
        )

    @property
    def spec(self) -> InputSpec:
        """Return the layout of the inputs."""
        return self.inputs_N[0][0].spec

    def rows(self, part: str, upstream: Upstream, *, positions: Sequence[int] = (0,)) -> Rows:
        """Return the examples of a part, each at every one of `positions` (0 flat, 1 long)."""
        return Rows(self, self.parts[part], upstream, tuple(positions))


class Rows(Sequence[Example]):
    """The examples of one part, made when asked for: they would not fit into memory at once."""

    def __init__(
        self, dataset: Dataset, part: Part, upstream: Upstream, positions: tuple[int, ...]
    ) -> None:
        self._dataset = dataset
        self._part = part
        self._upstream = upstream
        self._positions = positions

    def __len__(self) -> int:
        return (self._part.end - self._part.begin) * 2 * len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        """Return one example, or the list of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, place = divmod(index, len(self._positions))
        i, s = divmod(row, 2)
        n, position = self._part.begin + i, self._positions[place]
        input = self._dataset.input(n, s)
        if position:
            account_A = np.array([position, 0, 0, 0], dtype=np.float32)
            input = replace(input, account_A=account_A)
        targets = {head: values[i, s] for head, values in self._part.pivots.items()}
        targets["result"] = self._part.results_NS2[i, s]
        targets["action"] = self._part.actions_NS2[i, s, position : position + 1]
        return Example(input, self._upstream.get((n, s), {}), targets)


async def collect(
    recording: Path, settings: Settings, *, on_instant: Callable[[], None] = lambda: None
) -> Dataset:
    """Walk the candles before the first tick and keep inputs at evenly spaced minutes.

    Without ticks, all candles are walked.

    Args:
        recording: folder with ticks and candles.
        settings: of market, feed and training.
        on_instant: called after every instant.

    Raises:
        NoData: too few minutes.
        InvalidRecording: no sampled instant has a complete input.
    """
    instruments = settings.market.taught
    tape = Tape(recording, instruments)
    end_ns = tape.first_ns if tape.has_ticks else tape.last_ns
    if not tape.has_ticks:
        tape = Tape(recording, instruments, with_ticks=False, from_ns=end_ns)
    symbols = tuple(i.symbol for i in instruments)
    series = {
        (i.symbol, timeframe): await tape.history(i, timeframe, None)
        for i in instruments
        for timeframe in TIMEFRAMES
    }
    at_N = _instants(series[symbols[0], Timeframe.M1], settings, where=str(recording))
    start_ns = int(at_N[0]) - Timeframe.M1.ns
    candles = Tape(
        recording, instruments, with_ticks=False, from_ns=start_ns, until_ns=int(at_N[-1])
    )
    n, f, t = len(at_N), INPUT_SPEC.num_timeframes, INPUT_SPEC.num_rows
    bars_NSFTC = np.zeros((n, 2, f, t, INPUT_SPEC.num_channels), dtype=np.float32)
    known_NSFTQ = np.zeros((n, 2, f, t, INPUT_SPEC.num_channels // 8), dtype=np.uint8)
    flags_NSFT = np.zeros((n, 2, f, t), dtype=np.uint8)
    kept_ns: list[int] = []
    inputs: list[tuple[ModelInput, ...]] = []
    async for window in windows(candles, settings, at_N):
        pair = input_pair(window, symbols)
        on_instant()
        if pair:
            count = len(inputs)
            _keep(pair[0], bars_NSFTC[count], flags_NSFT[count])
            known_NSFTQ[count] = np.packbits(pair[0].known_SFTC, axis=-1)
            inputs.append(tuple(_without_bars(input) for input in pair))
            kept_ns.append(window.event_ns)
    if not inputs:
        raise InvalidRecording(
            f"{recording}: expected complete inputs at {n} instants, was none; download the gaps"
        )
    count = len(inputs)
    dataset = Dataset(
        symbols,
        np.array(kept_ns, dtype=np.int64),
        bars_NSFTC[:count],
        known_NSFTQ[:count],
        flags_NSFT[:count],
        inputs,
        {},
        n - count,
    )
    return replace(dataset, parts=_parts(dataset, series, settings, end_ns))


def _instants(minutes: BarSeries, settings: Settings, *, where: str) -> Ints:
    """Return evenly spaced closes of 1m bars, as many as the settings want, oldest first."""
    wanted = (settings.training.num_train + settings.training.num_held_out) // 2  # two symbols each
    usable = minutes.open_ns_T[WARMUP_BARS:] + Timeframe.M1.ns
    if len(usable) < max(wanted, MIN_MINUTES):
        raise NoData(
            f"{where}: expected at least {max(wanted, MIN_MINUTES)} minutes of candles "
            f"after a warm-up of {WARMUP_BARS}, was {len(usable)}; "
            "record or download a longer history"
        )
    return np.asarray(usable[np.linspace(0, len(usable) - 1, wanted).astype(np.int64)])


async def windows(tape: Tape, settings: Settings, at_N: Ints) -> AsyncIterator[MarketWindow]:
    """Yield the window of every instant; the feed's cache without the windows in between."""
    instruments = settings.market.taught
    cache = MarketCache(instruments, settings.feed)
    for instrument in instruments:
        for timeframe in TIMEFRAMES:
            cache.seed(await tape.history(instrument, timeframe, None))
    wanted = set(at_N.tolist())
    minute_ns = int(at_N[0])
    async for event in tape.events():
        while event.ts_ns >= minute_ns:
            cache.close_until(minute_ns)
            if minute_ns in wanted:
                yield cache.window(minute_ns)
            minute_ns += Timeframe.M1.ns
        cache.apply(event)
    cache.close_until(minute_ns)
    yield cache.window(minute_ns)


def input_pair(window: MarketWindow, symbols: tuple[str, ...]) -> tuple[ModelInput, ...]:
    """Return both symbols' inputs when flat and without peers, nothing if one is not complete."""
    account_A = np.zeros(INPUT_SPEC.num_account_fields, dtype=np.float32)
    built = [
        build(window, symbol=a, reference=b, peers=PeerTable(), account_A=account_A)
        for a, b in (symbols, symbols[::-1])
    ]
    found = tuple(input for input in built if isinstance(input, ModelInput))
    return found if len(found) == len(symbols) else ()


def _keep(input: ModelInput, bars_SFTC: Tensor, flags_SFT: Masks) -> None:
    """Copy the streams that are there; what is masked stays untouched zero memory."""
    flags_SFT[:] = input.flags_SFT
    for s, f in np.argwhere(((input.flags_SFT & int(BarFlag.VALID)) != 0).any(axis=-1)):
        bars_SFTC[s, f] = input.bars_SFTC[s, f]


_SHAPES = INPUT_SPEC.shapes()
_NO_BARS = np.zeros(_SHAPES["bars_SFTC"], dtype=np.float32)
_NOTHING_SEEN = np.zeros(_SHAPES["known_SFTC"], dtype=np.uint8)
_NO_FLAGS = np.zeros(_SHAPES["flags_SFT"], dtype=np.uint8)
_NO_BOOK = np.zeros(_SHAPES["book_STB"], dtype=np.float32)
_NOTHING_KNOWN = np.zeros(_SHAPES["known_STB"], dtype=np.uint8)


def _without_bars(input: ModelInput) -> ModelInput:
    """Return `input` with its large arrays replaced by shared empty ones; candles know no book."""
    if input.known_STB.any():
        raise InvalidRecording(
            f"{input.symbol}: expected candles only, was a book; build the dataset from candles"
        )
    return replace(
        input,
        bars_SFTC=_NO_BARS,
        known_SFTC=_NOTHING_SEEN,
        flags_SFT=_NO_FLAGS,
        book_STB=_NO_BOOK,
        known_STB=_NOTHING_KNOWN,
    )


def _parts(
    dataset: Dataset,
    series: Mapping[tuple[str, Timeframe], BarSeries],
    settings: Settings,
    end_ns: int,
) -> dict[str, Part]:
    """Return the answers of every part, each as known when the next one begins."""
    training = settings.training
    taught = len(dataset.at_N) * training.num_train // (training.num_train + training.num_held_out)
    ends = np.round(np.cumsum(list(SHARES.values())) * taught).astype(int).tolist()
    bounds = [0, *ends, len(dataset.at_N)]
    cuts = [*(int(dataset.at_N[end]) for end in ends), end_ns]
    price_NS = np.array([[input.price for input in pair] for pair in dataset.inputs_N])
    units = zip(dataset.bars_NSFTC, dataset.flags_NSFT, strict=True)
    market = Answers(
        series=series,
        symbols=dataset.symbols,
        at_N=dataset.at_N,
        price_NS=price_NS,
        volatility_NSF=np.array([volatility_SF(bars, flags) for bars, flags in units]),
        cost=training.cost_bps / 1e4,
    )
    names = (*SHARES, HELD_OUT)
    return {n: market.part(bounds[i], bounds[i + 1], cuts[i]) for i, n in enumerate(names)}
