"""What a model is fed: named axes, their layout under a version, and why there may be no input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alphapulse.domain.errors import InvalidInput, ShapeMismatch
from alphapulse.domain.market import TIMEFRAMES, Floats

# axes: S symbol (the decided one first, then the reference) · F timeframe · T row, oldest first
#       C channel · K peer slot · P peer field · A account field · B book bin or feature
Tensor = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint8]

AXES: Mapping[str, str] = {
    "S": "symbol", "F": "timeframe", "T": "row", "C": "channel", "B": "book column",
    "K": "peer slot", "P": "peer field", "A": "account field", "2": "low, high",
}  # fmt: skip

# Each a function of its own closed row, the symbol's scale and the current price.
CHANNELS: tuple[str, ...] = (
    # in the scale of the highest timeframe (R1.9): 0 is its low, 1 its high; never clipped
    "open", "high", "low", "close",
    "from_price",  # distance of the close from the current price, in 10 ATR
    "log_return",  # in standard deviations of the last 60
    "upper", "lower", "body",  # high - close, close - low, close - open, in ATR
    "volume",  # standard score of log1p(volume) over the last 60 bars
    "rsi", "mfi",  # (x - 50) / 50
    "adx",  # / 100
    "natr",  # ATR / close, a plain ratio
    "from_ema26", "macd_hist", "from_vwap20",  # distance of the close, the histogram, in ATR
    "percent_b",  # place within the Bollinger bands: -1 is the lower, +1 the upper one
    "band_width",  # in ATR
    # distance of the close from the newest confirmed pivots, in 10 ATR; leg since: -1, +1
    "l1_from_high", "l1_from_low", "l1_leg",
    "l2_from_high", "l2_from_low", "l2_leg",
    "l3_from_high", "l3_from_low", "l3_leg",
    "l4_leg", "l5_leg",
    "own_1", "own_2",  # room for a user's indicators, unknown until there are some
)  # fmt: skip
CHANNEL: dict[str, int] = {name: i for i, name in enumerate(CHANNELS)}
NUM_OWN = 2
FIRST_OWN = CHANNEL["own_1"]
NUM_BINS = 20  # a side, each 5 bps wide, counted away from the mid: together +-1 %
BOOK_COLUMNS: tuple[str, ...] = (
    # resting size [base currency] between i*5 and (i+1)*5 bps below mid, then above it
    *(f"bid_{i:02d}" for i in range(NUM_BINS)),
    *(f"ask_{i:02d}" for i in range(NUM_BINS)),
    "mid",  # quote currency
    "spread_bps",
    "imbalance",  # (best bid size - best ask size) / sum
    "microprice_bps",  # microprice against mid
    # order-flow imbalance summed over the second [base currency], Cont, Kukanov, Stoikov (2014)
    "ofi",  # at the best level
    "ofi_levels",  # of all levels within 10 bps of the mid
    "bought",  # traded size, aggressor bought [base currency]
    "sold",
    "num_trades",
    "num_updates",  # book messages in the second
)
PEER_FIELDS: tuple[str, ...] = (
    "p_buy", "p_sell", "p_hold",
    "confidence",
    "utility_r",
    "age_s",  # since the decision the output belongs to
    *(
        f"{timeframe.value}_{name}"
        for timeframe in TIMEFRAMES
        for name in ("p_high", "p_low", "dt", "dp", "p_done", "conf")
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The axes of a ModelInput, by name.

    Attributes:
        version: changes whenever a channel, a slot or a field changes its meaning.
        channels: of a bar's row.
        book_columns: of a book second.
        peer_fields: of a peer's output; the rest of `num_peer_fields` is room.
        own: names of the users' indicators in the channels `own_1`, `own_2`, in that order.
        required: timeframes of both symbols without which there is no input; 1s and the book are
            optional and masked.
    """

    version: int = 2
    num_symbols: int = 2
    num_timeframes: int = len(TIMEFRAMES)
    num_rows: int = 300
    channels: tuple[str, ...] = CHANNELS
    book_columns: tuple[str, ...] = BOOK_COLUMNS
    num_slots: int = 16
    peer_fields: tuple[str, ...] = PEER_FIELDS
    num_peer_fields: int = 64
    num_account_fields: int = 4
    own: tuple[str, ...] = ()
    required: tuple[str, ...] = ("1m", "1h", "1d")

    @property
    def num_channels(self) -> int:
        """Return how many channels a bar has."""
        return len(self.channels)

    @property
    def num_book_columns(self) -> int:
        """Return how many columns a book second has."""
        return len(self.book_columns)

    @property
    def content_hash(self) -> str:
        """Return the first 16 hex digits of sha256 over every name and size of the layout."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the expected shape of every array, by attribute name of ModelInput."""
        return dict(_SHAPES if self == INPUT_SPEC else self._shapes())

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        s, f, t = self.num_symbols, self.num_timeframes, self.num_rows
        return {
            "bars_SFTC": (s, f, t, self.num_channels),
            "known_SFTC": (s, f, t, self.num_channels),
            "flags_SFT": (s, f, t),
            "book_STB": (s, t, self.num_book_columns),
            "known_STB": (s, t, self.num_book_columns),
            "peers_KP": (self.num_slots, self.num_peer_fields),
            "awake_K": (self.num_slots,),
            "account_A": (self.num_account_fields,),
            "scale_S2": (s, 2),
        }


