"""The CNN's layers, and what all torch models share: seeds, owned inputs, weights as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from alphapulse.domain.errors import CheckpointError
from alphapulse.domain.inputs import CHANNEL, FIRST_OWN, INPUT_SPEC, InputSpec, Masks, ModelInput
from alphapulse.domain.inputs import Tensor as Array
from alphapulse.domain.market import BarFlag, Floats

# axes: B batch · S symbol (decided, reference) · F timeframe · T row · C channel · P patch · D
# token · H hidden
#       K peer slot · O output of a timeframe's head
# Flags that are channels too; candles cannot show PARTIAL and VENUE truthfully.
SHOWN = (BarFlag.VALID, BarFlag.FORMING, BarFlag.EMPTY)
PATCH = 4  # rows a stem step: 300 rows become 75 patches
DILATIONS = (1, 3, 9)
OUTPUTS = 5  # p_high logit, log1p bars, move if high, move if low, p_done logit


def use_one_thread() -> None:
    """Keep torch to one thread: sums keep their order, and trading shares the machine."""
    torch.set_num_threads(1)


def seed_all(seed: int) -> None:
    """Fix torch's random choices and forbid operations that differ from run to run."""
    use_one_thread()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def owned(array: npt.NDArray[Any]) -> Tensor:
    """Return a torch copy: Ray's are read-only, and their alignment changes bits of products."""
    return torch.tensor(np.asarray(array))


def heard(input: ModelInput, spec: InputSpec) -> Array:
    """Return the bars as a model of `spec` hears them, float32 (S, F, T, C).

    The users' indicators it was trained with are where they were then, by name, 0 where the input
    lacks one; those it was not trained with are 0: a new one changes no old output.
    """
    given = input.spec.own
    if given == spec.own:
        return input.bars_SFTC
    bars_SFTC = input.bars_SFTC.copy()
    bars_SFTC[..., FIRST_OWN:] = 0
    for place, name in enumerate(spec.own):
        if name in given:
            heard_SFT = input.bars_SFTC[..., FIRST_OWN + given.index(name)]
            bars_SFTC[..., FIRST_OWN + place] = heard_SFT
    return bars_SFTC


def volatility_SF(bars_SFTC: Array, flags_SFT: Masks) -> Floats:
    """Return the unit of a move, float64 (S, F) [log price].

    That is ATR / close of each stream's newest valid row; NaN where a stream has no valid row, or
    none with an ATR yet.
    """
    valid_SFT = (flags_SFT & int(BarFlag.VALID)) != 0
    newest_SF = valid_SFT.shape[-1] - 1 - valid_SFT[..., ::-1].argmax(axis=-1)
    natr_SFT = bars_SFTC[..., CHANNEL["natr"]]
    natr_SF = np.take_along_axis(natr_SFT, newest_SF[..., None], axis=-1)[..., 0].astype(np.float64)
    return np.where(valid_SFT.any(axis=-1) & (natr_SF > 0), natr_SF, np.nan)


