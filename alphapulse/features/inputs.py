"""Build the one input every model is fed, or say what it lacks; rebuild it from stored rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage
from alphapulse.domain.inputs import (
    DTYPES,
    INPUT_SPEC,
    IncompleteInput,
    InputSpec,
    Masks,
    ModelInput,
    Tensor,
)
from alphapulse.domain.market import Floats, Ints, Timeframe
from alphapulse.domain.windows import MarketWindow, Shown
from alphapulse.features.channels import bar_channels, book_columns, inverse_scale
from alphapulse.features.grid import BOOK, NUM_SLOTS, Grid, iso
from alphapulse.features.packages import StoredStreams, pack, restore_window, stored_rows
from alphapulse.features.peers import PeerTable

__all__ = [
    "PeerTable",
    "build",
    "inverse_scale",
    "pack",
    "rebuild",
    "relaid",
    "require_same",
    "seen_of",
    "stored_rows",
]

# What models see of rows, by (symbol, stream), beside their times.
Seen = Mapping[tuple[str, str], tuple[Ints, Shown]]
NOTHING: Seen = MappingProxyType({})
_LAID = ("bars_SFTC", "known_SFTC", "flags_SFT", "book_STB", "known_STB")

# axes: S symbol (the decided one first) · F timeframe · T slot, oldest first · C channel
#       B book column · K peer slot · P peer field · A account field · N rows of all timeframes


def build(
    window: MarketWindow, *, symbol: str, reference: str, peers: PeerTable, account_A: Tensor
) -> ModelInput | IncompleteInput:
    """Return what a model sees of `window`, or what is missing.

    The slots of a timeframe end with its forming bar; the 1s slots are the 300 seconds before the
    instant. A required stream must be whole and warmed up. Of an optional one what is there is
    shown; every other row, and a value that is not known yet, is 0: flags_SFT, known_SFTC and
    known_STB say which. Nothing is filled.

    Args:
        window: everything known at the instant.
        symbol: the instrument to decide about; its price is `window.close(symbol)`.
        reference: the other instrument.
        peers: last outputs of the models for `symbol`.
        account_A: float32 (4,): position, unrealised result [R], seconds in trade / 300, drawdown.

    Returns:
        The input, or IncompleteInput with reason `feed_down`, `missing_bars` or `flat_scale`.
    """
    peers_KP, awake_K = peers.at(window.event_ns)
    return _build(window, (symbol, reference), peers_KP, awake_K, account_A)


def _build(
    window: MarketWindow,
    symbols: tuple[str, str],
    peers_KP: Tensor,
    awake_K: Masks,
    account_A: Tensor,
) -> ModelInput | IncompleteInput:
    down = [symbol for symbol in symbols if symbol in window.down]
    if down:
        sentences = [
            f"{symbol}: expected a live feed, was down at {iso(window.event_ns)}" for symbol in down
        ]
        return IncompleteInput(symbols[0], window.event_ns, "feed_down", tuple(sentences))
    shapes = INPUT_SPEC.shapes()
    arrays = {name: np.empty(shapes[name], DTYPES[name]) for name in _LAID}
    prices = [
        window.close(symbol) if (symbol, Timeframe.M1) in window.streams else math.nan
        for symbol in symbols
    ]
    grids = [
        Grid.lay(
            window,
            symbol,
            price=price,
            **{name.replace("_S", "_"): array[s] for name, array in arrays.items()},
        )
        for s, (symbol, price) in enumerate(zip(symbols, prices, strict=True))
    ]
    missing = tuple(sentence for grid in grids for sentence in grid.missing())
    if missing:
        return IncompleteInput(symbols[0], window.event_ns, "missing_bars", missing)
    flat = [
        f"{grid.symbol}: expected a high above the low of {NUM_SLOTS} days, was {grid.low} for both"
        for grid in grids
        if grid.high <= grid.low
    ]
    if flat:
        return IncompleteInput(symbols[0], window.event_ns, "flat_scale", tuple(flat))
    return ModelInput(
        symbol=symbols[0],
        reference=symbols[1],
        event_ns=window.event_ns,
        window_version=window.version,
        price=prices[0],
        **arrays,
        peers_KP=peers_KP,
        awake_K=awake_K,
        account_A=account_A,
        scale_S2=np.array([(grid.low, grid.high) for grid in grids]),
        substitutions=tuple(sentence for grid in grids for sentence in grid.substitutions()),
        spec=InputSpec(own=window.own) if window.own else INPUT_SPEC,
    )


def rebuild(package: InputPackage, rows: StoredStreams) -> ModelInput:
    """Return the input that was packed, bit for bit.

    Args:
        package: what was stored of the input.
        rows: by (symbol, stream): times, flags and rows; more than the package shows do no harm.

    Raises:
        StoreError: rows are missing, or what they give is not the input that was packed.
    """
    input = relaid(package, rows)
    require_same(package, input)
    return input


def relaid(package: InputPackage, rows: StoredStreams, *, seen: Seen = NOTHING) -> ModelInput:
    """Return what `rebuild` returns, without looking whether it is the input that was packed.

    Args:
        package: what was stored of the input.
        rows: see `rebuild`.
        seen: by (symbol, stream), times of rows and what `seen_of` gives of them, where that was
            made already; these times are among them.
    """
    where = _where(package)
    if package.spec_version != INPUT_SPEC.version:
        raise StoreError(
            f"{where}: expected input layout {INPUT_SPEC.version}, was {package.spec_version}; "
            "rebuild it with the version of AlphaPulse that stored it"
        )
    window = restore_window(package, rows)
    for (symbol, timeframe), stream in window.streams.items():
        if (symbol, timeframe.value) in seen:
            stream.with_shown(_part(seen[symbol, timeframe.value], stream.open_ns_T))
    for symbol, book in window.books.items():
        if (symbol, BOOK) in seen:
            book.with_shown(_part(seen[symbol, BOOK], book.second_ns_T))
    symbols = (package.symbol, package.reference)
    input = _build(window, symbols, package.peers_KP, package.awake_K, package.account_A)
    if isinstance(input, IncompleteInput):
        raise StoreError(
            f"{where}: expected a whole input, was {input.reason}: {'; '.join(input.missing)}"
        )
    return input


def require_same(package: InputPackage, input: ModelInput) -> None:
    """Raise StoreError unless the input is bit for bit the one that was packed."""
    if input.content_hash != package.input_hash:
        raise StoreError(
            f"{_where(package)}: expected hash {package.input_hash}, was {input.content_hash}; "
            "stored rows were changed, restore the history from a backup"
        )


def seen_of(stream: str, rows_TC: Floats) -> Shown:
    """Return what models see of stored rows of a stream, up to scale and price."""
    return book_columns(rows_TC) if stream == BOOK else bar_channels(rows_TC)


def shown_part(shown: Shown, kept: slice | Ints) -> Shown:
    """Return what models see of some of the rows."""
    values_TC, known_TC, prices_TP = shown
    return Shown(values_TC[kept], known_TC[kept], prices_TP[kept])


def _part(seen: tuple[Ints, Shown], ts_ns_T: Ints) -> Shown:
    """Return of what is seen the part of some of its times."""
    all_ns_T, shown = seen
    if len(ts_ns_T) == len(all_ns_T):
        return shown
    return shown_part(shown, np.searchsorted(all_ns_T, ts_ns_T))


def _where(package: InputPackage) -> str:
    return f"input of {package.symbol} at {iso(package.event_ns)}"
