"""Replay minute after minute as an environment: the policy's own inputs, rewards in R, net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from alphapulse.config import Settings
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import NoData
from alphapulse.domain.inputs import INPUT_SPEC, Tensor
from alphapulse.domain.market import SECOND_NS, BarSeries, Floats, Instrument, Ints, Timeframe
from alphapulse.learning.rewards import FLAT, Held, Rules, moved, reward, target_of
from alphapulse.models.cnn import CNN
from alphapulse.models.network import volatility_SF
from alphapulse.models.policy import ACTIONS, NUM_ACCOUNT_FIELDS, features_of, num_features
from alphapulse.models.vote import RISK
from experiments.dataset import WARMUP_BARS, input_pair, windows

# axes: N minute, oldest first · S symbol · X feature · A account field
SECONDS_IN_TRADE = 300  # that count as 1, as the account tells the models
EPISODE = 120  # minutes after which what is open is closed


@dataclass(frozen=True, slots=True, repr=False)
class Minutes:
    """What a policy would have been shown minute after minute, and what the market then did.

    An instant whose input was incomplete is left out: the minute before it lasts until the next.

    Attributes:
        at_N: int64 (N,) instants [ns UTC].
        features_NSX: float32 (N, S, X) of `features_of` while flat, the CNN's forecast included.
        log_price_NS: float64 (N, S) newest traded price at the instants.
        log_fill_NS: float64 (N, S) the open that follows: what a decision made then meets.
        risk_NS: float64 (N, S) one hourly volatility, R of an entry [log price].
    """

    symbols: tuple[str, ...]
    at_N: Ints
    features_NSX: Tensor
    log_price_NS: Floats
    log_fill_NS: Floats
    risk_NS: Floats

    def __len__(self) -> int:
        return len(self.at_N)

    def features(self, n: int, s: int, held: Held) -> Tensor:
        """Return what the policy is shown of symbol `s` at minute `n` while it holds `held`."""
        shown_X = self.features_NSX[n, s].copy()
        if held.position:
            seconds = (int(self.at_N[n]) - held.since_ns) // SECOND_NS
            result = held.result(float(self.log_price_NS[n, s]))
            account_A = (held.position, result, seconds / SECONDS_IN_TRADE, 0.0)
            shown_X[-NUM_ACCOUNT_FIELDS:] = account_A
        return shown_X


async def collect_minutes(
    recording: Path,
    settings: Settings,
    cnn: CNN,
    *,
    num: int,
    until_ns: int | None = None,
    on_minute: Callable[[], None] = lambda: None,
) -> Minutes:
    """Walk the newest candles before the first tick, minute by minute, as the feed would.

    Args:
        recording: folder with ticks and candles.
        settings: of market and feed.
        cnn: whose forecasts the policy reads.
        num: minutes wanted.
        until_ns: what closes later is not seen [ns UTC].
        on_minute: called after every minute.

    Raises:
        NoData: too few minutes, or none with complete inputs.
    """
    instruments = settings.market.taught
    symbols = tuple(i.symbol for i in instruments)
    end_ns = min(candles_end_ns(recording, settings), until_ns or 2**62)
    before = Tape(recording, instruments, with_ticks=False, from_ns=end_ns)
    opens = {i.symbol: await _opens(before, i) for i in instruments}
    minutes = await before.history(instruments[0], Timeframe.M1, None)
    closes = usable_minutes(minutes)[-num - 1 : -1]  # the open after the newest is known too
    if len(closes) < num:
        raise NoData(
            f"{recording}: expected {num} minutes of candles before {end_ns} after a warm-up of "
            f"{WARMUP_BARS}, was {len(closes)}; ask for fewer, or record a longer history"
        )
    candles = Tape(
        recording,
        instruments,
        with_ticks=False,
        from_ns=int(closes[0]) - Timeframe.M1.ns,
        until_ns=int(closes[-1]),
    )
    at, features, prices, fills, risks = [], [], [], [], []
    async for window in windows(candles, settings, closes):
        pair = input_pair(window, symbols)
        on_minute()
        risk = [float(volatility_SF(i.bars_SFTC, i.flags_SFT)[0, RISK]) for i in pair]
        fill = [opens[symbol].get(window.event_ns, np.nan) for symbol in symbols]
        if pair and np.isfinite([*risk, *fill]).all():
            at.append(window.event_ns)
            features.append([features_of(i, cnn.predict(i, upstream={}), cnn.spec) for i in pair])
            prices.append([np.log(i.price) for i in pair])
            fills.append(np.log(fill))
            risks.append(risk)
    if len(at) < 2:
        raise NoData(
            f"{recording}: expected minutes with complete inputs, was {len(at)}; fill gaps"
        )
    return Minutes(
        symbols,
        np.array(at),
        np.array(features),
        np.array(prices),
        np.array(fills),
        np.array(risks),
    )


async def _opens(tape: Tape, instrument: Instrument) -> dict[int, float]:
    minutes = await tape.history(instrument, Timeframe.M1, None)
    return dict(zip(minutes.open_ns_T.tolist(), minutes.ohlcv_TC[:, 0].tolist(), strict=True))


def candles_end_ns(recording: Path, settings: Settings) -> int:
    """Return the first tick, or the end where there are none [ns UTC]: candles count until then."""
    tape = Tape(recording, settings.market.taught)
    return tape.first_ns if tape.has_ticks else tape.last_ns


def usable_minutes(minutes: BarSeries) -> Ints:
    """Return the closes of the minutes after the warm-up [ns UTC]."""
    return np.asarray(minutes.open_ns_T[WARMUP_BARS:] + Timeframe.M1.ns)


async def taught_until_ns(recording: Path, settings: Settings) -> int:
    """Return the newest instant a first training on the recording learned from [ns UTC].

    What it held out begins there: see `experiments.dataset`.
    """
    end_ns, training = candles_end_ns(recording, settings), settings.training
    instruments = settings.market.taught
    before = Tape(recording, instruments, with_ticks=False, from_ns=end_ns)
    closes = usable_minutes(await before.history(instruments[0], Timeframe.M1, None))
    num = (training.num_train + training.num_held_out) // 2
    taught = num * training.num_train // (training.num_train + training.num_held_out)
    return int(closes[np.linspace(0, len(closes) - 1, num).astype(np.int64)[taught]])


class ReplayEnv(gymnasium.Env[Tensor, int]):
    """One symbol minute after minute; the policy is a price-taker, so that all is replayed.

    Actions are places in `models.policy.ACTIONS`; each asks for a target position. A decision
    meets the next open; its reward is what was held from there until the next decision meets its
    own, net of what changing the position cost: a step spans the minutes left out. At the end what
    is open is closed and pays for it.
    """

    def __init__(
        self,
        minutes: Minutes,
        *,
        begin: int,
        end: int,
        rules: Rules,
        length: int = EPISODE,
    ) -> None:
        """Replay the minutes from `begin` to `end`, in episodes of at most `length` steps."""
        self.minutes, self._rules = minutes, rules
        self._begin, self._end = begin, end
        self._length = min(length, end - begin - 1)
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (num_features(INPUT_SPEC),), np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self.held, self.symbol = FLAT, 0
        self._n, self._last = begin, end - 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begin an episode of a random symbol at a random minute, or as `options` say.

        Args:
            seed: of the random choices from now on.
            options: `symbol` and `begin`, by number; then it lasts to the end.
        """
        super().reset(seed=seed)
        if options:
            self.symbol, self._n, self._last = options["symbol"], options["begin"], self._end - 1
        else:
            self.symbol = int(self.np_random.integers(len(self.minutes.symbols)))
            self._n = int(self.np_random.integers(self._begin, self._end - self._length))
            self._last = self._n + self._length
        self.held = FLAT
        return self._shown(), {}

    def step(self, action: int) -> tuple[Tensor, float, bool, bool, dict[str, Any]]:
        """Take the position the action asks for, through the next minute."""
        n, s, told = self._n, self.symbol, self.minutes
        target = target_of(
            ACTIONS[int(action)], self.held.position, allow_short=self._rules.allow_short
        )
        after = moved(
            self.held,
            target,
            at_ns=int(told.at_N[n]),
            log_price=float(told.log_fill_NS[n, s]),
            risk=float(told.risk_NS[n, s]),
        )
        move = float(told.log_fill_NS[n + 1, s] - told.log_fill_NS[n, s])
        earned = reward(self.held, after, move=move, costs=self._rules.costs)
        self.held, self._n = after, n + 1
        is_over = self._n >= self._last
        if is_over:
            earned += reward(self.held, FLAT, move=0.0, costs=self._rules.costs)
            self.held = FLAT
        return self._shown(), earned, False, is_over, {}

    def _shown(self) -> Tensor:
        return self.minutes.features(self._n, self.symbol, self.held)
