"""Decide which decisions leave the history: by age, count, bytes and value; nothing is touched.

A decision, (run, symbol, event_ns), leaves with all that belongs to it: inferences, predictions,
package, outcomes, examples. Which may leave, which must, and in which order, is decided here from
columns; `eviction.py` carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from alphapulse.domain.market import Bools, Floats, Ints

# axes: N decision

DAY_NS = 86_400 * 10**9

# Weights of the terms of a keep score, each term 0..1 (ML.md, section 6: a plain sum).
RECENCY, LOSS, RARITY, TRADE = 1.0, 1.0, 1.0, 1.0


class Reason(StrEnum):
    """Why a decision leaves."""

    AGE = "age"
    COUNT = "count"
    BYTES = "bytes"
    DISK = "disk"


_REASONS = tuple(Reason)
_STAYS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much history is kept; a limit of 0 is none.

    Attributes:
        max_age_days: since a decision was stored [days, wall clock].
        max_decisions: of all runs together.
        max_bytes: of journals and lake together, what is alive in them [bytes].
        half_life_days: time in which the recency term of a keep score halves [days].
        audit_share: share of all decisions that is never evicted, drawn once by their identity.
    """

    max_age_days: float = 0.0
    max_decisions: int = 0
    max_bytes: int = 0
    half_life_days: float = 7.0
    audit_share: float = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the store takes at the moment of planning.

    Attributes:
        now_ns: wall clock [ns UTC].
        other_bytes: alive, beside the decisions': closed rows, orders, indexes.
        lacking_bytes: what the disk is below its watermark, 0 above it; with it, value decides.
    """

    now_ns: int
    other_bytes: int = 0
    lacking_bytes: int = 0

    @property
    def is_critical(self) -> bool:
        """Return whether the disk is below its watermark."""
        return self.lacking_bytes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """All stored decisions, one a row, in any order.

    Attributes:
        run_N: number of the run, the same for all decisions of one.
        symbol_N: number of the symbol.
        event_ns_N: instant of the decision [ns UTC].
        stored_ns_N: wall clock at which it was made [ns UTC].
        bytes_N: what leaves with it [bytes].
        loss_N: of its worst answered example, NaN without one.
        stratum_N: number of the stratum of that example, negative without one.
        is_pending_N: an inference of it waits for its outcome.
        is_ordered_N: an order names one of its inferences.
        is_audit_N: belongs to the frozen audit sample.
        is_held_N: cannot leave yet for a reason of the store, such as not being in the lake.
    """

    run_N: Ints
    symbol_N: Ints
    event_ns_N: Ints
    stored_ns_N: Ints
    bytes_N: Ints
    loss_N: Floats
    stratum_N: Ints
    is_pending_N: Bools
    is_ordered_N: Bools
    is_audit_N: Bools
    is_held_N: Bools

    def __len__(self) -> int:
        return len(self.event_ns_N)

    def of(self, rows: Ints) -> Candidates:
        """Return some of them, by row."""
        return Candidates(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What leaves, in which order, and what stays although a limit asks for it.

    Attributes:
        rows: of the candidates that leave, first to go first, int64 (number,).
        reasons: why, one a row.
        scores: their keep scores, float64, one a row.
        missed: how far each limit stays exceeded: decisions, or bytes. Only what is protected
            is in the way.
        protected: how many candidates each protection holds; one may be held by several.
    """

    rows: Ints
    reasons: tuple[Reason, ...]
    scores: Floats
    missed: Mapping[Reason, int]
    protected: Mapping[str, int]


def plan(candidates: Candidates, policy: Policy, usage: Usage) -> Plan:
    """Return what must leave so that every limit holds, and no more than that.

    What is too old leaves in any case. For count and bytes the oldest day leaves first, in a day
    the lowest keep score. Below the disk's watermark the lowest keep score leaves first, whatever
    its age. Nothing protected leaves: see `protections`.
    """
    guards = protections(candidates)
    is_free_N = ~np.logical_or.reduce(list(guards.values()))
    score_N = keep_score(candidates, policy, now_ns=usage.now_ns)
    is_old_N = _too_old(candidates, policy, now_ns=usage.now_ns)
    order = _in_order(candidates, score_N, value_first=usage.is_critical)
    aged, rest = order[(is_free_N & is_old_N)[order]], order[(is_free_N & ~is_old_N)[order]]
    why_N = np.full(len(candidates), _STAYS)
    why_N[aged] = _REASONS.index(Reason.AGE)
    excess = _excess(candidates, policy, usage)
    for limit, above in reversed(excess.items()):
        over = above - _weight(candidates, aged, limit)
        why_N[rest[: _prefix(candidates, rest, limit, over)]] = _REASONS.index(limit)
    rows = order[why_N[order] != _STAYS]
    missed = {limit: above - _weight(candidates, rows, limit) for limit, above in excess.items()}
    missed[Reason.AGE] = int((is_old_N & ~is_free_N).sum())
    return Plan(
        rows=rows,
        reasons=tuple(_REASONS[why] for why in why_N[rows]),
        scores=score_N[rows],
        missed={limit: over for limit, over in missed.items() if over > 0},
        protected={name: int(held_N.sum()) for name, held_N in guards.items() if held_N.any()},
    )


def protections(candidates: Candidates) -> dict[str, Bools]:
    """Return what keeps decisions whatever the limits say: a name and a mask (N,) each.

    `settling`: at or after the oldest pending decision of its run, because settlement reads a
    journal again from there. `newest`: of its run and symbol, where a restart goes on.
    """
    return {
        "pending": candidates.is_pending_N,
        "order": candidates.is_ordered_N,
        "audit": candidates.is_audit_N,
        "newest": _newest(candidates),
        "settling": _settling(candidates),
        "held": candidates.is_held_N,
    }


