"""What the market answered by a cut: next pivots, results of entries, a teacher's actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from alphapulse.domain.inputs import Tensor
from alphapulse.domain.learning import LEVELS
from alphapulse.domain.market import (
    TIMEFRAMES,
    BarSeries,
    Floats,
    Ints,
    Pivot,
    PivotKind,
    Timeframe,
)
from alphapulse.features.pivots import WilliamsStructure
from alphapulse.models.vote import RISK

# axes: N instant · S symbol · F timeframe · T bar, oldest first
HORIZON = 300  # bars of 1m after which an entry is settled, if its stop was not reached before
RESULT_LIMITS = (-1.5, 3.0)  # of a result [R]: one trade in a crash must not be the lesson
BUY, SELL, HOLD = 0.0, 1.0, 2.0  # order of models.rl.ACTIONS
HIGH, LOW, CLOSE = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive instants, and what of their answers was known at the part's end.

    Each model learns on its own part from what the models before it say there, where those never
    learned.

    Attributes:
        begin: first instant.
        end: instant after the last.
        cut_ns: an answer that came later is missing [ns UTC].
        pivots: by head and `unique`, float32 (n, S, F).
        results_NS2: float32 (n, S, 2) net result [R] of a long and a short.
        actions_NS2: float32 (n, S, 2) the teacher's action, flat and long.
    """

    begin: int
    end: int
    cut_ns: int
    pivots: Mapping[str, Tensor]
    results_NS2: Tensor
    actions_NS2: Tensor


def pivots_of(series: BarSeries, *, level: int) -> list[Pivot]:
    """Return the pivots of a level in order of confirmation; none spans a missing bar."""
    structure = WilliamsStructure(series.symbol, series.timeframe)
    found: list[Pivot] = []
    expected = -1
    for open_ns, (open, high, low, close, _) in zip(
        series.open_ns_T.tolist(), series.ohlcv_TC.tolist(), strict=True
    ):
        if open_ns != expected:
            structure.reset()
        expected = open_ns + series.timeframe.ns
        confirmed = structure.update(open_ns, open, high, low, close)
        found += [pivot for pivot in confirmed if pivot.level == level]
    return found


def pivot_answers(
    pivots: Sequence[Pivot],
    *,
    timeframe: Timeframe,
    at_N: Ints,
    price_N: Floats,
    volatility_N: Floats,
    cut_ns: int,
) -> dict[str, Tensor]:
    """Return the targets of the CNN's heads at the instants `at_N`.

    The next pivot is the first whose bar opens at or after the instant, so that nothing of it has
    been seen. It is known once a pivot at or after the instant is confirmed of both kinds; until
    then the answer is missing, because taking what has resolved already would teach quick pivots
    only.

    Args:
        pivots: of one stream and level, in the order of their confirmation.
        timeframe: of the stream.
        at_N: int64 (N,) instants [ns UTC].
        price_N: float64 (N,) prices at them [quote currency].
        volatility_N: float64 (N,) unit of a move [log price].
        cut_ns: what was confirmed later is not known [ns UTC].

    Returns:
        By head (and `unique`: 1 / number of these instants that share the next pivot), float32
        (N,), NaN where the answer is not known at `cut_ns`.
    """
    known_N = np.full(len(at_N), True)
    done_N = np.full(len(at_N), False)
    next_ns: dict[PivotKind, Ints] = {}
    next_price: dict[PivotKind, Floats] = {}
    for kind in PivotKind:
        seen = [p for p in pivots if p.kind is kind and p.confirm_ns <= cut_ns]
        ns = np.array([p.pivot_ns for p in seen] + [2**62], dtype=np.int64)
        confirm = np.array([0] + [p.confirm_ns for p in seen], dtype=np.int64)
        prices = np.array([p.price for p in seen] + [np.nan])
        place_N = np.searchsorted(ns, at_N, side="left")
        known_N &= place_N < len(seen)
        done_N |= confirm[place_N] > at_N
        next_ns[kind], next_price[kind] = ns[place_N], prices[place_N]
    is_high_N = next_ns[PivotKind.HIGH] < next_ns[PivotKind.LOW]
    pivot_ns_N = np.where(is_high_N, next_ns[PivotKind.HIGH], next_ns[PivotKind.LOW])
    pivot_price_N = np.where(is_high_N, next_price[PivotKind.HIGH], next_price[PivotKind.LOW])
    shared_N = np.unique(pivot_ns_N[known_N], return_inverse=True, return_counts=True)
    unique_N = np.full(len(at_N), np.nan)
    unique_N[known_N] = 1 / shared_N[2][shared_N[1]]
    answers = {
        "p_high": is_high_N.astype(np.float64),
        "log_bars": np.log1p((pivot_ns_N - at_N) / timeframe.ns),
        "move": np.log(pivot_price_N / price_N) / volatility_N,
        "p_done": done_N.astype(np.float64),
        "unique": unique_N,
    }
    return {k: np.where(known_N, v, np.nan).astype(np.float32) for k, v in answers.items()}