def weights_of(network: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Return all parameters and buffers as arrays by name."""
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def put_weights(network: nn.Module, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Load arrays by name into `network`; raises CheckpointError if they are not its own."""
    try:
        network.load_state_dict({name: owned(value) for name, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"weights of another layout: {error}; load the checkpoint of this model"
        ) from None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Widths of the CNN.

    Attributes:
        width: channels of the encoder.
        token: width of a stream's token.
        hidden: width of the hidden state other models see.
        book: width of the book encoder.
    """

    width: int = 40
    token: int = 48
    hidden: int = 48
    book: int = 16


class Block(nn.Module):
    """A causal dilated convolution over three patches and a pointwise mix, as matrix products."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.spread = nn.Linear(3 * width, width)
        self.mix = nn.Linear(width, width)

    def forward(self, x_BPW: Tensor) -> Tensor:
        """Return (B, P, W); patch p sees p, p - dilation and p - 2 dilation only."""
        num, back = x_BPW.shape[1], self.dilation
        padded = functional.pad(x_BPW, (0, 0, 2 * back, 0))
        taps = torch.cat([padded[:, :num], padded[:, back : back + num], x_BPW], dim=-1)
        mixed: Tensor = self.mix(functional.gelu(self.spread(taps)))
        return x_BPW + mixed


class StreamEncoder(nn.Module):
    """One encoder for all eight price streams.

    Strided stem and three causal blocks; the token is made of last and mean patch and of the newest
    two rows.
    """

    def __init__(self, spec: InputSpec, sizes: Sizes) -> None:
        super().__init__()
        columns = spec.num_channels + len(SHOWN)
        self.stem = nn.Linear(PATCH * columns, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes.width, dilation) for dilation in DILATIONS)
        self.token = nn.Linear(2 * sizes.width + 2 * columns, sizes.token)
        self.norm = nn.LayerNorm(sizes.token)
        with torch.no_grad():  # no candle is EMPTY, so nothing could be learned about it
            self.stem.weight.view(-1, PATCH, columns)[..., -1] = 0
            self.token.weight[:, 2 * sizes.width :].view(-1, 2, columns)[..., -1] = 0

    def forward(self, rows_BTC: Tensor, flags_BT: Tensor) -> Tensor:
        """Return one token a stream, (B, D), zeros if masked whole; masked rows have no say."""
        shown_BTC = torch.stack([(flags_BT & int(flag)) != 0 for flag in SHOWN], dim=-1)
        valid_BT1 = shown_BTC[..., :1]
        clean = torch.where(valid_BT1, rows_BTC, 0.0).asinh()  # tails count, but by their log
        x_BTC = torch.cat([clean, (shown_BTC & valid_BT1).to(clean.dtype)], dim=-1)
        num, rows, columns = x_BTC.shape
        x = self.stem(x_BTC.reshape(num, rows // PATCH, PATCH * columns))
        for block in self.blocks:
            x = block(x)
        seen = valid_BT1.reshape(num, rows // PATCH, PATCH).any(dim=-1, keepdim=True)
        mean = torch.where(seen, x, 0.0).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        token = functional.gelu(
            self.token(torch.cat([x[:, -1], mean, x_BTC[:, -2:].flatten(1)], dim=-1))
        )
        return torch.where(seen.any(dim=1), self.norm(token), 0.0)


class BookEncoder(nn.Module):
    """The order book of both symbols as one vector; unknown is told apart from empty."""

    def __init__(self, spec: InputSpec, sizes: Sizes) -> None:
        super().__init__()
        columns = 2 * spec.num_book_columns
        self.stem = nn.Linear(PATCH * columns, sizes.book)
        self.rows = spec.num_rows

    def forward(self, book_BSTB: Tensor, known_BSTB: Tensor) -> Tensor:
        """Return (B, S * 2 * book): newest and mean patch of each symbol."""
        known = known_BSTB != 0
        x = torch.cat([torch.where(known, book_BSTB, 0.0), known.to(book_BSTB.dtype)], dim=-1)
        patches = functional.gelu(self.stem(x.reshape(*x.shape[:2], self.rows // PATCH, -1)))
        return torch.cat([patches[:, :, -1], patches.mean(dim=2)], dim=-1).flatten(1)


class CnnNetwork(nn.Module):
    """Eight streams, book and peers -> hidden state -> one shared head for every timeframe.

    What training has not shown starts at zero and stays there: the second bars, the book and the
    peers change nothing until a training has seen them.
    """

    def __init__(self, spec: InputSpec = INPUT_SPEC, sizes: Sizes | None = None) -> None:
        super().__init__()
        sizes = sizes or Sizes()
        streams = spec.num_symbols * spec.num_timeframes
        self.encoder = StreamEncoder(spec, sizes)
        self.book = BookEncoder(spec, sizes)
        self.from_streams = nn.Linear(streams * sizes.token, sizes.hidden)
        self.from_book = nn.Linear(spec.num_symbols * 2 * sizes.book, sizes.hidden, bias=False)
        self.from_peers = nn.Linear(spec.num_slots * spec.num_peer_fields, sizes.hidden, bias=False)
        self.timeframe = nn.Parameter(torch.zeros(spec.num_timeframes, sizes.token))
        self.from_hidden = nn.Linear(sizes.hidden, sizes.token)
        self.head = nn.Sequential(
            nn.Linear(sizes.token, sizes.token), nn.GELU(), nn.Linear(sizes.token, OUTPUTS)
        )
        self.hit = nn.Linear(
            OUTPUTS + spec.num_timeframes, 1
        )  # logit of P(hit), fitted apart (`cnn.calibrate`)
        for layer in (self.from_streams, self.from_book, self.from_peers, self.hit):
            nn.init.zeros_(layer.weight)
        self.register_buffer("usual_FO", torch.zeros(spec.num_timeframes, OUTPUTS))
        self.register_buffer("trained_K", torch.zeros(spec.num_slots, dtype=torch.bool))

    def start_at_base(self, usual_FO: Tensor) -> None:
        """Answer every row with the base rate to begin with; what a row shows corrects that."""
        self.get_buffer("usual_FO").copy_(usual_FO)
        with torch.no_grad():
            for parameter in self.head[-1].parameters():
                parameter.mul_(0.1)

    def tokens(self, bars_BSFTC: Tensor, flags_BSFT: Tensor) -> Tensor:
        """Return (B, S, F, D): the streams' tokens, zeros where a stream is masked whole."""
        lead = bars_BSFTC.shape[:3]
        token: Tensor = self.encoder(bars_BSFTC.flatten(0, 2), flags_BSFT.flatten(0, 2))
        return token.reshape(*lead, -1)

    def fuse(self, tokens_BSFD: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs (B, F, O) and hidden state (B, H).

        Args:
            tokens_BSFD: of `tokens`, the decided symbol first.
            beside: (B, H) what book and peers add, None where there is neither.
        """
        mixed = self.from_streams(tokens_BSFD.flatten(1))
        hidden_BH = torch.tanh(mixed if beside is None else mixed + beside)
        own_BFD = tokens_BSFD[:, 0] + self.timeframe + self.from_hidden(hidden_BH)[:, None]
        return self.head(own_BFD) + self.get_buffer("usual_FO"), hidden_BH

    def beside(
        self, book_BSTB: Tensor, known_BSTB: Tensor, peers_BKP: Tensor, awake_BK: Tensor
    ) -> Tensor:
        """Return (B, H): what the book and those peers add that the checkpoint was trained with."""
        heard = (awake_BK != 0) & self.get_buffer("trained_K")
        peers = torch.where(heard[..., None], peers_BKP, 0.0)
        added: Tensor = self.from_book(self.book(book_BSTB, known_BSTB)) + self.from_peers(
            peers.flatten(1)
        )
        return added

    def hit_logit(self, outputs_BFO: Tensor) -> Tensor:
        """Return (B, F): logit of P(kind, time and price hit), from the forecast itself."""
        logit, bars, high, low, done = outputs_BFO.detach().unbind(-1)
        move = torch.where(logit >= 0, high, low)
        told = torch.stack([logit.abs(), bars, move.abs(), (high - low).abs(), done], dim=-1)
        which = torch.eye(told.shape[1]).expand(told.shape[0], -1, -1)
        answer: Tensor = self.hit(torch.cat([told, which], dim=-1))
        return answer.squeeze(-1)
