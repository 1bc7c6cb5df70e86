"""How long does the input of a model take to build, beside a plain copy of its bytes?"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from alphapulse.config import Market
from alphapulse.data.rows import read_only
from alphapulse.domain.inputs import DTYPES, ModelInput
from alphapulse.domain.market import SECOND_NS
from alphapulse.domain.windows import MarketWindow, StreamWindow
from alphapulse.features.inputs import PeerTable, build
from experiments.benchmarks.ingest_bars import recorded_events, seeded_cache
from experiments.benchmarks.peer import seconds
from experiments.benchmarks.result import Row, in_turn_us, us_row

INPUT_GOAL = 0.5  # TARGETS.md, features
NUM_WINDOWS = 64  # of other memory each, so that what a run reads is in no cache of the processor
EVERY_S = 3  # seconds between two windows
NUM_ROUNDS = 3  # over all windows, a run
PRIMARY, REFERENCE = (instrument.symbol for instrument in Market().instruments[:2])
ACCOUNT_A = np.zeros(4, np.float32)


def rows(recording: Path, *, runs: int) -> list[Row]:
    """Return `model_input` and `model_input_hash`."""
    windows = recorded_windows(recording)
    inputs = [built(window) for window in windows]
    arrays = [[getattr(input, name) for name in DTYPES] for input in inputs]
    num_bytes = sum(array.nbytes for array in arrays[0])

    def copy_one(i: int) -> object:
        return [array.copy() for array in arrays[i]]

    ours_us, peer_us = in_turn_us(
        lambda: each_us(lambda i: built(windows[i])), lambda: each_us(copy_one), runs=runs
    )
    peer = f"numpy {np.__version__} copy of {num_bytes / 1e6:.2f} MB, {NUM_WINDOWS} inputs in turn"
    return [
        us_row("model_input", ours_us, peer, peer_us, goal=INPUT_GOAL),
        hash_row(windows, runs=runs),
    ]


def hash_row(windows: Sequence[MarketWindow], *, runs: int) -> Row:
    """Return the time of an input's content hash, which is made when it is asked for."""
    values_us = []
    for _ in range(runs + 1):
        inputs = [built(window) for window in windows]
        hashed = seconds(lambda inputs=inputs: [input.content_hash for input in inputs])
        values_us.append(hashed * 1e6 / len(inputs))
    return Row(
        name="model_input_hash",
        value=statistics.median(values_us[1:]),
        unit="us",
        goal="report: sha256 of the whole input, once where it is stored",
        met=True,
        runs=values_us[1:],
    )


def each_us(one: Callable[[int], object]) -> float:
    """Return the microseconds of `one`, over all windows in turn."""

    def run() -> None:
        for _ in range(NUM_ROUNDS):
            for i in range(NUM_WINDOWS):
                one(i)

    return seconds(run) * 1e6 / (NUM_ROUNDS * NUM_WINDOWS)


def built(window: MarketWindow) -> ModelInput:
    """Return the input of a window; all windows here are whole."""
    input = build(
        window, symbol=PRIMARY, reference=REFERENCE, peers=PeerTable(), account_A=ACCOUNT_A
    )
    assert isinstance(input, ModelInput), input
    return input


def recorded_windows(recording: Path) -> list[MarketWindow]:
    """Return windows of the recording's last minutes, each in memory of its own."""
    history, events = recorded_events(recording)
    last_ns = events[-1].ts_ns // SECOND_NS * SECOND_NS
    instants = [last_ns - i * EVERY_S * SECOND_NS for i in reversed(range(NUM_WINDOWS))]
    cache = seeded_cache(history)
    pending = iter(events)

    def windows() -> Iterator[MarketWindow]:
        event = next(pending)
        for instant_ns in instants:
            while event.ts_ns < instant_ns:
                cache.apply(event)
                event = next(pending)
            window = copy.deepcopy(cache.window(instant_ns))
            for stream in (*window.streams.values(), *window.books.values()):
                assert stream.shown is not None
                read_only(*stream.shown, stream.rows_TC, stream.flags_T)  # as the cache's are
                if isinstance(stream, StreamWindow):
                    read_only(stream.open_ns_T)
                    if stream.forming_C is not None:
                        read_only(stream.forming_C)
                else:
                    read_only(stream.second_ns_T)
            yield window

    return list(windows())