def entry_results(
    series: BarSeries, *, at_N: Ints, risk_N: Floats, cost: float, cut_ns: int
) -> Tensor:
    """Return the net results [R] of a long and of a short entered at the instants, float32 (N, 2).

    Entered at the last close before the instant; left at the stop, one risk away, if a bar reaches
    it, else at the close 300 bars later; two costs are paid. NaN where the 300 bars had not closed
    at `cut_ns`.

    Args:
        series: bars of 1m without a gap after the first instant.
        at_N: int64 (N,) instants [ns UTC].
        risk_N: float64 (N,) distance of the stop, R [log price].
        cost: of one side [log price].
        cut_ns: what closed later is not known [ns UTC].
    """
    known = series.until(cut_ns)
    first_N = np.searchsorted(known.open_ns_T, at_N, side="left")
    settled_N = first_N + HORIZON <= len(known)
    results_N2 = np.full((len(at_N), 2), np.nan)
    if not settled_N.any():
        return results_N2.astype(np.float32)
    first_M, risk_M = first_N[settled_N], risk_N[settled_N]
    log_price = np.log(known.ohlcv_TC[:, :4])
    entry_M1 = log_price[first_M - 1, CLOSE][:, None]
    lowest_M = (sliding_window_view(log_price[:, LOW], HORIZON)[first_M] - entry_M1).min(axis=1)
    highest_M = (sliding_window_view(log_price[:, HIGH], HORIZON)[first_M] - entry_M1).max(axis=1)
    moved_M = log_price[first_M + HORIZON - 1, CLOSE] - entry_M1[:, 0]
    long_M = np.where(lowest_M <= -risk_M, -1.0, moved_M / risk_M)
    short_M = np.where(highest_M >= risk_M, -1.0, -moved_M / risk_M)
    net_M2 = np.column_stack([long_M, short_M]) - (2 * cost / risk_M)[:, None]
    results_N2[settled_N] = np.clip(net_M2, *RESULT_LIMITS)
    return results_N2.astype(np.float32)


def teacher_actions(series: BarSeries, *, at_N: Ints, cost: float, cut_ns: int) -> Tensor:
    """Return the best action in hindsight at the instants, when flat and when long, float32 (N, 2).

    Dynamic programming over the closes until `cut_ns` with positions 0 and 1, every change paying
    `cost` [log price], the position closed at the end; where both are worth the same, it holds. NaN
    where no bar follows.
    """
    known = series.until(cut_ns)
    moves_T = np.diff(np.log(known.ohlcv_TC[:, CLOSE]))
    target_T2 = np.empty((len(moves_T), 2), dtype=np.int64)
    flat, long = 0.0, -cost
    for t in range(len(moves_T) - 1, -1, -1):
        stay, ride = flat, long + float(moves_T[t])
        target_T2[t] = (ride - cost > stay, ride >= stay - cost)
        flat, long = max(stay, ride - cost), max(ride, stay - cost)
    bar_N = np.searchsorted(known.open_ns_T, at_N, side="left") - 1
    taught_N = bar_N < len(moves_T)
    target_N2 = target_T2[np.where(taught_N, bar_N, 0)]
    actions_N2 = np.column_stack(
        [np.where(target_N2[:, 0] == 1, BUY, HOLD), np.where(target_N2[:, 1] == 0, SELL, HOLD)]
    )
    return np.where(taught_N[:, None], actions_N2, np.nan).astype(np.float32)


class Answers:
    """The answers of both symbols at the instants of a dataset."""

    def __init__(
        self,
        *,
        series: Mapping[tuple[str, Timeframe], BarSeries],
        symbols: Sequence[str],
        at_N: Ints,
        price_NS: Floats,
        volatility_NSF: Floats,
        cost: float,
    ) -> None:
        """Find all pivots once.

        Args:
            series: bars by symbol and timeframe, oldest first.
            symbols: the primary one first.
            at_N: int64 (N,) instants [ns UTC].
            price_NS: float64 (N, S) prices at them [quote currency].
            volatility_NSF: float64 (N, S, F) unit of a move [log price]; that of 1h is the risk.
            cost: of one side [log price].
        """
        self._minutes = [series[symbol, Timeframe.M1] for symbol in symbols]
        self._at_N, self._price_NS, self._volatility_NSF = at_N, price_NS, volatility_NSF
        self._cost = cost
        self._pivots = [
            [pivots_of(series[symbol, tf], level=LEVELS[tf]) for tf in TIMEFRAMES]
            for symbol in symbols
        ]

    def part(self, begin: int, end: int, cut_ns: int) -> Part:
        """Return the answers of the instants from `begin` to `end` as known at `cut_ns`."""
        rows = slice(begin, end)
        at_N, volatility_NSF = self._at_N[rows], self._volatility_NSF[rows]
        found = [
            [
                pivot_answers(
                    pivots,
                    timeframe=timeframe,
                    at_N=at_N,
                    price_N=self._price_NS[rows, s],
                    volatility_N=volatility_NSF[:, s, f],
                    cut_ns=cut_ns,
                )
                for f, (timeframe, pivots) in enumerate(zip(TIMEFRAMES, of_symbol, strict=True))
            ]
            for s, of_symbol in enumerate(self._pivots)
        ]
        heads = {
            head: np.array([[answers[head] for answers in of_symbol] for of_symbol in found])
            for head in found[0][0]
        }
        risk_NS = volatility_NSF[:, :, RISK]
        results = [
            entry_results(m, at_N=at_N, risk_N=risk_NS[:, s], cost=self._cost, cut_ns=cut_ns)
            for s, m in enumerate(self._minutes)
        ]
        actions = [
            teacher_actions(m, at_N=at_N, cost=self._cost, cut_ns=cut_ns) for m in self._minutes
        ]
        return Part(
            begin=begin,
            end=end,
            cut_ns=cut_ns,
            pivots={head: values.transpose(2, 0, 1).copy() for head, values in heads.items()},
            results_NS2=np.stack(results, axis=1),
            actions_NS2=np.stack(actions, axis=1),
        )