def keep_score(candidates: Candidates, policy: Policy, *, now_ns: int) -> Floats:
    """Return how much each decision is worth keeping, float64 (N,): a weighted sum of 0..1 terms.

    Recency halves with each half-life; the loss counts by its rank among all losses, none by
    nothing; rarity is log(1 / density) of the stratum over its greatest possible value, so that one
    odd stratum does not flatten the others; a trade counts whole.

    Source: ML.md, section 6 (retention under disk pressure).
    """
    age_days_N = np.maximum(now_ns - candidates.stored_ns_N, 0) / DAY_NS
    recency_N = 0.5 ** (age_days_N / policy.half_life_days)
    return np.asarray(
        RECENCY * recency_N
        + LOSS * _percentiles(candidates.loss_N)
        + RARITY * _rarity(candidates.stratum_N)
        + TRADE * candidates.is_ordered_N
    )


def audit_sample(key_N: npt.NDArray[np.uint64], event_ns_N: Ints, *, share: float) -> Bools:
    """Return which decisions belong to the audit sample, (N,).

    A decision's place in it follows from its identity alone; a greater share only adds to it.

    Args:
        key_N: 64 hash bits of run and symbol.
        event_ns_N: instants [ns UTC].
        share: of all decisions, 0..1.
    """
    bits_N = key_N ^ event_ns_N.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        bits_N = (bits_N ^ (bits_N >> np.uint64(shift))) * np.uint64(factor)
    bits_N ^= bits_N >> np.uint64(31)
    return np.asarray(bits_N.astype(np.float64) < share * 2.0**64)


def _too_old(candidates: Candidates, policy: Policy, *, now_ns: int) -> Bools:
    if not policy.max_age_days:
        return np.zeros(len(candidates), np.bool_)
    return np.asarray(now_ns - candidates.stored_ns_N > policy.max_age_days * DAY_NS)


def _in_order(candidates: Candidates, score_N: Floats, *, value_first: bool) -> Ints:
    """Return the candidates, first to go first; the same whatever order they came in."""
    c = candidates
    day_N = c.stored_ns_N // DAY_NS
    keys = (score_N, day_N) if value_first else (day_N, score_N)
    ties = (c.stored_ns_N, c.event_ns_N, c.symbol_N, c.run_N)
    return np.lexsort((*ties[::-1], *keys[::-1]))


def _excess(candidates: Candidates, policy: Policy, usage: Usage) -> dict[Reason, int]:
    """Return how far each limit but that of age is exceeded; nothing where one is met."""
    num_bytes = int(candidates.bytes_N.sum()) + usage.other_bytes
    above = {
        Reason.COUNT: len(candidates) - policy.max_decisions if policy.max_decisions else 0,
        Reason.BYTES: num_bytes - policy.max_bytes if policy.max_bytes else 0,
        Reason.DISK: usage.lacking_bytes,
    }
    return {limit: over for limit, over in above.items() if over > 0}


def _weight(candidates: Candidates, rows: Ints, limit: Reason) -> int:
    return len(rows) if limit is Reason.COUNT else int(candidates.bytes_N[rows].sum())


def _prefix(candidates: Candidates, rows: Ints, limit: Reason, over: int) -> int:
    """Return how many of `rows` must leave, from the first on, for `over` to be gone."""
    if over <= 0:
        return 0
    each = np.ones(len(rows)) if limit is Reason.COUNT else candidates.bytes_N[rows]
    return min(int(np.searchsorted(np.cumsum(each), over)) + 1, len(rows))


def _newest(candidates: Candidates) -> Bools:
    c = candidates
    order = np.lexsort((c.event_ns_N, c.symbol_N, c.run_N))
    run, symbol = c.run_N[order], c.symbol_N[order]
    is_last = np.ones(len(order), np.bool_)
    is_last[:-1] = (run[1:] != run[:-1]) | (symbol[1:] != symbol[:-1])
    newest_N = np.zeros(len(order), np.bool_)
    newest_N[order] = is_last
    return newest_N


def _settling(candidates: Candidates) -> Bools:
    c = candidates
    settling_N = np.zeros(len(c), np.bool_)
    for run in np.unique(c.run_N[c.is_pending_N]):
        is_of_run_N = c.run_N == run
        oldest_ns = c.event_ns_N[is_of_run_N & c.is_pending_N].min()
        settling_N |= is_of_run_N & (c.event_ns_N >= oldest_ns)
    return settling_N


def _percentiles(loss_N: Floats) -> Floats:
    """Return the share of all losses that are not greater than each, 0 for NaN."""
    losses = np.sort(loss_N[~np.isnan(loss_N)])
    if not len(losses):
        return np.zeros(len(loss_N))
    rank_N = np.searchsorted(losses, loss_N, side="right") / len(losses)
    return np.where(np.isnan(loss_N), 0.0, rank_N)


def _rarity(stratum_N: Ints) -> Floats:
    known_N = stratum_N >= 0
    num = int(known_N.sum())
    if num < 2:
        return known_N.astype(np.float64)
    _, which, count = np.unique(stratum_N[known_N], return_inverse=True, return_counts=True)
    rarity_N = np.zeros(len(stratum_N))
    rarity_N[known_N] = np.log(num / count[which]) / np.log(num)
    return rarity_N