INPUT_SPEC = InputSpec()
_SHAPES = INPUT_SPEC._shapes()


# Why no model may be fed an input: codes of `features.validation`, at the head of a message.
INPUT_PROBLEMS: Mapping[str, str] = {
    "wrong_shape": "an axis has another length than the spec says",
    "wrong_dtype": "an array holds another type of number than the spec says",
    "foreign_spec": "the input was built for another layout than the model's",
    "not_finite": "a value is not a number or has no end",
    "missing_bars": "a row of a required timeframe is not there",
    "flat_scale": "the scale of a symbol has no width",
}


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Everything a model may see at one decision instant.

    Attributes:
        symbol: the instrument the decision is about.
        reference: the other instrument.
        event_ns: decision instant [ns UTC].
        window_version: version of the MarketWindow it was built from.
        price: newest traded price of `symbol` [quote currency].
        bars_SFTC: float32 (2, 4, 300, 32), channels of `CHANNELS`.
        known_SFTC: uint8 (2, 4, 300, 32): 1 where the channel is known; the value is 0 elsewhere.
        flags_SFT: uint8 (2, 4, 300) BarFlag bits; a row without VALID is zero and must be masked.
        book_STB: float32 (2, 300, 50), columns of `BOOK_COLUMNS`, scaled.
        known_STB: uint8 (2, 300, 50): 1 where the book value is known.
        peers_KP: float32 (16, 64) last outputs by slot.
        awake_K: uint8 (16,): 1 where a slot holds an output.
        account_A: float32 (4,): position [-1..1], unrealised result [R], seconds in trade / 300,
            drawdown.
        scale_S2: float64 (2, 2): low and high of the last 300 daily bars, the forming day included.
        substitutions: what stood in for a stream that was not there, one sentence each.

    Raises:
        ShapeMismatch: an array has another shape than its spec says.
        InvalidInput: it has another type.
    """

    symbol: str
    reference: str
    event_ns: int
    window_version: int
    price: float
    bars_SFTC: Tensor
    known_SFTC: Masks
    flags_SFT: Masks
    book_STB: Tensor
    known_STB: Masks
    peers_KP: Tensor
    awake_K: Masks
    account_A: Tensor
    scale_S2: Floats
    substitutions: tuple[str, ...] = ()
    spec: InputSpec = INPUT_SPEC
    # computed when asked for: it costs more than all the rest; `replace` forgets it
    _content_hash: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, expected in self.spec.shapes().items():
            array = getattr(self, name)
            if array.shape != expected:
                require_shape(f"{self.symbol} {name}", array, expected)
            if array.dtype != DTYPES[name]:
                raise InvalidInput(
                    f"wrong_dtype: {self.symbol} {name}: expected {DTYPES[name]}, was "
                    f"{array.dtype}; build the input with features.inputs.build"
                )

    @property
    def content_hash(self) -> str:
        """Return sha256 over the spec, symbols, instant and every array's bytes, hex."""
        if not self._content_hash:
            object.__setattr__(self, "_content_hash", self._hash())
        return self._content_hash

    def _hash(self) -> str:
        digest = hashlib.sha256(
            f"{self.spec.version}|{'+'.join(self.spec.own)}|{self.symbol}|{self.reference}|{self.event_ns}".encode()
        )
        for name in DTYPES:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()


DTYPES: Mapping[str, np.dtype[Any]] = {
    "bars_SFTC": np.dtype(np.float32),
    "known_SFTC": np.dtype(np.uint8),
    "flags_SFT": np.dtype(np.uint8),
    "book_STB": np.dtype(np.float32),
    "known_STB": np.dtype(np.uint8),
    "peers_KP": np.dtype(np.float32),
    "awake_K": np.dtype(np.uint8),
    "account_A": np.dtype(np.float32),
    "scale_S2": np.dtype(np.float64),
}


def require_shape(what: str, array: npt.NDArray[Any], expected: tuple[int, ...]) -> None:
    """Raise ShapeMismatch, naming the first axis that differs, unless the shape is `expected`."""
    if array.shape == expected:
        return
    axes = what.rsplit("_", 1)[-1]
    differs = [i for i, (a, b) in enumerate(zip(array.shape, expected, strict=False)) if a != b]
    where = "number of axes"
    if differs and differs[0] < len(axes):
        letter = axes[differs[0]]
        where = f"axis {letter} ({AXES.get(letter, 'unnamed')})"
    raise ShapeMismatch(
        f"wrong_shape: {what}: {where}: expected {expected}, was {array.shape}; "
        "build the input with features.inputs.build"
    )


@dataclass(frozen=True, slots=True)
class IncompleteInput:
    """Why no input could be built: no prediction is made (R9.2).

    Attributes:
        reason: code, such as `missing_bars`.
        missing: one sentence per missing component, with expected and actual counts.
    """

    symbol: str
    event_ns: int
    reason: str
    missing: tuple[str, ...]
